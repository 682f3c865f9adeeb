// fw_cfg against a hostile guest, held to a model that copies one byte at a time.
#include "devices/fw_cfg.hpp"

#include <algorithm>
#include <array>
#include <cstring>
#include <map>
#include <string>
#include <vector>

#include "base/bytes.hpp"
#include "check.hpp"
#include "input.hpp"

namespace {

using namespace sevisor;           // NOLINT(google-build-using-namespace)
using namespace sevisor::devices;  // NOLINT(google-build-using-namespace)
using fuzz::Input;

constexpr std::size_t kMemorySize = 512;  // small, so that transfers often cross its end

class Memory final : public GuestDma {
 public:
  bool read(Gpa at, std::span<std::byte> to) override {
    if (at.value > kMemorySize || to.size() > kMemorySize - at.value) return false;
    std::memcpy(to.data(), bytes.data() + at.value, to.size());
    return true;
  }
  bool write(Gpa at, std::span<const std::byte> from) override {
    if (at.value > kMemorySize || from.size() > kMemorySize - at.value) return false;
    std::memcpy(bytes.data() + at.value, from.data(), from.size());
    return true;
  }
  std::array<std::byte, kMemorySize> bytes{};
};

// Items by key, as the specification has them.
class Model {
 public:
  Model() {
    const auto put = [&](std::uint16_t key, const std::string& text) {
      const auto bytes = std::as_bytes(std::span(text));
      items_[key].assign(bytes.begin(), bytes.end());
    };
    put(0x00, "QEMU");
    put(0x01, std::string("\3\0\0\0", 4));
    put(0x11, "kernel");
    put(0x20, std::string(300, 'a'));
    put(0x21, "");
    std::string directory("\0\0\0\2", 4);
    directory += std::string("\0\0\1\x2c\0\x20\0\0", 8) + "etc/a" + std::string(51, '\0');
    directory += std::string("\0\0\0\0\0\x21\0\0", 8) + "etc/b" + std::string(51, '\0');
    put(0x19, directory);
  }
  void select(std::uint16_t key) {
    key_ = key;
    position_ = 0;
  }
  std::byte next() {
    const auto found = items_.find(key_);
    if (found == items_.end() || position_ >= found->second.size()) return std::byte{0};
    return found->second[position_++];
  }
  void skip(std::uint32_t length) {
    const auto found = items_.find(key_);
    if (found != items_.end()) position_ = std::min<std::size_t>(position_ + std::size_t{length}, found->second.size());
  }

 private:
  std::map<std::uint16_t, std::vector<std::byte>> items_;
  std::uint16_t key_ = 0;
  std::size_t position_ = 0;
};

struct Bench {
  Memory memory;
  FwCfg device{&memory};
  Model model;

  Bench() {
    device.add(FwCfgKey::kKernelData, FwCfgItem::text("kernel"));
    device.add_file("etc/b", FwCfgItem());
    device.add_file("etc/a", FwCfgItem::text(std::string(300, 'a')));
  }

  void check_data(std::span<const std::byte> got) {
    for (const std::byte byte : got) FUZZ_CHECK(byte == model.next());
  }

  void select(std::uint16_t key) {
    std::byte bytes[2];
    store(bytes, key);
    device.write(0, bytes);
    model.select(key);
  }

  void dma(std::uint64_t at) {
    const auto before = memory.bytes;
    std::byte half[4];
    store(half, swap_bytes(static_cast<std::uint32_t>(at >> 32U)));
    device.write(4, half);
    store(half, swap_bytes(static_cast<std::uint32_t>(at)));
    device.write(8, half);

    if (at > kMemorySize || kMemorySize - at < 16) {
      // Nothing to read; the error goes where the control field would be, if that is memory.
      auto expected = before;
      if (at <= kMemorySize - 4) store(&expected[at], swap_bytes(std::uint32_t{1}));
      FUZZ_CHECK(memory.bytes == expected);
      return;
    }
    const auto control = swap_bytes(load<std::uint32_t>(&before[at]));
    const auto length = swap_bytes(load<std::uint32_t>(&before[at + 4]));
    const auto target = swap_bytes(load<std::uint64_t>(&before[at + 8]));
    const auto answer = swap_bytes(load<std::uint32_t>(&memory.bytes[at]));
    if ((control & 8U) != 0) model.select(static_cast<std::uint16_t>(control >> 16U));
    if ((control & 2U) != 0) {
      const bool fits = length == 0 || (target < kMemorySize && length <= kMemorySize - target);
      FUZZ_CHECK(answer == (fits ? 0U : 1U));
      if (!fits) return;  // what memory holds now is not defined
      auto expected = before;
      for (std::uint32_t i = 0; i < length; ++i) expected[target + i] = model.next();
      store(&expected[at], std::uint32_t{0});
      FUZZ_CHECK(memory.bytes == expected);
      return;
    }
    const bool is_write = (control & 16U) != 0;
    FUZZ_CHECK(answer == (is_write && length != 0 ? 1U : 0U));
    if (!is_write && (control & 4U) != 0) model.skip(length);
    auto expected = before;
    store(&expected[at], swap_bytes(answer));
    FUZZ_CHECK(memory.bytes == expected);
  }
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  Input input(data, size);
  Bench bench;
  while (!input.empty()) {
    switch (input.take<std::uint8_t>() % 7) {
      case 0:
        bench.select(input.take<std::uint8_t>());
        break;
      case 1: {
        std::byte bytes[8];
        const auto access = std::span(bytes).first(std::size_t{1} << (input.take<std::uint8_t>() % 4U));
        bench.device.read(1, access);
        bench.check_data(access);
        break;
      }
      case 2: {
        std::byte bytes[256];
        const auto access = std::span(bytes).first(input.take<std::uint8_t>());
        bench.device.read_string(1, 1, access);
        bench.check_data(access);
        break;
      }
      case 3: {  // some of the guest's memory
        const std::size_t at = input.take<std::uint16_t>() % kMemorySize;
        const auto from = input.bytes(std::min<std::size_t>(input.take<std::uint8_t>() % 32U, kMemorySize - at));
        std::copy(from.begin(), from.end(), bench.memory.bytes.begin() + static_cast<std::ptrdiff_t>(at));
        break;
      }
      case 4:  // a request made up for the purpose
        store(&bench.memory.bytes[16], swap_bytes(input.take<std::uint32_t>() & 0x003f001fU));
        store(&bench.memory.bytes[20], swap_bytes(std::uint32_t{input.take<std::uint16_t>()}));
        store(&bench.memory.bytes[24], swap_bytes(std::uint64_t{input.take<std::uint16_t>()}));
        bench.dma(16);
        break;
      case 5:
        bench.dma(input.take<std::uint64_t>() >> (input.take<std::uint8_t>() % 64U));
        break;
      default: {  // any access at all that the bus would let through
        const auto choice = input.take<std::uint8_t>();
        const std::size_t length = std::size_t{1} << (choice % 4U);
        const std::uint64_t offset = input.take<std::uint8_t>() % (FwCfg::kLength - length + 1);
        std::array<std::byte, 8> bytes{};
        const auto access = std::span(bytes).first(length);
        if ((choice & 0x80U) == 0) {
          bench.device.read(offset, access);
          if (offset == 1) bench.check_data(access);
          break;
        }
        if ((offset == 4 && length == 8) || (offset == 8 && length == 4)) break;  // these start transfers: see dma()
        std::ranges::copy(input.bytes(length), bytes.begin());
        bench.device.write(offset, access);
        if (offset == 0 && length == 2) bench.model.select(load<std::uint16_t>(bytes.data()));
        break;
      }
    }
  }
  return 0;
}
