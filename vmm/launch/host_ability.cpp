#include "vmm/launch/host_ability.hpp"

#include <fmt/format.h>

#include "base/error.hpp"
#include "kvm/handles.hpp"
#include "vmm/machine/cpuid_table.hpp"

namespace sevisor::vmm {

namespace {

constexpr std::uint32_t kLeafEncryption = 0x8000001f;  // EAX[3]: SEV-ES

}  // namespace

std::optional<std::string> why_no_sev_es(kvm::Host& host) {
  try {
    const kvm::Kvm kvm = kvm::Kvm::open(host);
    if (!kvm.create_vm().can_encrypt()) return "/dev/kvm does not offer encrypted guests: SEV is off or absent";
    const sev_user_data_status status = kvm::SevDevice::open(host).platform_status();
    if (!(status.flags & SEV_STATUS_FLAGS_CONFIG_ES)) {
      // The flag is valid only once the platform is initialised, which the first guest may do.
      const kvm::CpuidTable supported = kvm.supported_cpuid();
      const kvm_cpuid_entry2* leaf = find_leaf(supported, kLeafEncryption);
      if (leaf == nullptr || !(leaf->eax & 1U << 3)) return "the host offers SEV guests, but not SEV-ES ones";
    }
  } catch (const Error& error) {
    return fmt::format("{}: {}", error.tried(), error.came_back());
  }
  return std::nullopt;
}

std::optional<std::string> why_no_kvm(kvm::Host& host) {
  try {
    (void)kvm::Kvm::open(host);
  } catch (const Error& error) {
    return fmt::format("{}: {}", error.tried(), error.came_back());
  }
  return std::nullopt;
}

}  // namespace sevisor::vmm
