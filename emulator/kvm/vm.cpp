#include "emulator/kvm/vm.hpp"

#include <algorithm>
#include <cerrno>

#include "emulator/kvm/capabilities.hpp"
#include "emulator/kvm/user_memory.hpp"
#include "emulator/kvm/vcpu.hpp"

namespace sevisor::emulator {

// Linux virt/kvm/kvm_main.c kvm_vm_ioctl(), arch/x86/kvm/x86.c kvm_arch_vm_ioctl().
const Ioctl<Vm> Vm::kIoctls[] = {
    {KVM_CHECK_EXTENSION, &Vm::check_extension},
    {KVM_CREATE_VCPU, &Vm::create_vcpu},
    {KVM_SET_USER_MEMORY_REGION, &Vm::set_memory_region},
    {kvm::kSetUserMemoryRegion2, &Vm::set_memory_region_2},
    {KVM_SET_TSS_ADDR, &Vm::accept},
    {KVM_SET_IDENTITY_MAP_ADDR, &Vm::accept},
    {KVM_ENABLE_CAP, &Vm::enable_cap},
    {KVM_GET_CLOCK, &Vm::get_clock},
    {KVM_SET_CLOCK, &Vm::set_clock},
    {KVM_GET_TSC_KHZ, &Vm::get_tsc_khz},
    {KVM_SET_TSC_KHZ, &Vm::set_tsc_khz},
    {KVM_CREATE_IRQCHIP, &Vm::create_irqchip},
    {KVM_CREATE_PIT2, &Vm::create_pit},
    {KVM_IRQ_LINE, &Vm::irq_line},
    {KVM_IRQ_LINE_STATUS, &Vm::irq_line_status},
    {KVM_SET_GSI_ROUTING, &Vm::set_gsi_routing},
    {KVM_SIGNAL_MSI, &Vm::signal_msi},
    {KVM_GET_IRQCHIP, &Vm::get_irqchip},
    {KVM_SET_IRQCHIP, &Vm::set_irqchip},
    {KVM_GET_PIT2, &Vm::get_pit},
    {KVM_SET_PIT2, &Vm::set_pit},
    {KVM_GET_DIRTY_LOG, &Vm::get_dirty_log},
    {KVM_CLEAR_DIRTY_LOG, &Vm::clear_dirty_log},
    {KVM_X86_SET_MSR_FILTER, &Vm::set_msr_filter},
    {KVM_IRQFD, &Vm::irqfd},
    {KVM_IOEVENTFD, &Vm::ioeventfd},
    {KVM_REGISTER_COALESCED_MMIO, &Vm::register_coalesced},
    {KVM_UNREGISTER_COALESCED_MMIO, &Vm::unregister_coalesced},
    {KVM_MEMORY_ENCRYPT_OP, &Vm::memory_encrypt_op},
    {KVM_MEMORY_ENCRYPT_REG_REGION, &Vm::register_region},
    {KVM_MEMORY_ENCRYPT_UNREG_REGION, &Vm::unregister_region},
};

Vm::Vm(std::shared_ptr<Platform> platform, unsigned long type)
    : platform_(std::move(platform)),
      code_(make_code_cache()),
      scheduler_(platform_->machine_lock(), *this),
      type_(type) {}

Vm::~Vm() {
  event_watch_.reset();  // its thread may wait for the lock
  const std::lock_guard lock(this->lock());
  if (sev_.handle != 0) {
    for (const auto& vcpu : vcpus_) vcpu->park();
  }
  vcpus_.clear();
  leave_owner();
  decommission();
}

int Vm::ioctl(unsigned long request, void* argument) {
  std::shared_ptr<Vm> kept;  // outlives the lock
  const std::lock_guard lock(this->lock());
  if (dead_) return -EIO;
  deliver_irqfds();
  keep_ = &kept;
  return dispatch<Vm>(*this, kIoctls, request, argument, -ENOTTY);
}

int Vm::check_extension(void* argument) {
  const auto capability = static_cast<long>(reinterpret_cast<std::uintptr_t>(argument));
  // A write to a read-only slot would have to be emulated.
  if (capability == KVM_CAP_READONLY_MEM && has_protected_state()) return 0;
  // Nor can registers that nobody sees be handed over (kvm_sync_valid_fields()).
  if (capability == KVM_CAP_SYNC_REGS && has_protected_state()) return 0;
  return emulator::check_extension(capability, platform_->personality());
}

int Vm::create_vcpu(void* argument) {
  const auto id = reinterpret_cast<std::uintptr_t>(argument);
  if (id >= kMaxVcpus) return -EINVAL;
  if (vcpus_.size() >= kMaxVcpus || (vcpu_ids_ != 0 && id >= vcpu_ids_)) return -EINVAL;
  if (std::any_of(vcpus_.begin(), vcpus_.end(), [id](const auto& vcpu) { return vcpu->id() == id; })) return -EEXIST;
  vcpus_.push_back(std::make_unique<Vcpu>(*this, static_cast<std::uint32_t>(id)));
  return platform_->descriptors().add(std::make_shared<VcpuFile>(shared_from_this(), *vcpus_.back()));
}

int Vm::set_memory_region(void* argument) {
  kvm_userspace_memory_region region{};
  return get_user(region, argument) ? set_slot(region) : -EFAULT;
}

// Without guest_memfd, whose flag is not known, its further fields are not looked at.
int Vm::set_memory_region_2(void* argument) {
  if (!platform_->personality().memory_region_2) return -ENOTTY;
  kvm::MemoryRegion2 region{};
  if (!get_user(region, argument)) return -EFAULT;
  return set_slot({.slot = region.slot,
                   .flags = region.flags,
                   .guest_phys_addr = region.guest_phys_addr,
                   .memory_size = region.memory_size,
                   .userspace_addr = region.userspace_addr});
}

int Vm::set_slot(const kvm_userspace_memory_region& region) {
  if (has_protected_state() && (region.flags & KVM_MEM_READONLY) != 0) return -EINVAL;
  return memory_.set_slot(region.slot, region.flags, Gpa(region.guest_phys_addr), region.memory_size,
                          static_cast<std::byte*>(user_pointer(region.userspace_addr)));
}

int Vm::accept(void*) { return 0; }

int Vm::get_clock(void* argument) {
  kvm_clock_data data{};
  data.clock = clock_.now + clock_offset_;
  return put_user(argument, data) ? 0 : -EFAULT;
}

int Vm::set_clock(void* argument) {
  kvm_clock_data data{};
  if (!get_user(data, argument)) return -EFAULT;
  if (data.flags & ~static_cast<std::uint32_t>(KVM_CLOCK_REALTIME)) return -EINVAL;
  clock_offset_ = data.clock - clock_.now;
  return 0;
}

int Vm::get_tsc_khz(void*) { return kTscKhz; }

// The rate of vCPUs to come.
int Vm::set_tsc_khz(void* argument) {
  return vcpus_.empty() && tsc_rate_possible(reinterpret_cast<std::uintptr_t>(argument)) ? 0 : -EINVAL;
}

// KVM_CAP_MAX_VCPU_ID: given once, at least 1 beyond the largest ID that is to come.
int Vm::limit_vcpu_ids(std::uint64_t ids) {
  if (ids > kMaxVcpus || (vcpu_ids_ != 0 && ids != vcpu_ids_) || !vcpus_.empty()) return -EINVAL;
  vcpu_ids_ = ids;
  return 0;
}

int Vm::enable_cap(void* argument) {
  kvm_enable_cap cap{};
  if (!get_user(cap, argument)) return -EFAULT;
  if (cap.flags != 0) return -EINVAL;
  if (cap.cap == KVM_CAP_X2APIC_API) {
    const std::uint64_t known = KVM_X2APIC_API_USE_32BIT_IDS | KVM_X2APIC_API_DISABLE_BROADCAST_QUIRK;
    if (cap.args[0] & ~known) return -EINVAL;
    if (irqchip_) {
      irqchip_->set_x2apic_api((cap.args[0] & KVM_X2APIC_API_USE_32BIT_IDS) != 0,
                               (cap.args[0] & KVM_X2APIC_API_DISABLE_BROADCAST_QUIRK) != 0);
    }
    return 0;
  }
  if (cap.cap == KVM_CAP_MAX_VCPU_ID) return limit_vcpu_ids(cap.args[0]);
  if (cap.cap == KVM_CAP_SPLIT_IRQCHIP) return split_irqchip(cap.args[0]);
  if (cap.cap == KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2) return set_manual_dirty_log(cap.args[0]);
  if (cap.cap == KVM_CAP_EXIT_HYPERCALL) return set_hypercall_exits(cap.args[0]);
  if (cap.cap == KVM_CAP_X86_USER_SPACE_MSR) return set_msr_exits(cap.args[0]);
  if (cap.cap == KVM_CAP_VM_COPY_ENC_CONTEXT_FROM) return mirror_context(cap.args[0]);
  if (cap.cap == KVM_CAP_VM_MOVE_ENC_CONTEXT_FROM) return move_context(cap.args[0]);
  return -EINVAL;
}

std::optional<std::chrono::nanoseconds> Vm::time_to_next_event() {
  if (!irqchip_ || irqchip_->next_deadline() == kNoDeadline) return std::nullopt;
  const std::uint64_t deadline = irqchip_->next_deadline();
  // A deadline centuries ahead is none.
  constexpr std::uint64_t kFar = std::uint64_t{1} << 62;
  if (deadline >= kFar) return std::nullopt;
  return std::chrono::nanoseconds(deadline > clock_.now ? deadline - clock_.now : 0);
}

void Vm::skip_to_next_event() {
  clock_.now = std::max(clock_.now, irqchip_->next_deadline());
  irqchip_->advance(clock_.now);
}

}  // namespace sevisor::emulator
