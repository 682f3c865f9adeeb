// Which processor the engine is compared with: the one that this program runs on, or one that a test makes up.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <utility>

#include "tests/cpu_diff/cpuid.hpp"

namespace sevisor::cpu_diff {

enum class Vendor : std::uint8_t { kAmd, kIntel, kOther };

// From the twelve characters of CPUID leaf 0: "AuthenticAMD".
[[nodiscard]] Vendor vendor_of(std::string_view name);

// From EAX of CPUID leaf 1 (APM vol. 3, E.3.2; SDM vol. 2, CPUID). The extended fields count in.
[[nodiscard]] unsigned family_of(std::uint32_t signature);
[[nodiscard]] unsigned model_of(std::uint32_t signature);

struct Processor {
  std::string name;  // those twelve characters
  unsigned family = 0;
  unsigned model = 0;
  std::map<std::pair<unsigned, unsigned>, std::array<std::uint32_t, 4>> cpuid{};  // by leaf and subleaf

  [[nodiscard]] Vendor vendor() const { return vendor_of(name); }
  [[nodiscard]] bool has(const CpuidBit& bit) const;
  void set(const CpuidBit& bit);
};

// Another may be below: a hypervisor hides features whose instructions run all the same.
inline constexpr CpuidBit kHypervisor{1, 0, kEcx, 31};
inline constexpr CpuidBit kLa57{7, 0, kEcx, 16};                // linear addresses of 57 bits
inline constexpr CpuidBit kFastCmpsb{0x80000021, 0, kEax, 11};  // FSRC: fast short REPE CMPSB (AMD's)

// AMD's core generations from Zen 4 on, by family and model: behind a hypervisor their CPUID bits may be hidden.
[[nodiscard]] bool is_zen4_or_later(const Processor& processor);

// The processor that this program runs on. Its CPUID is read once.
[[nodiscard]] const Processor& host_processor();

// "AuthenticAMD family 25 model 17".
[[nodiscard]] std::string describe_processor(const Processor& processor);

}  // namespace sevisor::cpu_diff
