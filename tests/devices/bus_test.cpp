#include "devices/bus.hpp"

#include <catch2/catch.hpp>

#include "base/error.hpp"
#include "tests/devices/helpers.hpp"

namespace sevisor::devices::test {
namespace {

// Remembers the last access and answers with the offset.
class Recorder final : public Device {
 public:
  void read(std::uint64_t offset, std::span<std::byte> to) override {
    last_offset = offset;
    last_size = to.size();
    ++accesses;
    for (std::byte& byte : to) byte = static_cast<std::byte>(offset++);
  }
  void write(std::uint64_t offset, std::span<const std::byte> from) override {
    last_offset = offset;
    last_size = from.size();
    ++accesses;
    written.insert(written.end(), from.begin(), from.end());
  }
  std::uint64_t last_offset = 0;
  std::size_t last_size = 0;
  unsigned accesses = 0;
  std::vector<std::byte> written;
};

template <class T>
T bus_in(const Bus& bus, std::uint64_t address, bool expect_claimed = true) {
  std::byte bytes[sizeof(T)];
  CHECK(bus.read(address, bytes) == expect_claimed);
  return load<T>(bytes);
}

TEST_CASE("a bus gives each access to the device whose range holds it") {
  Bus bus("port", kPortBusSize);
  Recorder low;
  Recorder high;
  bus.add(0x3f8, 8, high, "high");
  bus.add(0x60, 1, low, "low");
  bus.add(0x64, 1, low, "low", 4);

  CHECK(bus_in<std::uint8_t>(bus, 0x3fd) == 5);
  CHECK(high.last_offset == 5);
  CHECK(bus_in<std::uint32_t>(bus, 0x3f8) == 0x03020100);
  CHECK(bus_in<std::uint64_t>(bus, 0x3f8) == 0x0706050403020100);
  CHECK(bus_in<std::uint8_t>(bus, 0x64) == 4);
  CHECK(low.last_offset == 4);

  const std::byte two[2] = {std::byte{0xab}, std::byte{0xcd}};
  CHECK(bus.write(0x3fe, two));
  CHECK(high.last_offset == 6);
  CHECK(high.written == from_hex({0xab, 0xcd}));
}

TEST_CASE("what no device claims reads as ones and takes no writes") {
  Bus bus("port", kPortBusSize);
  Recorder device;
  bus.add(0xcf9, 1, device, "reset");
  CHECK(bus_in<std::uint8_t>(bus, 0x80, false) == 0xff);
  CHECK(bus_in<std::uint16_t>(bus, 0x80, false) == 0xffff);
  CHECK(bus_in<std::uint32_t>(bus, 0xcf8, false) == 0xffffffff);  // not split into bytes
  CHECK(bus_in<std::uint16_t>(bus, 0xcf9, false) == 0xffff);      // only partly inside
  const std::byte four[4] = {};
  CHECK_FALSE(bus.write(0xcf8, four));
  CHECK_FALSE(bus.write(0xcfa, four));
  CHECK(device.accesses == 0);

  std::byte odd[3] = {};
  CHECK_FALSE(bus.read(0xcf9, odd));
  CHECK_FALSE(bus.read(0xcf9, {}));
  CHECK_FALSE(bus_in<std::uint8_t>(bus, 0xffff, false) != 0xff);
  CHECK_FALSE(bus_in<std::uint8_t>(bus, ~std::uint64_t{0}, false) != 0xff);
}

TEST_CASE("ranges may touch but not overlap, and must lie on the bus") {
  Bus bus("port", kPortBusSize);
  Recorder device;
  bus.add(0x100, 0x10, device, "first");
  bus.add(0x110, 0x10, device, "after");
  bus.add(0xf0, 0x10, device, "before");
  bus.add(0xfff8, 8, device, "last");
  CHECK_THROWS_AS(bus.add(0x10f, 1, device, "inside"), Error);
  CHECK_THROWS_AS(bus.add(0x80, 0x71, device, "into the next"), Error);
  CHECK_THROWS_AS(bus.add(0x0, 0x1000, device, "around"), Error);
  CHECK_THROWS_AS(bus.add(0x100, 0x10, device, "same"), Error);
  CHECK_THROWS_AS(bus.add(0x200, 0, device, "empty"), Error);
  CHECK_THROWS_AS(bus.add(0x10000, 1, device, "outside"), Error);
  CHECK_THROWS_AS(bus.add(0xfff0, 0x11, device, "over the end"), Error);
  CHECK_THROWS_AS(bus.add(0x300, ~std::uint64_t{0}, device, "wraps"), Error);
}

TEST_CASE("string accesses repeat one register") {
  Bus bus("port", kPortBusSize);
  Recorder device;
  bus.add(0x510, 2, device, "device");
  std::byte five[5];
  CHECK(bus.read_string(0x510, 2, five));
  CHECK(device.accesses == 2);
  CHECK(std::vector<std::byte>(std::begin(five), std::end(five)) == from_hex({0, 1, 0, 1, 0xff}));

  device.accesses = 0;
  CHECK(bus.write_string(0x511, 1, bytes_of("abc")));
  CHECK(device.accesses == 3);
  CHECK(device.last_offset == 1);
  CHECK(device.written == to_vector("abc"));

  CHECK_FALSE(bus.read_string(0x511, 2, five));  // the element leaves the range
  CHECK(five[0] == std::byte{0xff});
  CHECK_FALSE(bus.read_string(0x510, 0, five));
  CHECK_FALSE(bus.write_string(0x600, 1, bytes_of("abc")));
  CHECK(bus.read_string(0x510, 1, {}));
}

// Answers with its name where the guest has put it.
class Wanderer final : public MovableRange {
 public:
  bool read_at(std::uint64_t address, std::span<std::byte> to) override {
    ++asked;
    if (address < base || address - base + to.size() > 0x1000) return false;
    for (std::byte& byte : to) byte = std::byte{'w'};
    return true;
  }
  bool write_at(std::uint64_t address, std::span<const std::byte> from) override {
    ++asked;
    return address >= base && address - base + from.size() <= 0x1000;
  }
  std::uint64_t base = 0;
  unsigned asked = 0;
};

TEST_CASE("a movable range is asked about what touches no fixed one, wherever it is") {
  Bus bus("MMIO", 0x10000);
  Recorder device;
  Wanderer movable;
  bus.add_movable(movable);
  bus.add(0x1100, 0x10, device, "device");
  movable.base = 0x1000;  // around the device
  CHECK(bus_in<std::uint8_t>(bus, 0x10ff) == 'w');
  CHECK(bus_in<std::uint8_t>(bus, 0x1110) == 'w');
  CHECK(bus_in<std::uint32_t>(bus, 0x110c) == 0x0f0e0d0c);
  const std::byte four[4] = {};
  CHECK(bus.write(0x1ffc, four));
  CHECK_FALSE(bus.write(0x1ffd, four));
  CHECK(bus_in<std::uint32_t>(bus, 0x1ffd, false) == 0xffffffff);
  CHECK(bus_in<std::uint8_t>(bus, 0xfff, false) == 0xff);

  // Half of the access is the device's; and what is no access of the bus.
  movable.asked = 0;
  CHECK(bus_in<std::uint32_t>(bus, 0x10fe, false) == 0xffffffff);
  CHECK(bus_in<std::uint32_t>(bus, 0x110e, false) == 0xffffffff);
  CHECK(bus_in<std::uint64_t>(bus, 0xfffc, false) == ~std::uint64_t{0});
  CHECK(bus_in<std::uint8_t>(bus, 0x10000, false) == 0xff);
  CHECK(bus_in<std::uint8_t>(bus, ~std::uint64_t{0}, false) == 0xff);
  std::byte odd[3] = {};
  CHECK_FALSE(bus.read(0x1000, odd));
  CHECK_FALSE(bus.write(0x1000, {}));
  CHECK(movable.asked == 0);

  movable.base = 0x8000;
  CHECK(bus_in<std::uint8_t>(bus, 0x1000, false) == 0xff);
  CHECK(bus_in<std::uint8_t>(bus, 0x8000) == 'w');
  Wanderer second;
  CHECK_THROWS_AS(bus.add_movable(second), Error);
}

}  // namespace
}  // namespace sevisor::devices::test
