// Whether the processor computes SHA-256 itself, and its vector registers, which are off but for that. APM vol. 2
// section 3.1.3 (CR4.OSFXSR), APM vol. 3 appendix E (CPUID).
#pragma once

#include "firmware/sha256.hpp"

namespace sevisor::firmware {

// While it lives, vector registers may be used if the processor has the SHA extensions. Nothing else in the firmware
// touches them, exception handlers included, so there is no state to save. CPUID is the hypervisor's word: a false one
// ends in #UD and with it the guest.
class ShaUnit {
 public:
  ShaUnit() noexcept;
  ~ShaUnit();
  ShaUnit(const ShaUnit&) = delete;
  ShaUnit& operator=(const ShaUnit&) = delete;

  [[nodiscard]] Sha256Digest hash(std::span<const std::byte> bytes) const noexcept;

 private:
  bool there_;
};

}  // namespace sevisor::firmware
