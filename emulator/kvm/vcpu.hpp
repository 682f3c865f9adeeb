// An emulated vCPU: what a descriptor of KVM_CREATE_VCPU stands for.
#pragma once

#include <csignal>
#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "base/mapping.hpp"
#include "emulator/cpu/cpu.hpp"
#include "emulator/kvm/file.hpp"
#include "emulator/kvm/fpu_state.hpp"
#include "emulator/kvm/instruction_emulator.hpp"
#include "emulator/kvm/msr_store.hpp"
#include "emulator/kvm/register_state.hpp"
#include "emulator/kvm/scheduler.hpp"
#include "ghcb/hypervisor/service.hpp"
#include "kvm/abi.hpp"
#include "kvm/observer.hpp"
#include "sev/vmsa.hpp"

namespace sevisor::emulator {

class Vm;

class Vcpu final : private Turn, private ghcb::Environment, private EmulatorClient, private CpuObserver {
 public:
  // `id`: KVM's vcpu_id, the APIC ID. The VM is locked.
  Vcpu(Vm& vm, std::uint32_t id);
  ~Vcpu() override;

  int ioctl(unsigned long request, void* argument);
  [[nodiscard]] const std::shared_ptr<Mapping>& run_area() const noexcept { return run_area_; }
  [[nodiscard]] std::uint32_t id() const noexcept { return id_; }

  // LAUNCH_UPDATE_VMSA, in two steps around the firmware's: the page as it is to be measured, or a negative errno...
  [[nodiscard]] int make_vmsa();
  [[nodiscard]] std::span<std::byte> vmsa_page() const noexcept { return vmsa_page_.bytes(); }
  // The page as #VMEXIT has left it: for who wants to see, or change, what only a kernel could.
  [[nodiscard]] std::span<std::byte> stored_vmsa_page();
  // ... and the page is ciphertext now.
  void set_protected();
  [[nodiscard]] bool is_protected() const noexcept { return protected_; }
  // VMSA and GHCB state of a vCPU that was parked, whose VM is given up. All else user space carries over.
  void take_over(Vcpu& from);
  // Puts the state of a vCPU that has run into its VMSA page, encrypted. The processor holds it in between.
  void park();
  // The VM has become another kind of guest.
  void forget_processor();

 private:
  static const Ioctl<Vcpu> kIoctls[];

  // --- vcpu_state.cpp ---
  int set_cpuid2(void* argument);
  int get_cpuid2(void* argument);
  int get_regs(void* argument);
  int set_regs(void* argument);
  int get_sregs(void* argument);
  int set_sregs(void* argument);
  int get_msrs(void* argument);
  int set_msrs(void* argument);
  int get_fpu(void* argument);
  int set_fpu(void* argument);
  int get_xsave(void* argument);
  int set_xsave(void* argument);
  int get_xcrs(void* argument);
  int set_xcrs(void* argument);
  int get_debugregs(void* argument);
  int set_debugregs(void* argument);
  int get_vcpu_events(void* argument);
  int set_vcpu_events(void* argument);
  int get_mp_state(void* argument);
  int set_mp_state(void* argument);
  int get_lapic(void* argument);
  int set_lapic(void* argument);
  int apply_sregs(const kvm_sregs& sregs);
  void apply_regs(const kvm_regs& regs);
  int apply_events(const kvm_vcpu_events& events);
  int nmi(void* argument);
  int interrupt(void* argument);
  int get_tsc_khz(void* argument);
  // --- vcpu_settings.cpp ---
  int set_tsc_khz(void* argument);
  int kvmclock_ctrl(void* argument);
  int setup_mce(void* argument);
  int set_signal_mask(void* argument);
  // --- vcpu_reports.cpp ---
  int tpr_access_reporting(void* argument);
  int set_vapic_addr(void* argument);
  void note_tpr_access(const ghcb::MmioAccess& access);
  std::optional<int> report_apic();  // KVM_RUN's result when there is something to tell
  // --- vcpu_state.cpp again ---
  std::optional<std::uint64_t> host_read_msr(std::uint32_t index);
  bool host_write_msr(std::uint32_t index, std::uint64_t value);
  [[nodiscard]] std::optional<unsigned> guest_c_bit() const;
  // Protected, and of a VM that says so instead of showing stale values.
  [[nodiscard]] bool hidden() const;
  void store_vmsa();
  [[nodiscard]] bool vmsa_is_whole() const;

  // --- vcpu_sync.cpp ---
  int get_sregs2(void* argument);
  int set_sregs2(void* argument);
  [[nodiscard]] bool sync_fields_valid() const;
  [[nodiscard]] int take_synced();
  void give_synced();

  // --- vcpu_run.cpp ---
  int run(void* argument);
  bool prepare_cpu();
  void make_cpu();
  // With an ordinary guest loaded, what user space or the guest did last is completed.
  std::optional<int> enter();
  bool wants_turn() override;
  bool timer_can_wake() override;
  std::optional<int> slice() override;
  std::optional<int> run_slice();
  bool comes_back() const override { return !ended_; }
  bool exit_wanted() const override;
  void interrupted() override;
  std::optional<int> accept_events();
  [[nodiscard]] bool wake_event();
  void inject_nmi(RunControls& controls);
  [[nodiscard]] RunControls next_controls(std::uint64_t budget);
  void publish();  // kvm_run fields that say how the vCPU is

  // --- vcpu_exit.cpp: what an automatic exit leads to. Nothing: the guest runs on; else KVM_RUN's result. ---
  enum class After { kRunOn, kWait, kYield };
  struct Handled {
    After after = After::kRunOn;
    std::optional<int> result = {};
  };
  Handled handle_exit(const CpuExit& exit);
  Handled handle_outcome(const ghcb::Outcome& outcome);
  Handled internal_error(std::uint32_t suberror, std::uint64_t exit_code);
  std::optional<int> complete_user_exit();
  void keep_interrupted_event(std::uint64_t event);

  // --- vcpu_debug.cpp ---
  int set_guest_debug(void* argument);
  Handled report_debug(std::uint8_t vector, std::uint64_t dr6);
  // After an instruction that exited, while the debugger steps. Nothing: it is not over, or raises an exception.
  std::optional<int> report_step(const CpuExit& exit);

  // --- vcpu_ordinary.cpp: guests whose registers KVM sees ---
  [[nodiscard]] bool ordinary() const;
  // registers_ and fpu_ get what the processor holds; with `give_up` it is theirs to hold from now on.
  void take_registers(bool give_up);
  [[nodiscard]] bool give_registers();
  // Nothing: the exit is one that all guests have.
  std::optional<Handled> handle_intercept(const CpuExit& exit);
  Handled handle_emulation(const InstructionEmulator::Outcome& outcome);
  Handled emulate(const CpuExit& exit);
  Handled emulation_failure(const CpuExit& exit);
  Handled delivery_failure(const CpuExit& exit);
  void answer_cpuid_exit();
  Handled answer_hypercall_exit(std::uint64_t next_rip);
  Handled answer_msr_exit(bool write, std::uint64_t next_rip);
  // User space has answered. Nothing: #GP.
  void complete_msr(std::optional<std::uint64_t> value);
  void complete_hypercall(std::uint64_t result);
  void step_over(std::uint64_t next_rip);
  void reset_by_init();
  // A vCPU without a local APIC in the kernel: user space asked to be told when it may inject.
  [[nodiscard]] bool can_inject() const;

  // --- vcpu_environment.cpp ---
  bool read_shared(Gpa gpa, std::span<std::byte> out) override;
  bool write_shared(Gpa gpa, std::span<const std::byte> in) override;
  std::uint64_t ghcb_msr() override;
  void set_ghcb_msr(std::uint64_t value) override;
  ghcb::CpuidValues cpuid(std::uint32_t leaf, std::uint32_t sub_leaf, std::optional<std::uint64_t> xcr0) override;
  std::optional<std::uint64_t> read_msr(std::uint32_t index) override;
  bool write_msr(std::uint32_t index, std::uint64_t value) override;
  bool refused_msr_exits() override;
  bool msr_allowed(std::uint32_t index, bool write);
  std::uint64_t hypercall(const ghcb::Hypercall& call) override;
  bool hypercall_exits(const ghcb::Hypercall& call) override;
  bool port(const ghcb::PortAccess& access) override;
  bool mmio(const ghcb::MmioAccess& access) override;
  bool chip_port(const ghcb::PortAccess& access);
  bool write_port_device(const ghcb::PortAccess& access);
  void inject_exception(std::uint8_t vector, std::optional<std::uint32_t> error_code) override;
  void nmi_complete() override;
  std::uint64_t ap_jump_table() override;
  void set_ap_jump_table(std::uint64_t gpa) override;

  // --- vcpu_observe.cpp: what passes is told to who watches ---
  void msr_requested(std::uint64_t value) override;
  void msr_answered(std::uint64_t value) override;
  void page_requested(Gpa page, const ghcb::Request* request, const ghcb::Page& snapshot) override;
  void page_answered(const ghcb::Answer& answer) override;
  void vc_raised(const Vc& vc) override;
  void returned(std::uint64_t time, std::uint64_t rip, std::uint64_t rsp) override;
  bool memory_used(const Use& use) override;
  void observe_exit(const CpuExit& exit);
  void observe_injection(std::uint64_t event);
  void observe(const kvm::GuestEvent& event);  // at the vCPU's RIP, now

  [[nodiscard]] kvm_run& shared() const noexcept { return *reinterpret_cast<kvm_run*>(run_area_->data()); }

  Vm& vm_;
  std::uint32_t id_;
  unsigned index_ = 0;  // in the irqchip
  std::size_t seat_;    // in the scheduler
  std::shared_ptr<Mapping> run_area_;
  Mapping vmsa_page_;
  std::vector<std::byte> vmsa_seal_;  // what firmware and processor have put there: stands for the checksum of it
  std::vector<kvm_cpuid_entry2> cpuid_;
  RegisterState registers_;  // until the vCPU is protected; an ordinary one's while the processor does not hold them
  kvm_regs stale_regs_{};    // what GET_REGS shows of a protected one
  FpuState fpu_;             // as registers_
  MsrStore msrs_;
  std::unique_ptr<Cpu> cpu_;  // from the first KVM_RUN on
  ghcb::Service service_;
  InstructionEmulator emulator_;
  std::uint64_t next_rip_ = 0;  // behind the instruction of an ordinary guest that user space has been asked about
  bool msr_write_ = false;      // it is WRMSR
  bool debugged_ = false;       // KVM_SET_GUEST_DEBUG
  Debugger debugger_;
  bool protected_ = false;
  std::uint64_t slice_used_ = 0;  // instructions of the present turn, which exits to user space do not end
  bool ended_ = false;            // the last exit left nothing to go on with
  bool loaded_ = false;           // the processor holds the VMSA's state, or an ordinary guest's
  bool shadow_ = false;           // until then: the VMCB's interrupt shadow
  std::uint32_t mp_state_ = KVM_MP_STATE_RUNNABLE;
  bool nmi_masked_ = false;
  bool nmi_pending_ = false;  // without a local APIC in the kernel
  bool held_ = false;         // the guest waits in an AP reset hold
  unsigned cr8_ = 0;          // the same
  bool started_by_sipi_ = false;
  std::uint64_t reinjection_ = 0;  // EVENTINJ: an event whose delivery an exit interrupted
  // What the VMSA began with, then what write traps reported.
  std::uint64_t cr0_ = 0;
  std::uint64_t cr4_ = 0;
  std::uint64_t efer_ = 0;
  std::uint64_t guest_xcr0_ = 1;
  std::optional<std::uint64_t> ghcb_msr_taken_;  // with the VMSA of another vCPU
  ghcb::PortAccess port_{};                      // under way in user space
  ghcb::MmioAccess mmio_{};
  enum class UserExit { kNone, kPort, kMmio, kMsr, kHypercall } user_exit_ = UserExit::kNone;
  std::optional<sigset_t> signal_mask_;  // KVM_SET_SIGNAL_MASK
  bool report_tpr_ = false;              // KVM_TPR_ACCESS_REPORTING
  std::optional<bool> tpr_access_;       // to be reported; true: a write
  std::uint32_t msr_refusal_ = 0;        // KVM_MSR_EXIT_REASON_* of the guest's last refused access
  std::optional<Gpa> ghcb_page_;         // that the last request came through
  std::vector<Vc> open_vcs_;             // whose handlers have not returned; the innermost last
};

class VcpuFile final : public File {
 public:
  VcpuFile(std::shared_ptr<Vm> vm, Vcpu& vcpu) : vm_(std::move(vm)), vcpu_(vcpu) {}
  int ioctl(unsigned long request, void* argument) override { return vcpu_.ioctl(request, argument); }
  std::shared_ptr<Mapping> shared_area() override { return vcpu_.run_area(); }
  [[nodiscard]] Vcpu& vcpu() const noexcept { return vcpu_; }

 private:
  std::shared_ptr<Vm> vm_;  // owns the vCPU
  Vcpu& vcpu_;
};

}  // namespace sevisor::emulator
