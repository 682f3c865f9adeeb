// A processor, its memory and a hypervisor for the #VC handler under test. The hypervisor is whatever the test makes
// it.
#pragma once

#include <algorithm>
#include <cstring>
#include <functional>
#include <map>
#include <vector>

#include "ghcb/guest/vc_handler.hpp"

namespace sevisor::test {

class FakePlatform final : public ghcb::guest::Platform {
 public:
  static constexpr std::uint64_t kGhcb = 0xa000;
  static constexpr std::uint64_t kCode = 0x100000;
  static constexpr std::uint64_t kMemory = 0x200000;    // private, 64 KiB
  static constexpr std::uint64_t kDevice = 0xfee00000;  // shared, no memory
  static constexpr std::uint64_t kUnmapped = 0xdead00000;

  // What the hypervisor does on VMGEXIT: sees the page and may change it.
  std::function<void(ghcb::Page&)> hypervisor = [](ghcb::Page&) {};
  std::vector<std::uint8_t> code;
  std::vector<std::uint8_t> memory = std::vector<std::uint8_t>(0x10000);
  std::map<ghcb::guest::SegmentOverride, std::uint64_t> bases;
  unsigned exits = 0;
  ghcb::Page last_request{};

  ghcb::Page& page() noexcept override { return page_; }
  std::uint64_t page_address() const noexcept override { return kGhcb; }
  void vmgexit() noexcept override {
    ++exits;
    last_request = page_;
    page_.valid.clear();
    hypervisor(page_);
  }
  std::size_t fetch(std::uint64_t linear, std::span<std::uint8_t> bytes) noexcept override {
    if (linear < kCode || linear - kCode >= code.size()) return 0;
    const std::size_t count = std::min<std::size_t>(bytes.size(), code.size() - (linear - kCode));
    std::copy_n(code.begin() + static_cast<std::ptrdiff_t>(linear - kCode), count, bytes.begin());
    return count;
  }
  bool read(std::uint64_t linear, std::span<std::uint8_t> bytes) noexcept override {
    if (linear < kMemory || linear - kMemory > memory.size() - bytes.size()) return false;
    std::memcpy(bytes.data(), memory.data() + (linear - kMemory), bytes.size());
    return true;
  }
  bool write(std::uint64_t linear, std::span<const std::uint8_t> bytes) noexcept override {
    if (linear < kMemory || linear - kMemory > memory.size() - bytes.size()) return false;
    std::memcpy(memory.data() + (linear - kMemory), bytes.data(), bytes.size());
    return true;
  }
  ghcb::guest::Translation translate(std::uint64_t linear) noexcept override {
    if (linear >= kUnmapped) return {};
    return {.mapped = true, .shared = linear >= 0xc0000000, .gpa = linear};
  }
  std::uint64_t segment_base(ghcb::guest::SegmentOverride segment) noexcept override { return bases[segment]; }
  std::uint64_t xcr0() noexcept override { return 7; }

 private:
  ghcb::Page page_{};
};

// Marks success and the given fields as the hypervisor does.
inline void succeed(ghcb::Page& page, std::initializer_list<ghcb::Field> fields) {
  page.exit_info_1 = 0;
  page.exit_info_2 = 0;
  page.valid.set(ghcb::Field::kExitInfo1);
  page.valid.set(ghcb::Field::kExitInfo2);
  for (const auto field : fields) page.valid.set(field);
}

inline void answer(ghcb::Page& page, std::uint64_t info_1, std::uint64_t info_2) {
  succeed(page, {});
  page.exit_info_1 = info_1;
  page.exit_info_2 = info_2;
}

}  // namespace sevisor::test
