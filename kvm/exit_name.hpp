// Names of the kernel's numbers, for people: Linux include/uapi/linux/kvm.h and psp-sev.h.
#pragma once

#include <cstdint>
#include <string_view>

namespace sevisor::kvm {

// KVM_EXIT_* without the prefix; "unknown" if there is none.
[[nodiscard]] std::string_view exit_reason_name(std::uint32_t reason) noexcept;
// enum sev_cmd_id of KVM_MEMORY_ENCRYPT_OP, without KVM_SEV_.
[[nodiscard]] std::string_view sev_command_name(std::uint32_t id) noexcept;
// The commands of /dev/sev, without SEV_.
[[nodiscard]] std::string_view platform_command_name(std::uint32_t id) noexcept;

}  // namespace sevisor::kvm
