#include "emulator/kvm/capabilities.hpp"

#include <algorithm>
#include <iterator>

#include "emulator/irqchip/gsi_routing.hpp"
#include "emulator/kvm/coalesced_ring.hpp"
#include "emulator/kvm/msr_store.hpp"
#include "kvm/abi.hpp"

namespace sevisor::emulator {

namespace {

struct Capability {
  long number;
  int value;
};

constexpr Capability kCapabilities[] = {
    {KVM_CAP_IRQCHIP, 1},
    {KVM_CAP_HLT, 1},
    {KVM_CAP_USER_MEMORY, 1},
    {KVM_CAP_SET_TSS_ADDR, 1},
    {KVM_CAP_EXT_CPUID, 1},
    {KVM_CAP_NR_VCPUS, kMaxVcpus},
    {KVM_CAP_NR_MEMSLOTS, 32764},
    {KVM_CAP_PIT, 1},
    {KVM_CAP_MP_STATE, 1},
    {KVM_CAP_DESTROY_MEMORY_REGION_WORKS, 1},
    {KVM_CAP_IRQ_ROUTING, kMaxGsis},
    {KVM_CAP_IRQ_INJECT_STATUS, 1},
    {KVM_CAP_MCE, kMaxMachineCheckBanks},
    {KVM_CAP_JOIN_MEMORY_REGIONS_WORKS, 1},
    {KVM_CAP_COALESCED_MMIO, kCoalescedRingPage},
    {KVM_CAP_PIT2, 1},
    {KVM_CAP_PIT_STATE2, 1},
    {KVM_CAP_SET_IDENTITY_MAP_ADDR, 1},
    {KVM_CAP_ADJUST_CLOCK, 1},
    {KVM_CAP_VCPU_EVENTS, 1},
    {KVM_CAP_DEBUGREGS, 1},
    {KVM_CAP_IRQFD, 1},
    {KVM_CAP_IOEVENTFD, 1},
    {KVM_CAP_XSAVE, 1},
    {KVM_CAP_XCRS, 1},
    {KVM_CAP_GET_TSC_KHZ, 1},
    {KVM_CAP_MAX_VCPUS, kMaxVcpus},
    {KVM_CAP_TSC_DEADLINE_TIMER, 1},
    {KVM_CAP_SIGNAL_MSI, 1},
    {KVM_CAP_READONLY_MEM, 1},
    {KVM_CAP_IRQFD_RESAMPLE, 1},
    {KVM_CAP_IOEVENTFD_NO_LENGTH, 1},
    {KVM_CAP_IOEVENTFD_ANY_LENGTH, 1},
    {KVM_CAP_ENABLE_CAP_VM, 1},
    {KVM_CAP_CHECK_EXTENSION_VM, 1},
    {KVM_CAP_MAX_VCPU_ID, kMaxVcpus},
    {KVM_CAP_X2APIC_API, KVM_X2APIC_API_USE_32BIT_IDS | KVM_X2APIC_API_DISABLE_BROADCAST_QUIRK},
    {KVM_CAP_EXT_EMUL_CPUID, 1},
    {KVM_CAP_GET_MSR_FEATURES, 1},
    {kvm::kCapUserMemory2, 1},
    {KVM_CAP_SPLIT_IRQCHIP, 1},
    {KVM_CAP_IMMEDIATE_EXIT, 1},
    {KVM_CAP_COALESCED_PIO, 1},
    {KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2, kDirtyLogOptions},
    {KVM_CAP_X86_USER_SPACE_MSR, 1},
    {KVM_CAP_X86_MSR_FILTER, 1},
    {KVM_CAP_EXIT_HYPERCALL, kExitHypercalls},
    {KVM_CAP_SET_GUEST_DEBUG, 1},
    {KVM_CAP_SYNC_REGS, static_cast<int>(kSyncRegs)},
    {KVM_CAP_SREGS2, 1},
    {KVM_CAP_SYS_ATTRIBUTES, 1},
    {KVM_CAP_VM_COPY_ENC_CONTEXT_FROM, 1},
    {KVM_CAP_VM_MOVE_ENC_CONTEXT_FROM, 1},
    {kvm::kCapVmTypes, kVmTypes},
};

}  // namespace

int check_extension(long capability, const Personality& personality) noexcept {
  if (capability == kvm::kCapVmTypes && !personality.vm_types) return 0;
  if (capability == kvm::kCapUserMemory2 && !personality.memory_region_2) return 0;
  const Capability* found = std::find_if(std::begin(kCapabilities), std::end(kCapabilities),
                                         [&](const Capability& c) { return c.number == capability; });
  return found == std::end(kCapabilities) ? 0 : found->value;
}

}  // namespace sevisor::emulator
