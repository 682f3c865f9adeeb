// The MSRs that KVM itself keeps for a vCPU: those a SEV-ES guest reaches by NAE event 0x7c. The ones in the VMSA are
// the processor's, those of the local APIC the irqchip's.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <span>

namespace sevisor::emulator {

// KVM_X86_GET_MCE_CAP_SUPPORTED: there is an MCG_CTL. The number of banks is not in it.
inline constexpr std::uint64_t kMachineCheckFeatures = 1 << 8;
inline constexpr std::uint32_t kMaxMachineCheckBanks = 32;  // KVM_CAP_MCE

class MsrStore {
 public:
  MsrStore();
  // Nothing or false: #GP. `now`: the TSC.
  [[nodiscard]] std::optional<std::uint64_t> read(std::uint32_t index, std::uint64_t now) const;
  [[nodiscard]] bool write(std::uint32_t index, std::uint64_t value);

  [[nodiscard]] static bool knows(std::uint32_t index) noexcept;
  // KVM_X86_SETUP_MCE: MCG_CAP. false: not one that the processor can have.
  [[nodiscard]] bool set_machine_check(std::uint64_t capability);

  // Those that are the same for all guests, and what each reads as: KVM_GET_MSRS on /dev/kvm. Nothing: unknown.
  [[nodiscard]] static std::span<const std::uint32_t> feature_list() noexcept;
  [[nodiscard]] static std::optional<std::uint64_t> read_feature(std::uint32_t index) noexcept;

  // All that KVM_GET_MSR_INDEX_LIST names, with those of the VMSA and the APIC.
  [[nodiscard]] static std::span<const std::uint32_t> index_list() noexcept;

 private:
  [[nodiscard]] bool has_bank_of(std::uint32_t index) const noexcept;

  std::uint64_t machine_check_;                    // MCG_CAP
  std::map<std::uint32_t, std::uint64_t> values_;  // those that were written
};

}  // namespace sevisor::emulator
