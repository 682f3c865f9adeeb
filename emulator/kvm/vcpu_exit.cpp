// What follows from an automatic exit. Linux arch/x86/kvm/svm/svm.c svm_exit_handlers, svm/sev.c sev_handle_vmgexit().
#include <algorithm>
#include <cerrno>
#include <cstring>
#include <spdlog/spdlog.h>

#include "emulator/cpu/state/registers.hpp"
#include "emulator/kvm/vcpu.hpp"
#include "emulator/kvm/vm.hpp"
#include "ghcb/event.hpp"

namespace sevisor::emulator {

namespace {
template <class... Cases>
struct Overloaded : Cases... {
  using Cases::operator()...;
};
template <class... Cases>
Overloaded(Cases...) -> Overloaded<Cases...>;
constexpr ghcb::ExitCode kExitCr4WriteTrap = ghcb::kExitCr0WriteTrap + 4;
constexpr ghcb::ExitCode kExitCr15WriteTrap = ghcb::kExitCr0WriteTrap + 15;
// kvm_run.hypercall.flags, KVM_EXIT_HYPERCALL_LONG_MODE: KVM takes a guest whose registers it cannot see for a 64-bit
// one.
constexpr std::uint32_t kHypercallOf64Bits = 1;
}  // namespace

// An event whose delivery the exit interrupted is injected again, but for those that the instruction raises anew when
// it is run again: #VC, INT n, and INT3 and INTO, which EVENTINJ does not take in an SEV-ES guest (APM vol. 2
// section 15.35.8).
void Vcpu::keep_interrupted_event(std::uint64_t value) {
  const ghcb::Event event = ghcb::decode_event(value);
  if (!event.valid || event.type == ghcb::EventType::kSoftware) return;
  if (event.type == ghcb::EventType::kException &&
      (event.vector == ghcb::kVectorVc || event.vector == kVectorBp || event.vector == kVectorOf)) {
    return;
  }
  reinjection_ = ghcb::encode(event);
}

Vcpu::Handled Vcpu::internal_error(std::uint32_t suberror, std::uint64_t exit_code) {
  kvm_run& run = shared();
  run.exit_reason = KVM_EXIT_INTERNAL_ERROR;
  run.internal.suberror = suberror;
  run.internal.ndata = 2;
  run.internal.data[0] = exit_code;
  run.internal.data[1] = id_;
  return {.result = 0};
}

Vcpu::Handled Vcpu::handle_exit(const CpuExit& exit) {
  if (exit.interrupted_event != 0) keep_interrupted_event(exit.interrupted_event);
  observe_exit(exit);
  if (!exit.unimplemented.empty()) {
    spdlog::error("vCPU {}: the emulated processor cannot go on: {}\n{}", id_, exit.unimplemented, cpu_->describe());
    return internal_error(KVM_INTERNAL_ERROR_EMULATION, exit.code);
  }
  if (ordinary()) {
    if (const auto handled = handle_intercept(exit)) return *handled;
  }
  switch (exit.code) {
    case ghcb::kExitIntr:
    case ghcb::kExitVintr:
    case ghcb::kExitNmi:
      return {};
    case ghcb::kExitVmgexit:
      return handle_outcome(service_.vmgexit());
    case ghcb::kExitHlt:
      if (vm_.irqchip() == nullptr) {
        shared().exit_reason = KVM_EXIT_HLT;
        return {.result = 0};
      }
      mp_state_ = KVM_MP_STATE_HALTED;
      return wake_event() ? Handled{} : Handled{.after = After::kWait};
    case ghcb::kExitPause:
      return vm_.vcpu_count() > 1 ? Handled{.after = After::kYield} : Handled{};
    case ghcb::kExitShutdown:
      spdlog::debug("vCPU {}: shutdown\n{}", id_, cpu_->describe());
      if (!ordinary() && !vm_.platform().personality().shutdown_exits) return {.result = -EINVAL};
      if (ordinary()) reset_by_init();  // the VMCB is undefined (svm.c shutdown_interception())
      shared().exit_reason = KVM_EXIT_SHUTDOWN;
      return {.result = 0};
    case ghcb::kExitInvalid:
      shared().exit_reason = KVM_EXIT_FAIL_ENTRY;
      shared().fail_entry.hardware_entry_failure_reason = static_cast<std::uint32_t>(ghcb::kExitInvalid);
      shared().fail_entry.cpu = id_;
      return {.result = 0};
    case ghcb::kExitEferWriteTrap:
      efer_ = (exit.info1 & ~(kEferLma | kEferSvme)) | (efer_ & kEferLma);
      return {};
    case ghcb::kExitCr0WriteTrap:
      // LMA follows paging, which no trap of EFER tells (svm_set_cr0()).
      efer_ = (efer_ & kEferLme) != 0 && (exit.info1 & kCr0Pg) != 0 ? efer_ | kEferLma : efer_ & ~kEferLma;
      cr0_ = exit.info1;
      return {};
    case kExitCr4WriteTrap:
      cr4_ = exit.info1;
      return {};
    case ghcb::kExitNpf:
      // KVM would try again for ever: it can neither emulate the write to a read-only slot nor tell the guest.
      spdlog::error("vCPU {}: nested page fault at {:#x} that nothing can resolve\n{}", id_, exit.info2,
                    cpu_->describe());
      return internal_error(KVM_INTERNAL_ERROR_UNEXPECTED_EXIT_REASON, exit.code);
    default:
      if (exit.code >= ghcb::kExitCr0WriteTrap && exit.code <= kExitCr15WriteTrap) return {};
      spdlog::error("vCPU {}: unexpected exit {:#x}\n{}", id_, exit.code, cpu_->describe());
      return internal_error(KVM_INTERNAL_ERROR_UNEXPECTED_EXIT_REASON, exit.code);
  }
}

Vcpu::Handled Vcpu::handle_outcome(const ghcb::Outcome& outcome) {
  kvm_run& run = shared();
  return std::visit(
      Overloaded{
          [](const ghcb::Resume&) { return Handled{}; },
          [&](const ghcb::Held&) {
            held_ = true;
            if (vm_.irqchip() == nullptr) {
              // Without a local APIC in the kernel user space does the waiting, and the hold ends when it comes back.
              run.exit_reason = KVM_EXIT_AP_RESET_HOLD;
              service_.finish_hold(false);
              return Handled{.result = 0};
            }
            mp_state_ = KVM_MP_STATE_AP_RESET_HOLD;
            return Handled{.after = After::kWait};
          },
          [&](const ghcb::PortExit& exit) {
            port_ = exit.access;
            user_exit_ = UserExit::kPort;
            run.exit_reason = KVM_EXIT_IO;
            run.io.direction = port_.in ? KVM_EXIT_IO_IN : KVM_EXIT_IO_OUT;
            run.io.size = static_cast<std::uint8_t>(port_.size);
            run.io.port = port_.port;
            run.io.count = port_.count;
            run.io.data_offset = kvm::kPioDataOffset;
            if (!port_.in) std::copy(port_.data.begin(), port_.data.end(), run_area_->data() + kvm::kPioDataOffset);
            return Handled{.result = 0};
          },
          [&](const ghcb::MmioExit& exit) {
            mmio_ = exit.access;
            user_exit_ = UserExit::kMmio;
            run.exit_reason = KVM_EXIT_MMIO;
            run.mmio.phys_addr = mmio_.gpa.value;
            run.mmio.len = static_cast<std::uint32_t>(mmio_.data.size());
            run.mmio.is_write = mmio_.write;
            std::memset(run.mmio.data, 0, sizeof run.mmio.data);
            if (mmio_.write) std::memcpy(run.mmio.data, mmio_.data.data(), mmio_.data.size());
            return Handled{.result = 0};
          },
          [&](const ghcb::MsrExit& access) {
            user_exit_ = UserExit::kMsr;
            run.exit_reason = access.write ? KVM_EXIT_X86_WRMSR : KVM_EXIT_X86_RDMSR;
            run.msr = {};
            run.msr.reason = msr_refusal_;
            run.msr.index = access.index;
            run.msr.data = access.value;
            return Handled{.result = 0};
          },
          [&](const ghcb::HypercallExit& exit) {
            user_exit_ = UserExit::kHypercall;
            run.exit_reason = KVM_EXIT_HYPERCALL;
            run.hypercall = {};
            run.hypercall.nr = exit.call.rax;
            run.hypercall.args[0] = exit.call.rbx;
            run.hypercall.args[1] = exit.call.rcx;
            run.hypercall.args[2] = exit.call.rdx;
            run.hypercall.longmode = kHypercallOf64Bits;
            return Handled{.result = 0};
          },
          [&](const ghcb::Terminated& end) {
            run.exit_reason = KVM_EXIT_SYSTEM_EVENT;
            run.system_event.type = KVM_SYSTEM_EVENT_SEV_TERM;
            run.system_event.ndata = 1;
            run.system_event.data[0] = end.ghcb_msr;
            return Handled{.result = 0};
          },
          [&](const ghcb::Failed& failure) {
            switch (failure.why) {
              case ghcb::RunFailure::kUnexpectedExit:
                return internal_error(KVM_INTERNAL_ERROR_UNEXPECTED_EXIT_REASON, failure.exit_code);
              case ghcb::RunFailure::kFault:
                return Handled{.result = -EFAULT};
              case ghcb::RunFailure::kInvalid:
                break;
            }
            spdlog::error("vCPU {}: the guest's request {:#x} (0x8000ffff: a #VC that it cannot handle) ends it\n{}",
                          id_, failure.exit_code, cpu_->describe());
            return Handled{.result = -EINVAL};
          },
      },
      outcome);
}

// The access that user space was asked for is done. KVM_RUN's result if that leads to another one.
std::optional<int> Vcpu::complete_user_exit() {
  switch (std::exchange(user_exit_, UserExit::kNone)) {
    case UserExit::kNone:
      return std::nullopt;
    case UserExit::kPort:
      if (port_.in) {
        std::copy_n(run_area_->data() + kvm::kPioDataOffset, port_.data.size(), port_.data.begin());
      }
      break;
    case UserExit::kMsr: {
      const auto value = shared().msr.error == 0 ? std::optional<std::uint64_t>(shared().msr.data) : std::nullopt;
      if (ordinary()) {
        complete_msr(value);
        return std::nullopt;
      }
      return handle_outcome(service_.complete_msr(value)).result;
    }
    case UserExit::kHypercall:
      if (ordinary()) {
        complete_hypercall(shared().hypercall.ret);
        return std::nullopt;
      }
      return handle_outcome(service_.complete_hypercall(shared().hypercall.ret)).result;
    case UserExit::kMmio:
      if (!mmio_.write) std::memcpy(mmio_.data.data(), shared().mmio.data, mmio_.data.size());
      break;
  }
  if (Irqchip* chip = vm_.irqchip()) chip->advance(vm_.clock().now);
  return (ordinary() ? handle_emulation(emulator_.complete(*cpu_)) : handle_outcome(service_.complete())).result;
}

}  // namespace sevisor::emulator
