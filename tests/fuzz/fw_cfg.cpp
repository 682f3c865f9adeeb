// fw_cfg as a hostile guest uses it: the input is a list of accesses, and the guest memory that DMA finds.
#include "devices/fw_cfg.hpp"

#include <array>
#include <vector>

#include "base/bytes.hpp"
#include "check.hpp"
#include "input.hpp"

using namespace sevisor;

namespace {

constexpr std::size_t kMemorySize = 0x4000;
constexpr std::size_t kMaxSteps = 64;

// Like the VMM's, it refuses what does not lie wholly in memory.
class Memory final : public devices::GuestDma {
 public:
  bool read(Gpa at, std::span<std::byte> to) override {
    if (!holds(at, to.size())) return false;
    std::copy_n(bytes.begin() + static_cast<std::ptrdiff_t>(at.value), to.size(), to.begin());
    return true;
  }
  bool write(Gpa at, std::span<const std::byte> from) override {
    if (!holds(at, from.size())) return false;
    std::copy(from.begin(), from.end(), bytes.begin() + static_cast<std::ptrdiff_t>(at.value));
    return true;
  }

  std::vector<std::byte> bytes = std::vector<std::byte>(kMemorySize);

 private:
  [[nodiscard]] bool holds(Gpa at, std::size_t size) const {
    return at.value <= bytes.size() && size <= bytes.size() - at.value;
  }
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  fuzz::Input input(data, size);
  Memory memory;
  devices::FwCfg fw_cfg(&memory);
  fw_cfg.add(devices::FwCfgKey::kCpuCount, devices::FwCfgItem::u16(1));
  fw_cfg.add(devices::FwCfgKey::kKernelData, devices::FwCfgItem(std::vector<std::byte>(5000, std::byte{0x5a})));
  fw_cfg.add_file("etc/e820", devices::FwCfgItem(std::vector<std::byte>(40)));

  std::vector<std::byte> buffer(4096);
  for (std::size_t step = 0; step < kMaxSteps && !input.empty(); ++step) {
    const auto choice = input.take<std::uint8_t>();
    // The bus lets only accesses through that lie wholly in the device's range.
    const std::size_t width = std::size_t{1} << (choice >> 4 & 3);
    const std::size_t offset = input.take<std::uint8_t>() % (devices::FwCfg::kLength - width + 1);
    switch (choice & 3) {
      case 0:
        fw_cfg.read(offset, std::span(buffer).first(width));
        break;
      case 1: {
        std::array<std::byte, 8> value{};
        std::ranges::copy(input.bytes(width), value.begin());
        fw_cfg.write(offset, std::span(value).first(width));
        break;
      }
      case 2:
        fw_cfg.read_string(offset, width, std::span(buffer).first(input.take<std::uint16_t>() % 512 * width));
        break;
      default: {
        // A DMA descriptor where the next write to the address register may point to it.
        const std::size_t at = input.take<std::uint16_t>() % kMemorySize;
        const std::span<const std::byte> descriptor = input.bytes(std::min<std::size_t>(16, kMemorySize - at));
        std::ranges::copy(descriptor, memory.bytes.begin() + static_cast<std::ptrdiff_t>(at));
        std::array<std::byte, 4> address{};
        store(address.data(), __builtin_bswap32(static_cast<std::uint32_t>(at)));
        fw_cfg.write(8, address);
        break;
      }
    }
  }
  return 0;
}
