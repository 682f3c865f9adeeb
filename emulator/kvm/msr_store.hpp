// The MSRs that KVM itself keeps for a vCPU: those a SEV-ES guest reaches by NAE event 0x7c. The ones in the VMSA are
// the processor's, those of the local APIC the irqchip's.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <span>

namespace sevisor::emulator {

class MsrStore {
 public:
  // Nothing or false: #GP. `now`: the TSC.
  [[nodiscard]] std::optional<std::uint64_t> read(std::uint32_t index, std::uint64_t now) const;
  [[nodiscard]] bool write(std::uint32_t index, std::uint64_t value);

  [[nodiscard]] static bool knows(std::uint32_t index) noexcept;

  // All that KVM_GET_MSR_INDEX_LIST names, with those of the VMSA and the APIC.
  [[nodiscard]] static std::span<const std::uint32_t> index_list() noexcept;

 private:
  std::map<std::uint32_t, std::uint64_t> values_;  // those that were written
};

}  // namespace sevisor::emulator
