// A vCPU's ioctls, who answers which, and its VMSA page. Linux arch/x86/kvm/x86.c kvm_arch_vcpu_ioctl().
#include <algorithm>
#include <cerrno>
#include <sys/mman.h>

#include "base/bytes.hpp"
#include "emulator/kvm/cpuid_table.hpp"
#include "emulator/kvm/vcpu.hpp"
#include "emulator/kvm/vm.hpp"

namespace sevisor::emulator {

namespace {
constexpr std::uint32_t kSevLeaf = 0x8000001f;

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
      service_({.c_bit = vm.platform().options().c_bit,
                .max_version = vm.ghcb_version(),
                .known = vm.platform().personality().requests},
               *this),
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

}  // namespace sevisor::emulator
