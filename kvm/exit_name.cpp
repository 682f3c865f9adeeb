#include "kvm/exit_name.hpp"

#include <span>

#include "kvm/abi.hpp"

namespace sevisor::kvm {

namespace {

struct Name {
  std::uint32_t number;
  std::string_view name;
};

constexpr Name kExitReasons[] = {
    {KVM_EXIT_UNKNOWN, "UNKNOWN"},
    {KVM_EXIT_IO, "IO"},
    {KVM_EXIT_HYPERCALL, "HYPERCALL"},
    {KVM_EXIT_DEBUG, "DEBUG"},
    {KVM_EXIT_HLT, "HLT"},
    {KVM_EXIT_MMIO, "MMIO"},
    {KVM_EXIT_IRQ_WINDOW_OPEN, "IRQ_WINDOW_OPEN"},
    {KVM_EXIT_SHUTDOWN, "SHUTDOWN"},
    {KVM_EXIT_FAIL_ENTRY, "FAIL_ENTRY"},
    {KVM_EXIT_INTR, "INTR"},
    {KVM_EXIT_SET_TPR, "SET_TPR"},
    {KVM_EXIT_INTERNAL_ERROR, "INTERNAL_ERROR"},
    {KVM_EXIT_SYSTEM_EVENT, "SYSTEM_EVENT"},
    {KVM_EXIT_IOAPIC_EOI, "IOAPIC_EOI"},
    {KVM_EXIT_X86_RDMSR, "X86_RDMSR"},
    {KVM_EXIT_X86_WRMSR, "X86_WRMSR"},
    {KVM_EXIT_AP_RESET_HOLD, "AP_RESET_HOLD"},
};

constexpr Name kSevCommands[] = {
    {KVM_SEV_INIT, "INIT"},
    {KVM_SEV_ES_INIT, "ES_INIT"},
    {KVM_SEV_LAUNCH_START, "LAUNCH_START"},
    {KVM_SEV_LAUNCH_UPDATE_DATA, "LAUNCH_UPDATE_DATA"},
    {KVM_SEV_LAUNCH_UPDATE_VMSA, "LAUNCH_UPDATE_VMSA"},
    {KVM_SEV_LAUNCH_SECRET, "LAUNCH_SECRET"},
    {KVM_SEV_LAUNCH_MEASURE, "LAUNCH_MEASURE"},
    {KVM_SEV_LAUNCH_FINISH, "LAUNCH_FINISH"},
    {KVM_SEV_SEND_START, "SEND_START"},
    {KVM_SEV_SEND_UPDATE_DATA, "SEND_UPDATE_DATA"},
    {KVM_SEV_SEND_UPDATE_VMSA, "SEND_UPDATE_VMSA"},
    {KVM_SEV_SEND_FINISH, "SEND_FINISH"},
    {KVM_SEV_RECEIVE_START, "RECEIVE_START"},
    {KVM_SEV_RECEIVE_UPDATE_DATA, "RECEIVE_UPDATE_DATA"},
    {KVM_SEV_RECEIVE_UPDATE_VMSA, "RECEIVE_UPDATE_VMSA"},
    {KVM_SEV_RECEIVE_FINISH, "RECEIVE_FINISH"},
    {KVM_SEV_GUEST_STATUS, "GUEST_STATUS"},
    {KVM_SEV_DBG_DECRYPT, "DBG_DECRYPT"},
    {KVM_SEV_DBG_ENCRYPT, "DBG_ENCRYPT"},
    {KVM_SEV_CERT_EXPORT, "CERT_EXPORT"},
    {KVM_SEV_GET_ATTESTATION_REPORT, "GET_ATTESTATION_REPORT"},
    {KVM_SEV_SEND_CANCEL, "SEND_CANCEL"},
    {kSevInit2, "INIT2"},
};

constexpr Name kPlatformCommands[] = {
    {SEV_FACTORY_RESET, "FACTORY_RESET"},
    {SEV_PLATFORM_STATUS, "PLATFORM_STATUS"},
    {SEV_PEK_GEN, "PEK_GEN"},
    {SEV_PEK_CSR, "PEK_CSR"},
    {SEV_PDH_GEN, "PDH_GEN"},
    {SEV_PDH_CERT_EXPORT, "PDH_CERT_EXPORT"},
    {SEV_PEK_CERT_IMPORT, "PEK_CERT_IMPORT"},
    {SEV_GET_ID, "GET_ID"},
    {SEV_GET_ID2, "GET_ID2"},
};

std::string_view find(std::span<const Name> names, std::uint32_t number) noexcept {
  for (const Name& entry : names) {
    if (entry.number == number) return entry.name;
  }
  return "unknown";
}

}  // namespace

std::string_view exit_reason_name(std::uint32_t reason) noexcept { return find(kExitReasons, reason); }
std::string_view sev_command_name(std::uint32_t id) noexcept { return find(kSevCommands, id); }
std::string_view platform_command_name(std::uint32_t id) noexcept { return find(kPlatformCommands, id); }

}  // namespace sevisor::kvm
