// KVM_RUN: slices of a vCPU, and what it has to take before it enters the guest.
// Linux arch/x86/kvm/x86.c vcpu_enter_guest(), svm/svm.c.
#include <algorithm>
#include <atomic>
#include <cerrno>

#include "emulator/cpu/state/registers.hpp"
#include "emulator/kvm/capabilities.hpp"
#include "emulator/kvm/cpuid_table.hpp"
#include "emulator/kvm/vcpu.hpp"
#include "emulator/kvm/vm.hpp"
#include "ghcb/event.hpp"

namespace sevisor::emulator {

namespace {
constexpr std::uint32_t kAddressSizesLeaf = 0x80000008;
constexpr std::uint64_t kMaxCr8 = 15;
}  // namespace

int Vcpu::run(void*) {
  if (vm_.needs_init()) return -EINVAL;
  const SignalGate signals(signal_mask_);
  if (!sync_fields_valid() || take_synced() != 0) return -EINVAL;
  const std::optional<int> over = enter();
  const int result = over ? *over : vm_.scheduler().run(seat_, signals);
  publish();
  give_synced();
  return result;
}

std::optional<int> Vcpu::enter() {
  if (ordinary() && vm_.irqchip() == nullptr) {
    if (shared().cr8 > kMaxCr8) return -EINVAL;
    cr8_ = static_cast<unsigned>(shared().cr8);
  }
  // The processor of an ordinary guest does its part in completing an instruction.
  const bool ready = !ordinary() || prepare_cpu();
  if (ready && ordinary() && vm_.irqchip() == nullptr) cpu_->set_cr8(cr8_);
  // What user space has done for the last exit comes first, even if KVM_RUN then leaves at once.
  if (ready) {
    const bool completes = user_exit_ != UserExit::kNone;
    if (const auto result = complete_user_exit()) return *result;
    if (completes) {
      if (const auto result = report_step({})) return *result;
    }
  }
  if (exit_wanted()) return -EINTR;
  if (!ready || !prepare_cpu()) {
    shared().exit_reason = KVM_EXIT_FAIL_ENTRY;
    shared().fail_entry.hardware_entry_failure_reason = static_cast<std::uint32_t>(ghcb::kExitInvalid);
    shared().fail_entry.cpu = id_;
    return 0;
  }
  ended_ = false;
  return std::nullopt;
}

// VMRUN's first part: the VMSA is decrypted into the processor. false: it is not one that this processor runs, or not
// what #VMEXIT or the firmware has left there (APM vol. 2 section 15.35.8). Looked at once a KVM_RUN: in between nobody
// can change it.
bool Vcpu::prepare_cpu() {
  if (!ordinary() && (!protected_ || !vmsa_is_whole())) return false;
  if (loaded_) return true;
  make_cpu();
  if (ordinary()) {
    loaded_ = give_registers();
    return loaded_;
  }
  sev::Vmsa state{};
  vm_.memory().decrypt_host(vmsa_page_.data(), std::as_writable_bytes(std::span(&state, 1)));
  loaded_ = cpu_->load(state);
  if (loaded_) cpu_->set_interrupt_shadow(shadow_);
  return loaded_;
}

void Vcpu::make_cpu() {
  if (cpu_) return;
  const Protection plain = vm_.encrypted() ? Protection::kSev : Protection::kNone;
  CpuConfig config{.protection = ordinary() ? plain : Protection::kSevEs,
                   .c_bit = vm_.platform().options().c_bit,
                   .physical_bits = 48,
                   .tsc_per_instruction = vm_.platform().options().tsc_per_instruction,
                   .random_seed = vm_.platform().options().seed * kMaxVcpus + id_,
                   .observer = vm_.platform().options().observer != nullptr ? this : nullptr,
                   .watch_memory = vm_.platform().options().watch_memory};
  if (const auto* sizes = find_cpuid(cpuid_, kAddressSizesLeaf, 0)) {
    if (const std::uint32_t bits = sizes->eax & 0xff; bits >= 36 && bits <= 51) config.physical_bits = bits;
  }
  cpu_ = std::make_unique<Cpu>(config, vm_.memory(), vm_.code(), vm_.clock());
  cpu_->set_ghcb_msr(ghcb_msr_taken_.value_or(service_.initial_msr()));
}

bool Vcpu::exit_wanted() const { return std::atomic_ref(shared().immediate_exit).load(std::memory_order_relaxed) != 0; }

void Vcpu::interrupted() {
  if (!exit_wanted()) shared().exit_reason = KVM_EXIT_INTR;
}

void Vcpu::publish() {
  kvm_run& run = shared();
  run.if_flag = loaded_ && cpu_->interrupts_enabled();
  if (const Irqchip* chip = vm_.irqchip()) {
    run.cr8 = chip->cr8(index_);
    run.apic_base = chip->apic(index_).apic_base();
    run.ready_for_interrupt_injection = 1;
  } else if (ordinary() && cpu_) {
    cr8_ = cpu_->cr8();
    run.cr8 = cr8_;
    run.ready_for_interrupt_injection = can_inject();
  }
}

// INIT and SIPI. The result of KVM_RUN when that is over for now.
std::optional<int> Vcpu::accept_events() {
  Irqchip* chip = vm_.irqchip();
  if (chip == nullptr) return std::nullopt;
  const bool waited = mp_state_ == KVM_MP_STATE_UNINITIALIZED;
  bool changed = false;
  if (chip->init_pending(index_) && chip->take_init(index_)) {
    mp_state_ = id_ == 0 ? KVM_MP_STATE_RUNNABLE : KVM_MP_STATE_INIT_RECEIVED;
    if (ordinary()) reset_by_init();
    changed = true;
  }
  if (const auto vector = chip->sipi_pending(index_)) {
    chip->take_sipi(index_);
    if (mp_state_ == KVM_MP_STATE_INIT_RECEIVED && ordinary()) {
      take_registers(true);
      registers_.start_at(*vector);
      mp_state_ = KVM_MP_STATE_RUNNABLE;
    } else if (mp_state_ == KVM_MP_STATE_INIT_RECEIVED) {
      // The first one starts the vCPU where its VMSA says, each later one ends its reset hold. The vector does not
      // count.
      if (started_by_sipi_) service_.finish_hold(true);
      started_by_sipi_ = true;
      held_ = false;
      mp_state_ = KVM_MP_STATE_RUNNABLE;
    }
  }
  // KVM sends user space once round when a vCPU is initialised.
  return waited && changed ? std::optional(-EAGAIN) : std::nullopt;
}

bool Vcpu::wake_event() {
  Irqchip* chip = vm_.irqchip();
  if (reinjection_ != 0 && ordinary()) return true;
  if (chip == nullptr) return reinjection_ != 0 || (nmi_pending_ && !nmi_masked_);
  if (chip->nmi_pending(index_) && !nmi_masked_) return true;
  return chip->interrupt_pending(index_) && loaded_ && cpu_->interrupts_enabled();
}

bool Vcpu::wants_turn() {
  Irqchip* chip = vm_.irqchip();
  switch (mp_state_) {
    case KVM_MP_STATE_RUNNABLE:
      return true;
    case KVM_MP_STATE_UNINITIALIZED:
      return chip != nullptr && chip->init_pending(index_);
    case KVM_MP_STATE_INIT_RECEIVED:
      return chip != nullptr && chip->sipi_pending(index_).has_value();
    default:
      return wake_event() || (chip != nullptr && chip->init_pending(index_));
  }
}

bool Vcpu::timer_can_wake() {
  if (mp_state_ != KVM_MP_STATE_HALTED && mp_state_ != KVM_MP_STATE_AP_RESET_HOLD) return false;
  return loaded_ && cpu_->interrupts_enabled();
}

void Vcpu::inject_nmi(RunControls& controls) {
  if (cpu_->interrupt_shadow()) {
    controls.instruction_limit = 1;
    return;
  }
  if (Irqchip* chip = vm_.irqchip()) chip->take_nmi(index_);
  nmi_pending_ = false;
  nmi_masked_ = true;  // until the guest says that it is done, or an ordinary one executes IRET
  controls.iret_window = ordinary();
  controls.event_injection = ghcb::encode(ghcb::Event{.vector = kVectorNmi, .type = ghcb::EventType::kNmi});
}

RunControls Vcpu::next_controls(std::uint64_t budget) {
  RunControls controls{.instruction_limit = std::max<std::uint64_t>(budget, 1),
                       .msr_intercepts = &vm_.msr_intercepts()};
  Irqchip* chip = vm_.irqchip();
  controls.iret_window = nmi_masked_ && ordinary();
  controls.debugger = debugged_ ? &debugger_ : nullptr;
  controls.interrupt_window = chip == nullptr && ordinary() && shared().request_interrupt_window != 0;
  if (reinjection_ != 0) {
    controls.event_injection = std::exchange(reinjection_, 0);
    if (chip != nullptr && chip->interrupt_pending(index_)) controls.interrupt_window = true;
    return controls;
  }
  if (chip == nullptr) {
    if (nmi_pending_ && !nmi_masked_) inject_nmi(controls);
    return controls;
  }
  const std::uint64_t deadline = chip->next_deadline();
  const std::uint64_t now = vm_.clock().now;
  if (deadline != kNoDeadline) {
    const std::uint64_t ticks = deadline > now ? deadline - now : 1;
    const std::uint64_t per_instruction = vm_.platform().options().tsc_per_instruction;
    controls.instruction_limit = std::min(controls.instruction_limit, (ticks - 1) / per_instruction + 1);
  }
  const bool shadow = cpu_->interrupt_shadow();
  if (chip->nmi_pending(index_) && !nmi_masked_) {
    inject_nmi(controls);
  } else if (chip->interrupt_pending(index_)) {
    if (!shadow && cpu_->interrupts_enabled()) {
      if (const auto vector = chip->acknowledge(index_)) {
        controls.event_injection = ghcb::encode(ghcb::Event{.vector = *vector, .type = ghcb::EventType::kExternal});
        controls.interrupt_window = chip->interrupt_pending(index_);
      }
    } else {
      controls.interrupt_window = true;
    }
  }
  return controls;
}

std::optional<int> Vcpu::slice() {
  const std::optional<int> result = run_slice();
  // A vCPU that polls a device of user space must not keep the turn for ever.
  if (!result || ended_) slice_used_ = 0;
  return result;
}

std::optional<int> Vcpu::run_slice() {
  Irqchip* chip = vm_.irqchip();
  VirtualClock& clock = vm_.clock();
  const std::uint64_t slice = std::max<std::uint64_t>(vm_.platform().options().slice, 1);
  while (slice_used_ < slice) {
    if (chip != nullptr) {
      chip->advance(clock.now);
      vm_.settle_eventfds();
      if (const auto result = accept_events()) return result;
      if (const auto result = report_apic()) return result;
    }
    if (mp_state_ != KVM_MP_STATE_RUNNABLE) {
      if (mp_state_ != KVM_MP_STATE_HALTED && mp_state_ != KVM_MP_STATE_AP_RESET_HOLD) return std::nullopt;
      if (!wake_event()) return std::nullopt;
      if (mp_state_ == KVM_MP_STATE_AP_RESET_HOLD) service_.finish_hold(false);
      held_ = false;
      mp_state_ = KVM_MP_STATE_RUNNABLE;
    }
    if (!loaded_ && !prepare_cpu())
      return internal_error(KVM_INTERNAL_ERROR_UNEXPECTED_EXIT_REASON, ghcb::kExitInvalid).result;
    if (chip != nullptr && cpu_->cr8() != chip->cr8(index_)) cpu_->set_cr8(chip->cr8(index_));
    const RunControls controls = next_controls(slice - slice_used_);
    if (controls.event_injection != 0) observe_injection(controls.event_injection);
    const std::uint64_t before = cpu_->retired();
    const CpuExit exit = cpu_->run(controls);
    slice_used_ += std::max<std::uint64_t>(cpu_->retired() - before, 1);
    if (chip != nullptr) {
      chip->advance(clock.now);
      if (cpu_->cr8() != chip->cr8(index_)) chip->set_cr8(index_, cpu_->cr8());
    }
    const Handled handled = handle_exit(exit);
    vm_.settle_eventfds();  // also at the end of a turn, before anybody else has his
    if (handled.result) {
      ended_ = user_exit_ == UserExit::kNone;
      return handled.result;
    }
    if (const auto result = report_step(exit)) return result;
    if (handled.after != After::kRunOn) return std::nullopt;
  }
  return std::nullopt;
}

}  // namespace sevisor::emulator
