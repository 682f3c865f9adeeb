// Guests whose registers KVM sees: ordinary ones and those with SEV alone. What was intercepted is answered from their
// registers. Linux arch/x86/kvm/svm/svm.c svm_exit_handlers, x86.c.
#include <algorithm>
#include <cstring>
#include <spdlog/spdlog.h>

#include "emulator/kvm/cpuid_table.hpp"
#include "emulator/kvm/emulation_limits.hpp"
#include "emulator/kvm/vcpu.hpp"
#include "emulator/kvm/vm.hpp"
#include "ghcb/event.hpp"
#include "ghcb/ioio.hpp"

namespace sevisor::emulator {

namespace {
// Numbers of general registers in encodings.
enum : unsigned { kRax = 0, kRcx = 1, kRdx = 2, kRbx = 3, kRsi = 6 };
constexpr std::uint64_t kLowHalf = 0xffff'ffff;
constexpr std::uint64_t kNpfFetch = 1 << 4;  // EXITINFO1
constexpr std::uint8_t kNop = 0x90;
constexpr ghcb::ExitCode kExitExceptionBp = ghcb::kExitException + 3;
}  // namespace

bool Vcpu::ordinary() const { return !vm_.encrypted_state(); }

// --- registers -------------------------------------------------------------------------------------------------------

void Vcpu::take_registers(bool give_up) {
  if (!loaded_) return;
  sev::Vmsa state{};
  cpu_->save(state);
  registers_.adopt(state);
  fpu_.adopt(state);
  shadow_ = cpu_->interrupt_shadow();
  if (give_up) loaded_ = false;
}

void Vcpu::forget_processor() {
  take_registers(true);
  cpu_.reset();
  emulator_.forget();
}

bool Vcpu::give_registers() {
  sev::Vmsa state = registers_.running();
  fpu_.start(state);
  cpu_->set_cr8(vm_.irqchip() != nullptr ? vm_.irqchip()->cr8(index_) : cr8_);
  if (!cpu_->load(state)) return false;
  cpu_->set_interrupt_shadow(shadow_);
  return true;
}

void Vcpu::reset_by_init() {
  take_registers(true);
  const kvm_cpuid_entry2* identity = find_cpuid(cpuid_, 1, 0);
  registers_.reset_by_init(identity != nullptr ? identity->eax : 0x600);
  reinjection_ = 0;
  nmi_masked_ = nmi_pending_ = false;
  shadow_ = false;
  emulator_.forget();
}

bool Vcpu::can_inject() const {
  return loaded_ && cpu_->interrupts_enabled() && !cpu_->interrupt_shadow() && reinjection_ == 0;
}

// --- instructions that are not emulated as such ----------------------------------------------------------------------

void Vcpu::step_over(std::uint64_t next_rip) {
  if (cpu_->complete_instruction(next_rip)) inject_exception(ghcb::kVectorDb, std::nullopt);
}

void Vcpu::answer_cpuid_exit() {
  sev::Vmsa state{};
  cpu_->save(state);
  cr4_ = state.cr4;
  const ghcb::CpuidValues values =
      cpuid(static_cast<std::uint32_t>(state.rax), static_cast<std::uint32_t>(state.rcx), state.xcr0);
  cpu_->set_general(kRax, values.eax);
  cpu_->set_general(kRbx, values.ebx);
  cpu_->set_general(kRcx, values.ecx);
  cpu_->set_general(kRdx, values.edx);
}

Vcpu::Handled Vcpu::answer_hypercall_exit(std::uint64_t next_rip) {
  const std::uint64_t mask = cpu_->code_bits() == 64 ? ~std::uint64_t{0} : kLowHalf;
  const auto argument = [&](unsigned number) { return cpu_->general(number) & mask; };
  const ghcb::Hypercall call{.rax = argument(kRax),
                             .rbx = argument(kRbx),
                             .rcx = argument(kRcx),
                             .rdx = argument(kRdx),
                             .rsi = argument(kRsi),
                             .cpl = static_cast<std::uint8_t>(cpu_->cpl())};
  next_rip_ = next_rip;
  if (hypercall_exits(call)) {
    const Handled handled = handle_outcome(ghcb::HypercallExit{call});
    shared().hypercall.longmode = cpu_->code_bits() == 64 ? 1 : 0;
    return handled;
  }
  complete_hypercall(hypercall(call));
  return {};
}

void Vcpu::complete_hypercall(std::uint64_t result) {
  cpu_->set_general(kRax, cpu_->code_bits() == 64 ? result : result & kLowHalf);
  step_over(next_rip_);
}

Vcpu::Handled Vcpu::answer_msr_exit(bool write, std::uint64_t next_rip) {
  const auto index = static_cast<std::uint32_t>(cpu_->general(kRcx));
  const std::uint64_t written = write ? cpu_->general(kRdx) << 32 | (cpu_->general(kRax) & kLowHalf) : 0;
  std::optional<std::uint64_t> value;
  if (!write) {
    value = read_msr(index);
  } else if (write_msr(index, written)) {
    value = written;
  }
  next_rip_ = next_rip;
  msr_write_ = write;
  if (!value && refused_msr_exits()) {
    return handle_outcome(ghcb::MsrExit{.index = index, .write = write, .value = written});
  }
  complete_msr(value);
  return {};
}

void Vcpu::complete_msr(std::optional<std::uint64_t> value) {
  if (!value) {
    inject_exception(ghcb::kVectorGp, 0);
    return;
  }
  if (!msr_write_) {
    cpu_->set_general(kRax, *value & kLowHalf);
    cpu_->set_general(kRdx, *value >> 32);
  }
  step_over(next_rip_);
}

// --- those that are --------------------------------------------------------------------------------------------------

// x86.c handle_emulation_failure(): the guest gets #UD; from ring 0 on user space hears of it too.
Vcpu::Handled Vcpu::emulation_failure(const CpuExit& exit) {
  inject_exception(ghcb::kVectorUd, std::nullopt);
  if (cpu_->cpl() != 0) return {};
  spdlog::error("vCPU {}: the instruction cannot be emulated\n{}", id_, cpu_->describe());
  kvm_run& run = shared();
  run.exit_reason = KVM_EXIT_INTERNAL_ERROR;
  auto& failure = run.emulation_failure;
  failure.suberror = KVM_INTERNAL_ERROR_EMULATION;
  failure.flags = 0;
  std::uint32_t count = 1;  // `flags` is the first of the data
  if (exit.instruction_bytes != 0) {
    failure.flags = KVM_INTERNAL_ERROR_EMULATION_FLAG_INSTRUCTION_BYTES;
    failure.insn_size = exit.instruction_bytes;
    std::memset(failure.insn_bytes, kNop, sizeof failure.insn_bytes);
    std::copy_n(exit.instruction.begin(), exit.instruction_bytes, failure.insn_bytes);
    count += 2;
  }
  // What svm_get_exit_info() says.
  const std::uint64_t info[] = {exit.code, exit.info1, exit.info2, exit.interrupted_event & kLowHalf,
                                exit.interrupted_event >> 32};
  std::copy(std::begin(info), std::end(info), run.internal.data + count);
  failure.ndata = count + static_cast<std::uint32_t>(std::size(info));
  return {.result = 0};
}

// x86.c kvm_prepare_event_vectoring_exit(): an event was to be delivered through memory that is none.
Vcpu::Handled Vcpu::delivery_failure(const CpuExit& exit) {
  spdlog::error("vCPU {}: an exception or interrupt finds no memory at {:#x}\n{}", id_, exit.info2, cpu_->describe());
  kvm_run& run = shared();
  run.exit_reason = KVM_EXIT_INTERNAL_ERROR;
  run.internal.suberror = KVM_INTERNAL_ERROR_DELIVERY_EV;
  const std::uint64_t data[] = {exit.info2, exit.code, exit.info1, exit.info2, id_};
  std::copy(std::begin(data), std::end(data), run.internal.data);
  run.internal.ndata = static_cast<std::uint32_t>(std::size(data));
  return {.result = 0};
}

Vcpu::Handled Vcpu::handle_emulation(const InstructionEmulator::Outcome& outcome) {
  if (const auto* port = std::get_if<ghcb::PortExit>(&outcome)) return handle_outcome(*port);
  if (const auto* mmio = std::get_if<ghcb::MmioExit>(&outcome)) return handle_outcome(*mmio);
  if (const auto* exit = std::get_if<CpuExit>(&outcome)) {
    return exit->code == ghcb::kExitNpf ? emulation_failure(*exit) : handle_exit(*exit);
  }
  return {};
}

Vcpu::Handled Vcpu::emulate(const CpuExit& exit) {
  if (exit.interrupted_event != 0) return delivery_failure(exit);
  if ((exit.info1 & kNpfFetch) != 0 && exit.code == ghcb::kExitNpf) return emulation_failure(exit);
  const auto bytes = std::span(exit.instruction).first(exit.instruction_bytes);
  if (!kvm_emulates(bytes, cpu_->code_bits())) return emulation_failure(exit);
  if (vm_.encrypted() && needs_page_tables(bytes, cpu_->code_bits(), Gpa(exit.info2))) return emulation_failure(exit);
  return handle_emulation(emulator_.emulate(*cpu_));
}

std::optional<Vcpu::Handled> Vcpu::handle_intercept(const CpuExit& exit) {
  const auto refuse = [this](std::uint8_t vector, std::optional<std::uint32_t> error) {
    inject_exception(vector, error);
    return Handled{};
  };
  switch (exit.code) {
    case ghcb::kExitVintr:
      if (vm_.irqchip() != nullptr || shared().request_interrupt_window == 0 || !can_inject()) return Handled{};
      shared().exit_reason = KVM_EXIT_IRQ_WINDOW_OPEN;
      return Handled{.result = 0};
    case ghcb::kExitIret:
      nmi_masked_ = false;
      return Handled{};
    case ghcb::kExitExceptionDb:  // only with a debugger
    case kExitExceptionBp:
      return report_debug(static_cast<std::uint8_t>(exit.code - ghcb::kExitException), exit.info1);
    case ghcb::kExitCpuid:
      answer_cpuid_exit();
      break;
    case ghcb::kExitMsr:
      return answer_msr_exit((exit.info1 & 1) != 0, exit.next_rip);
    case ghcb::kExitIoio:
      if ((exit.info1 & ghcb::kIoString) == 0) return handle_emulation(emulator_.port(*cpu_, exit));
      // The instruction and its operand are in memory that KVM cannot read (svm.c svm_check_emulate_instruction()).
      if (vm_.encrypted()) return refuse(ghcb::kVectorUd, std::nullopt);
      return emulate(exit);
    case ghcb::kExitNpf:
      return emulate(exit);
    case ghcb::kExitVmmcall:
      return answer_hypercall_exit(exit.next_rip);
    case ghcb::kExitRdpmc:  // no counters
      return refuse(ghcb::kVectorGp, 0);
    case ghcb::kExitInvd:
    case ghcb::kExitWbinvd:  // there is no device that looks past the caches
    case ghcb::kExitMonitor:
    case ghcb::kExitMwait:  // KVM_X86_QUIRK_MWAIT_NEVER_UD_FAULTS
      break;
    case ghcb::kExitRdpru:
    case ghcb::kExitInvlpga:
    case ghcb::kExitVmrun:
    case ghcb::kExitVmload:
    case ghcb::kExitVmsave:
    case ghcb::kExitStgi:
    case ghcb::kExitClgi:
    case ghcb::kExitSkinit:
      return refuse(ghcb::kVectorUd, std::nullopt);
    case ghcb::kExitHlt:
      // A step over HLT is due before the wait.
      if (!cpu_->complete_instruction(cpu_->rip())) return std::nullopt;
      inject_exception(ghcb::kVectorDb, std::nullopt);
      return Handled{};
    default:
      return std::nullopt;
  }
  step_over(exit.next_rip);
  return Handled{};
}

}  // namespace sevisor::emulator
