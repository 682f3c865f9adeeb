// ioctls that set up and show a vCPU's state. Linux arch/x86/kvm/x86.c kvm_arch_vcpu_ioctl(). After LAUNCH_UPDATE_VMSA
// the registers are the guest's: what KVM then accepts without effect, and what it shows, is that of a VM of type 0.
#include <algorithm>
#include <cerrno>
#include <cstring>
#include <sys/mman.h>

#include "base/bytes.hpp"
#include "emulator/kvm/capabilities.hpp"
#include "emulator/kvm/cpuid_table.hpp"
#include "emulator/kvm/msr_entries.hpp"
#include "emulator/kvm/user_memory.hpp"
#include "emulator/kvm/vcpu.hpp"
#include "emulator/kvm/vm.hpp"
#include "ghcb/event.hpp"

namespace sevisor::emulator {

namespace {
constexpr std::uint32_t kSevLeaf = 0x8000001f;
constexpr std::uint8_t kExceptions = 32;  // vectors
constexpr std::uint8_t kNmiVector = 2;
constexpr std::uint8_t kShadowMovSs = 1;  // kvm_vcpu_events.interrupt.shadow: KVM_X86_SHADOW_INT_MOV_SS, ..._STI
constexpr std::uint8_t kShadowSti = 2;

// What needs a vCPU's registers.
struct RegisterIoctl {
  unsigned long request;
  bool changes;
  bool refused;  // EINVAL, once the state is the guest's, in VMs that have_protected_state()
};
constexpr RegisterIoctl kRegisterIoctls[] = {
    {KVM_GET_REGS, false, true},   {KVM_SET_REGS, true, true},       {KVM_GET_SREGS, false, true},
    {KVM_SET_SREGS, true, true},   {KVM_GET_FPU, false, true},       {KVM_SET_FPU, true, true},
    {KVM_GET_XSAVE, false, true},  {KVM_SET_XSAVE, true, true},      {KVM_GET_XCRS, false, true},
    {KVM_SET_XCRS, true, true},    {KVM_GET_DEBUGREGS, false, true}, {KVM_SET_DEBUGREGS, true, true},
    {KVM_GET_SREGS2, false, true}, {KVM_SET_SREGS2, true, true},     {KVM_GET_MSRS, false, false},
    {KVM_SET_MSRS, true, false},
};
}  // namespace

const Ioctl<Vcpu> Vcpu::kIoctls[] = {
    {KVM_RUN, &Vcpu::run},
    {KVM_SET_CPUID2, &Vcpu::set_cpuid2},
    {KVM_GET_CPUID2, &Vcpu::get_cpuid2},
    {KVM_GET_REGS, &Vcpu::get_regs},
    {KVM_SET_REGS, &Vcpu::set_regs},
    {KVM_GET_SREGS, &Vcpu::get_sregs},
    {KVM_SET_SREGS, &Vcpu::set_sregs},
    {KVM_GET_SREGS2, &Vcpu::get_sregs2},
    {KVM_SET_SREGS2, &Vcpu::set_sregs2},
    {KVM_GET_MSRS, &Vcpu::get_msrs},
    {KVM_SET_MSRS, &Vcpu::set_msrs},
    {KVM_GET_FPU, &Vcpu::get_fpu},
    {KVM_SET_FPU, &Vcpu::set_fpu},
    {KVM_GET_XSAVE, &Vcpu::get_xsave},
    {KVM_SET_XSAVE, &Vcpu::set_xsave},
    {KVM_GET_XCRS, &Vcpu::get_xcrs},
    {KVM_SET_XCRS, &Vcpu::set_xcrs},
    {KVM_GET_DEBUGREGS, &Vcpu::get_debugregs},
    {KVM_SET_DEBUGREGS, &Vcpu::set_debugregs},
    {KVM_GET_VCPU_EVENTS, &Vcpu::get_vcpu_events},
    {KVM_SET_VCPU_EVENTS, &Vcpu::set_vcpu_events},
    {KVM_GET_MP_STATE, &Vcpu::get_mp_state},
    {KVM_SET_MP_STATE, &Vcpu::set_mp_state},
    {KVM_GET_LAPIC, &Vcpu::get_lapic},
    {KVM_SET_LAPIC, &Vcpu::set_lapic},
    {KVM_NMI, &Vcpu::nmi},
    {KVM_INTERRUPT, &Vcpu::interrupt},
    {KVM_SET_GUEST_DEBUG, &Vcpu::set_guest_debug},
    {KVM_GET_TSC_KHZ, &Vcpu::get_tsc_khz},
    {KVM_SET_TSC_KHZ, &Vcpu::set_tsc_khz},
    {KVM_KVMCLOCK_CTRL, &Vcpu::kvmclock_ctrl},
    {KVM_X86_SETUP_MCE, &Vcpu::setup_mce},
    {KVM_SET_SIGNAL_MASK, &Vcpu::set_signal_mask},
    {KVM_TPR_ACCESS_REPORTING, &Vcpu::tpr_access_reporting},
    {KVM_SET_VAPIC_ADDR, &Vcpu::set_vapic_addr},
};

Vcpu::Vcpu(Vm& vm, std::uint32_t id)
    : vm_(vm),
      id_(id),
      seat_(vm.scheduler().add(*this)),
      run_area_(std::make_shared<Mapping>(Mapping::anonymous(kvm::kVcpuMmapSize, PROT_READ | PROT_WRITE))),
      vmsa_page_(Mapping::anonymous(sizeof(sev::Vmsa), PROT_READ | PROT_WRITE)),
      service_({.c_bit = vm.platform().options().c_bit, .max_version = vm.ghcb_version()}, *this),
      emulator_(*this) {
  vm.coalesced().show_at(run_area_->data() + kCoalescedRingPage * kPageSize);
  if (Irqchip* chip = vm.irqchip()) index_ = chip->add_vcpu(id, id == 0);
  // The BSP runs at once, the others wait for INIT and SIPI, if there is somebody who could send them.
  mp_state_ = id == 0 || vm.irqchip() == nullptr ? KVM_MP_STATE_RUNNABLE : KVM_MP_STATE_UNINITIALIZED;
}

Vcpu::~Vcpu() = default;

int Vcpu::ioctl(unsigned long request, void* argument) {
  const std::lock_guard lock(vm_.lock());
  if (vm_.dead()) return -EIO;
  vm_.deliver_irqfds();
  const auto* registers = std::ranges::find(kRegisterIoctls, request & 0xffffffff, &RegisterIoctl::request);
  if (registers != std::end(kRegisterIoctls)) {
    if (registers->refused && hidden()) return -EINVAL;
    if (ordinary()) take_registers(registers->changes);
  }
  return dispatch<Vcpu>(*this, kIoctls, request, argument, -EINVAL);
}

int Vcpu::make_vmsa() {
  if (registers_.has_breakpoints() || debugged_) return -EINVAL;
  sev::Vmsa vmsa = registers_.vmsa();
  vmsa.sev_features = vm_.vmsa_features();
  if (vm_.has_protected_state()) fpu_.write_to(vmsa);
  store(vmsa_page_.data(), vmsa);
  return 0;
}

void Vcpu::set_protected() {
  kvm_sregs sregs{};
  registers_.get_sregs(sregs);
  cr0_ = sregs.cr0;
  cr4_ = sregs.cr4;
  efer_ = sregs.efer;
  protected_ = true;
  vmsa_seal_.assign(vmsa_page_.bytes().begin(), vmsa_page_.bytes().end());
  const std::uint64_t xcr0 = registers_.xcr0();
  guest_xcr0_ = xcr0;
}

bool Vcpu::vmsa_is_whole() const { return std::ranges::equal(vmsa_page_.bytes(), vmsa_seal_); }

void Vcpu::store_vmsa() {
  if (!loaded_ || !vmsa_is_whole()) return;  // what somebody has changed stays so
  sev::Vmsa state{};
  cpu_->save(state);
  vm_.memory().store_private(vmsa_page_.data(), std::as_bytes(std::span(&state, 1)));
  vmsa_seal_.assign(vmsa_page_.bytes().begin(), vmsa_page_.bytes().end());
}

std::span<std::byte> Vcpu::stored_vmsa_page() {
  store_vmsa();
  return vmsa_page_.bytes();
}

void Vcpu::park() {
  if (ordinary()) {
    take_registers(true);
    return;
  }
  store_vmsa();
  loaded_ = false;
}

void Vcpu::take_over(Vcpu& from) {
  vmsa_page_ = std::move(from.vmsa_page_);
  ghcb_msr_taken_ = from.cpu_ ? std::optional(from.cpu_->ghcb_msr()) : from.ghcb_msr_taken_;
  service_.take_over(from.service_);
  held_ = from.held_;
  started_by_sipi_ = from.started_by_sipi_;
  // KVM's own idea of CR0, CR4, EFER and XCR0, which CPUID's answers depend on, is what user space has set.
  set_protected();
  vmsa_seal_ = std::move(from.vmsa_seal_);
  from.protected_ = false;
  from.cpu_.reset();
}

bool Vcpu::hidden() const { return protected_ && vm_.has_protected_state(); }

std::optional<unsigned> Vcpu::guest_c_bit() const {
  const kvm_cpuid_entry2* entry = find_cpuid(cpuid_, kSevLeaf, 0);
  return entry == nullptr ? std::nullopt : std::optional<unsigned>(entry->ebx & 0x3f);
}

int Vcpu::set_cpuid2(void* argument) {
  kvm_cpuid2 header{};
  if (!get_user(header, argument)) return -EFAULT;
  if (header.nent > kMaxCpuidEntries) return -E2BIG;
  std::vector<kvm_cpuid_entry2> entries(header.nent);
  const auto* first = static_cast<const std::byte*>(argument) + offsetof(kvm_cpuid2, entries);
  if (!copy_from_user(std::as_writable_bytes(std::span(entries)), first)) return -EFAULT;
  // Leaf 0x80000008: KVM knows virtual addresses of 48 and 57 bits, or none said.
  if (const auto* sizes = find_cpuid(entries, 0x80000008, 0)) {
    const std::uint32_t virtual_bits = sizes->eax >> 8 & 0xff;
    if (virtual_bits != 48 && virtual_bits != 57 && virtual_bits != 0) return -EINVAL;
  }
  // After the first KVM_RUN the table may only be set again, not changed.
  if (cpu_ && (entries.size() != cpuid_.size() ||
               std::memcmp(entries.data(), cpuid_.data(), entries.size() * sizeof entries[0]) != 0)) {
    return -EINVAL;
  }
  cpuid_ = std::move(entries);
  return 0;
}

int Vcpu::get_cpuid2(void* argument) {
  kvm_cpuid2 header{};
  if (!get_user(header, argument)) return -EFAULT;
  if (header.nent < cpuid_.size()) return -E2BIG;
  header.nent = static_cast<std::uint32_t>(cpuid_.size());
  auto* first = static_cast<std::byte*>(argument) + offsetof(kvm_cpuid2, entries);
  return copy_to_user(first, std::as_bytes(std::span(cpuid_))) && put_user(argument, header) ? 0 : -EFAULT;
}

int Vcpu::get_regs(void* argument) {
  return put_user(argument, protected_ ? stale_regs_ : registers_.regs()) ? 0 : -EFAULT;
}

int Vcpu::set_regs(void* argument) {
  kvm_regs regs{};
  if (!get_user(regs, argument)) return -EFAULT;
  apply_regs(regs);
  return 0;
}

void Vcpu::apply_regs(const kvm_regs& regs) {
  if (protected_) {
    stale_regs_ = regs;
  } else {
    registers_.set_regs(regs);
  }
}

int Vcpu::get_sregs(void* argument) {
  kvm_sregs sregs{};
  if (!protected_) {
    registers_.get_sregs(sregs);
  } else {
    sregs.cr0 = cr0_;
    sregs.cr4 = cr4_;
    sregs.efer = efer_;
  }
  sregs.cr8 = cr8_;
  if (const Irqchip* chip = vm_.irqchip()) {
    sregs.cr8 = chip->cr8(index_);
    sregs.apic_base = chip->apic(index_).apic_base();
  }
  if (const ghcb::Event event = ghcb::decode_event(reinjection_);
      event.valid && event.type == ghcb::EventType::kExternal && ordinary()) {
    sregs.interrupt_bitmap[event.vector / 64] |= std::uint64_t{1} << event.vector % 64;
  }
  return put_user(argument, sregs) ? 0 : -EFAULT;
}

int Vcpu::set_sregs(void* argument) {
  kvm_sregs sregs{};
  return get_user(sregs, argument) ? apply_sregs(sregs) : -EFAULT;
}

int Vcpu::apply_sregs(const kvm_sregs& sregs) {
  Irqchip* chip = vm_.irqchip();
  RegisterState checked = registers_;
  if (!checked.set_sregs(sregs, guest_c_bit())) return -EINVAL;
  if (chip != nullptr && !chip->write_msr(index_, kMsrApicBase, sregs.apic_base, true)) return -EINVAL;
  if (protected_) return 0;
  registers_ = checked;
  cr8_ = static_cast<unsigned>(sregs.cr8 & 0xf);
  for (unsigned vector = 0; vector < KVM_NR_INTERRUPTS && ordinary(); ++vector) {
    if ((sregs.interrupt_bitmap[vector / 64] >> vector % 64 & 1) == 0) continue;
    reinjection_ =
        ghcb::encode(ghcb::Event{.vector = static_cast<std::uint8_t>(vector), .type = ghcb::EventType::kExternal});
    break;
  }
  if (chip != nullptr) chip->set_cr8(index_, static_cast<unsigned>(sregs.cr8 & 0xf));
  return 0;
}

std::optional<std::uint64_t> Vcpu::host_read_msr(std::uint32_t index) {
  if (RegisterState::owns_msr(index)) {
    if (hidden()) return std::nullopt;
    return protected_ ? 0 : registers_.read_msr(index);
  }
  if (Irqchip::owns_msr(index)) {
    return vm_.irqchip() != nullptr ? vm_.irqchip()->read_msr(index_, index) : std::nullopt;
  }
  return msrs_.read(index, vm_.clock().now);
}

bool Vcpu::host_write_msr(std::uint32_t index, std::uint64_t value) {
  if (RegisterState::owns_msr(index)) return !hidden() && (protected_ || registers_.write_msr(index, value));
  if (Irqchip::owns_msr(index)) return vm_.irqchip() != nullptr && vm_.irqchip()->write_msr(index_, index, value, true);
  return msrs_.write(index, value);
}

int Vcpu::get_msrs(void* argument) {
  return read_msr_entries(argument, [this](std::uint32_t index) { return host_read_msr(index); });
}

int Vcpu::set_msrs(void* argument) {
  kvm_msrs header{};
  if (!get_user(header, argument)) return -EFAULT;
  if (header.nmsrs >= kMaxMsrEntries) return -E2BIG;
  std::vector<kvm_msr_entry> entries(header.nmsrs);
  const auto* first = static_cast<const std::byte*>(argument) + offsetof(kvm_msrs, entries);
  if (!copy_from_user(std::as_writable_bytes(std::span(entries)), first)) return -EFAULT;
  int done = 0;
  for (const kvm_msr_entry& entry : entries) {
    if (!host_write_msr(entry.index, entry.data)) break;
    ++done;
  }
  return done;
}

// A protected vCPU of a VM of type 0: shown as zeros, set without effect.
int Vcpu::get_fpu(void* argument) { return put_user(argument, protected_ ? kvm_fpu{} : fpu_.fpu()) ? 0 : -EFAULT; }
int Vcpu::set_fpu(void* argument) {
  kvm_fpu fpu{};
  if (!get_user(fpu, argument)) return -EFAULT;
  if (!protected_) fpu_.set_fpu(fpu);
  return 0;
}
int Vcpu::get_xsave(void* argument) {
  const kvm_xsave none{};
  return copy_to_user(argument, protected_ ? std::as_bytes(std::span(&none, 1)) : fpu_.xsave()) ? 0 : -EFAULT;
}
int Vcpu::set_xsave(void* argument) {
  std::array<std::byte, kXsaveBytes> area;
  if (!copy_from_user(area, argument)) return -EFAULT;
  return protected_ || fpu_.set_xsave(area) ? 0 : -EINVAL;
}

int Vcpu::get_xcrs(void* argument) {
  kvm_xcrs xcrs{};
  xcrs.nr_xcrs = 1;
  xcrs.xcrs[0].value = registers_.xcr0();
  return put_user(argument, xcrs) ? 0 : -EFAULT;
}
int Vcpu::set_xcrs(void* argument) {
  kvm_xcrs xcrs{};
  if (!get_user(xcrs, argument)) return -EFAULT;
  if (xcrs.nr_xcrs > KVM_MAX_XCRS || xcrs.flags != 0) return -EINVAL;
  for (std::uint32_t i = 0; i < xcrs.nr_xcrs; ++i) {
    if (xcrs.xcrs[i].xcr == 0) return registers_.set_xcr0(xcrs.xcrs[i].value) ? 0 : -EINVAL;
  }
  return 0;
}

int Vcpu::get_debugregs(void* argument) {
  kvm_debugregs registers{};
  registers_.get_debugregs(registers);
  return put_user(argument, registers) ? 0 : -EFAULT;
}
int Vcpu::set_debugregs(void* argument) {
  kvm_debugregs registers{};
  if (!get_user(registers, argument)) return -EFAULT;
  return registers_.set_debugregs(registers) ? 0 : -EINVAL;
}

int Vcpu::get_vcpu_events(void* argument) {
  kvm_vcpu_events events{};
  events.nmi.pending = vm_.irqchip() != nullptr ? vm_.irqchip()->nmi_pending(index_) : nmi_pending_;
  events.nmi.masked = nmi_masked_;
  // The VMCB has one bit for both kinds.
  if (loaded_ ? cpu_->interrupt_shadow() : shadow_) events.interrupt.shadow = kShadowSti | kShadowMovSs;
  events.flags = KVM_VCPUEVENT_VALID_NMI_PENDING | KVM_VCPUEVENT_VALID_SHADOW;
  if (const ghcb::Event event = ghcb::decode_event(reinjection_); event.valid) {
    if (event.type == ghcb::EventType::kExternal) {
      events.interrupt.injected = 1;
      events.interrupt.nr = event.vector;
    } else if (event.type == ghcb::EventType::kException) {
      events.exception.injected = 1;
      events.exception.nr = event.vector;
      events.exception.has_error_code = event.has_error_code;
      events.exception.error_code = event.error_code;
    }
  }
  return put_user(argument, events) ? 0 : -EFAULT;
}
int Vcpu::set_vcpu_events(void* argument) {
  kvm_vcpu_events events{};
  return get_user(events, argument) ? apply_events(events) : -EFAULT;
}

int Vcpu::apply_events(const kvm_vcpu_events& events) {
  constexpr std::uint32_t kKnown = KVM_VCPUEVENT_VALID_NMI_PENDING | KVM_VCPUEVENT_VALID_SIPI_VECTOR |
                                   KVM_VCPUEVENT_VALID_SHADOW | KVM_VCPUEVENT_VALID_SMM;
  if (events.flags & ~kKnown) return -EINVAL;
  if ((events.exception.injected || events.exception.pending) &&
      (events.exception.nr >= kExceptions || events.exception.nr == kNmiVector)) {
    return -EINVAL;
  }
  nmi_masked_ = events.nmi.masked != 0;
  if (events.flags & KVM_VCPUEVENT_VALID_SHADOW) {
    shadow_ = events.interrupt.shadow != 0;
    if (loaded_) cpu_->set_interrupt_shadow(shadow_);
  }
  if ((events.flags & KVM_VCPUEVENT_VALID_NMI_PENDING) && (events.nmi.pending || ordinary())) {
    if (vm_.irqchip() == nullptr) {
      nmi_pending_ = events.nmi.pending != 0;
    } else if (events.nmi.pending) {
      vm_.irqchip()->raise_nmi(index_);
    } else {
      (void)vm_.irqchip()->take_nmi(index_);
    }
  }
  if (ordinary()) reinjection_ = 0;
  // A vector of user space's own making is injected as it stands.
  if (events.interrupt.injected) {
    reinjection_ = ghcb::encode(ghcb::Event{.vector = events.interrupt.nr, .type = ghcb::EventType::kExternal});
  } else if (events.exception.injected) {
    reinjection_ = ghcb::encode(ghcb::Event{.vector = events.exception.nr,
                                            .type = ghcb::EventType::kException,
                                            .has_error_code = events.exception.has_error_code != 0,
                                            .error_code = events.exception.error_code});
  }
  return 0;
}

int Vcpu::get_mp_state(void* argument) {
  (void)accept_events();
  const kvm_mp_state state{.mp_state = mp_state_};
  return put_user(argument, state) ? 0 : -EFAULT;
}

int Vcpu::set_mp_state(void* argument) {
  kvm_mp_state state{};
  if (!get_user(state, argument)) return -EFAULT;
  const bool apic = vm_.irqchip() != nullptr;
  switch (state.mp_state) {
    case KVM_MP_STATE_RUNNABLE:
      break;
    case KVM_MP_STATE_UNINITIALIZED:
    case KVM_MP_STATE_INIT_RECEIVED:
    case KVM_MP_STATE_HALTED:
    case KVM_MP_STATE_SIPI_RECEIVED:
    case KVM_MP_STATE_AP_RESET_HOLD:
      if (!apic) return -EINVAL;
      break;
    default:
      return -EINVAL;
  }
  mp_state_ = state.mp_state == KVM_MP_STATE_SIPI_RECEIVED ? KVM_MP_STATE_RUNNABLE : state.mp_state;
  return 0;
}

int Vcpu::get_lapic(void* argument) {
  if (vm_.irqchip() == nullptr) return -EINVAL;
  std::array<std::byte, kApicStateSize> state{};
  vm_.irqchip()->advance(vm_.clock().now);
  vm_.irqchip()->get_lapic(index_, state);
  return copy_to_user(argument, state) ? 0 : -EFAULT;
}
int Vcpu::set_lapic(void* argument) {
  std::array<std::byte, kApicStateSize> state{};
  if (!copy_from_user(state, argument)) return -EFAULT;
  if (vm_.irqchip() == nullptr) return -EINVAL;
  vm_.irqchip()->advance(vm_.clock().now);
  return vm_.irqchip()->set_lapic(index_, state) ? 0 : -EINVAL;
}

int Vcpu::nmi(void*) {
  if (vm_.irqchip() == nullptr) {
    nmi_pending_ = true;
  } else {
    vm_.irqchip()->raise_nmi(index_);
  }
  vm_.scheduler().wake();
  return 0;
}

// The interrupt controllers are user space's, who has asked whether it may (ready_for_interrupt_injection).
int Vcpu::interrupt(void* argument) {
  kvm_interrupt interrupt{};
  if (!get_user(interrupt, argument)) return -EFAULT;
  if (interrupt.irq > 0xff) return -EINVAL;
  if (vm_.irqchip() != nullptr) return -ENXIO;
  reinjection_ =
      ghcb::encode(ghcb::Event{.vector = static_cast<std::uint8_t>(interrupt.irq), .type = ghcb::EventType::kExternal});
  return 0;
}

int Vcpu::get_tsc_khz(void*) { return kTscKhz; }

}  // namespace sevisor::emulator
