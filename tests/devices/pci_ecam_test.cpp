// The memory-mapped configuration space, where PCIEXBAR says (Intel 3 Series datasheet 317607, 5.1).
#include <array>
#include <catch2/catch.hpp>
#include <thread>

#include "devices/debug_ports.hpp"
#include "devices/pci_host.hpp"
#include "tests/devices/helpers.hpp"

namespace sevisor::devices::test {
namespace {

constexpr std::uint32_t kHostBridge = 0x29c08086;
constexpr std::uint32_t kLpcBridge = 0x29188086;
constexpr std::uint64_t kLpc = 0xf8000;  // 00:1f.0
constexpr std::uint32_t kFloating = 0xffffffff;
constexpr std::uint64_t kMiB = 1 << 20;

struct Fixture {
  NoDevice reset;
  PciHost host{reset};
  Bus mmio{"MMIO", kMmioBusSize};
  Fixture() { mmio.add_movable(host); }

  // As firmware does it: the upper half first.
  void put(std::uint64_t bar) {
    out(host, 0, std::uint32_t{0x80000064});
    out(host, 4, static_cast<std::uint32_t>(bar >> 32));
    out(host, 0, std::uint32_t{0x80000060});
    out(host, 4, static_cast<std::uint32_t>(bar));
  }
  [[nodiscard]] std::uint64_t bar() {
    out(host, 0, std::uint32_t{0x80000064});
    const std::uint64_t high = in<std::uint32_t>(host, 4);
    out(host, 0, std::uint32_t{0x80000060});
    return high << 32 | in<std::uint32_t>(host, 4);
  }
  template <class T = std::uint32_t>
  [[nodiscard]] T at(std::uint64_t address) const {
    std::array<std::byte, sizeof(T)> bytes{};
    mmio.read(address, bytes);
    return load<T>(bytes.data());
  }
  template <class T>
  bool write(std::uint64_t address, T value) const {
    std::array<std::byte, sizeof(T)> bytes{};
    store(bytes.data(), value);
    return mmio.write(address, bytes);
  }
  [[nodiscard]] bool answers(std::uint64_t address) const {
    std::byte byte{};
    return mmio.read(address, std::span(&byte, 1));
  }
};

TEST_CASE_METHOD(Fixture, "ECAM: the two places of OVMF, and any other") {
  for (const std::uint64_t base : {0xb0000000ULL, 0xe0000000ULL, 0xc0000000ULL, 0x100000000ULL, 0xff0000000ULL}) {
    CAPTURE(base);
    put(base | 1);
    CHECK(bar() == (base | 1));
    CHECK(at(base) == kHostBridge);
    CHECK(at<std::uint16_t>(base + 2) == 0x29c0);
    CHECK(at(base + kLpc) == kLpcBridge);
    CHECK(write(base + kLpc + 0x40, std::uint32_t{0x601}));
    CHECK(at(base + kLpc + 0x40) == 0x601);
    for (const std::uint64_t nothing : {0x100U, 0x1000U, 0x8000U, 0xf9000U, 0x100000U, 0xffffffcU}) {
      CAPTURE(nothing);
      CHECK(at(base + nothing) == kFloating);
      CHECK(write(base + nothing, std::uint32_t{0}));
    }
    CHECK(at<std::uint64_t>(base + 0xfc) == ~std::uint64_t{0});  // half beyond the 256 bytes
  }
}

TEST_CASE_METHOD(Fixture, "ECAM: the window is as long as PCIEXBAR says, and no byte longer") {
  struct Length {
    std::uint64_t code;
    std::uint64_t bytes;
  };
  constexpr std::uint64_t kBase = 0xe0000000;
  for (const auto& [code, bytes] : {Length{0, 256 * kMiB}, Length{1, 128 * kMiB}, Length{2, 64 * kMiB}}) {
    CAPTURE(code);
    put(kBase | code << 1 | 1);
    CHECK(at(kBase) == kHostBridge);
    CHECK(answers(kBase + bytes - 1));
    CHECK_FALSE(answers(kBase + bytes));
    CHECK_FALSE(answers(kBase - 1));
    CHECK_FALSE(write(kBase + bytes - 2, std::uint32_t{0}));  // half of it beyond
  }
  put(kBase | 3 << 1 | 1);  // reserved
  CHECK_FALSE(answers(kBase));
}

TEST_CASE_METHOD(Fixture, "ECAM: the address has as many bits as the length leaves") {
  put(0xec000000 | 0 << 1 | 1);
  CHECK(bar() == 0xe0000001);
  CHECK(at(0xe0000000) == kHostBridge);
  put(0xec000000 | 1 << 1 | 1);
  CHECK(bar() == 0xe8000003);
  CHECK(at(0xe8000000) == kHostBridge);
  CHECK_FALSE(answers(0xe0000000));
  put(0xec000000 | 2 << 1 | 1);
  CHECK(bar() == 0xec000005);
  CHECK(at(0xec000000) == kHostBridge);
  CHECK_FALSE(answers(0xe8000000));

  // A byte alone makes it longer.
  out(host, 0, std::uint32_t{0x80000060});
  out8(host, 4, 1);
  CHECK(bar() == 0xe0000001);
  put(~std::uint64_t{0});
  CHECK(bar() == 0xffc000007);  // bits 35:26 and 2:0 are all there are
}

TEST_CASE_METHOD(Fixture, "ECAM: a window that is off or has moved away floats") {
  CHECK_FALSE(answers(0));
  put(0xb0000000);
  CHECK_FALSE(answers(0xb0000000));
  CHECK(at(0xb0000000) == kFloating);
  put(0xb0000001);
  CHECK(at(0xb0000000) == kHostBridge);
  put(0xe0000001);
  CHECK(at(0xb0000000) == kFloating);
  CHECK_FALSE(write(0xb0000000 + kLpc + 0x40, std::uint32_t{0x701}));
  CHECK(at(0xe0000000 + kLpc + 0x40) == 1);

  // Moved through the window itself, which is gone with the write.
  CHECK(write(0xe0000060, std::uint32_t{0xd0000001}));
  CHECK_FALSE(answers(0xe0000060));
  CHECK(at(0xd0000060) == 0xd0000001);
  CHECK(write(0xd0000060, std::uint32_t{0}));
  CHECK_FALSE(answers(0xd0000060));
  CHECK(bar() == 0);
}

TEST_CASE_METHOD(Fixture, "ECAM: a device in its way keeps its addresses") {
  class Here final : public Device {
   public:
    void read(std::uint64_t /*offset*/, std::span<std::byte> to) override {
      for (std::byte& byte : to) byte = std::byte{0x5a};
    }
    void write(std::uint64_t /*offset*/, std::span<const std::byte> /*from*/) override { ++writes; }
    unsigned writes = 0;
  };
  Here device;
  mmio.add(0xfec00000, 0x1000, device, "device");
  put(0xfec00000 | 2 << 1 | 1);  // at 0xfc000000
  CHECK(at(0xfc000000) == kHostBridge);
  CHECK(at(0xfec00000) == 0x5a5a5a5a);
  CHECK(write(0xfec00060, std::uint32_t{0}));
  CHECK(device.writes == 1);
  CHECK(answers(0xfebfffff));
  CHECK(answers(0xfec01000));
  CHECK(at(0xfebffffe) == kFloating);  // half the device's
  CHECK_FALSE(write(0xfebffffe, std::uint32_t{0}));
}

TEST_CASE_METHOD(Fixture, "ECAM: an access finds a whole window or none while another vCPU moves it") {
  constexpr int kMoves = 20000;
  std::thread other([this] {
    for (int i = 0; i < kMoves; ++i) {
      put(0xb0000001);
      put(i % 2 == 0 ? 0xe0000003U : 0xb0000000U);
    }
  });
  unsigned strange = 0;
  for (int i = 0; i < kMoves; ++i) {
    for (const std::uint64_t base : {0xb0000000ULL, 0xe0000000ULL}) {
      const auto bridge = at(base);
      const auto lpc = at(base + kLpc);
      if (bridge != kHostBridge && bridge != kFloating) ++strange;
      if (lpc != kLpcBridge && lpc != kFloating) ++strange;
      write(base + 0x60, static_cast<std::uint32_t>(base) | 1);  // and moves it too
    }
  }
  other.join();
  CHECK(strange == 0);
}

// Intel 3 Series datasheet, 5.1.26: ESMRAMC.
TEST_CASE_METHOD(Fixture, "ECAM: a look for SMRAM is told of here too") {
  unsigned told = 0;
  PciHost watched{reset, [&](const MachineEvent&) { ++told; }};
  out(watched, 0, std::uint32_t{0x80000060});
  out(watched, 4, std::uint32_t{0xe0000001});
  std::byte byte{};
  CHECK(watched.read_at(0xe000009e, std::span(&byte, 1)));
  CHECK(byte == std::byte{0});
  CHECK(watched.read_at(0xe000009e, std::span(&byte, 1)));
  CHECK(told == 1);
}

}  // namespace
}  // namespace sevisor::devices::test
