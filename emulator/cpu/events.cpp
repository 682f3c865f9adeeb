// Delivery of exceptions, interrupts and software interrupts (APM vol. 2 chapter 8), with double fault and shutdown,
// and of what a hypervisor injects (15.20).
#include <algorithm>
#include <cstring>

#include "emulator/cpu/intercepts.hpp"
#include "emulator/cpu/system.hpp"

namespace sevisor::emulator {

namespace {

// EVENTINJ and EXITINTINFO (APM vol. 2, 15.20).
constexpr std::uint64_t kEventTypeShift = 8;
constexpr std::uint64_t kEventTypeMask = 7;
constexpr std::uint64_t kEventHasError = 1U << 11;
constexpr std::uint64_t kEventValid = 1U << 31;
constexpr unsigned kTypeExternal = 0;
constexpr unsigned kTypeNmi = 2;
constexpr unsigned kTypeException = 3;

// EXITINFO1 of a nested page fault: that of #PF, and bit 32 for the final translation (15.25.6).
constexpr std::uint64_t kNpfFinal = std::uint64_t{1} << 32;

constexpr std::uint64_t kRealModeStackStep = 2;

enum class Class : std::uint8_t { kBenign, kContributory, kPageFault, kDoubleFault };

// APM vol. 2 table 8-5; #VC: 15.35.5.
Class class_of(std::uint8_t vector) {
  switch (vector) {
    case kVectorDe:
    case kVectorTs:
    case kVectorNp:
    case kVectorSs:
    case kVectorGp:
    case kVectorVc:
      return Class::kContributory;
    case kVectorPf:
      return Class::kPageFault;
    case kVectorDf:
      return Class::kDoubleFault;
    default:
      return Class::kBenign;
  }
}

// A gate of the IDT.
struct Gate {
  std::uint64_t low = 0;
  std::uint64_t high = 0;  // long mode

  [[nodiscard]] unsigned type() const { return static_cast<unsigned>(low >> 40) & 0x1f; }  // with the S bit
  [[nodiscard]] unsigned dpl() const { return static_cast<unsigned>(low >> 45) & 3; }
  [[nodiscard]] bool present() const { return (low >> 47 & 1) != 0; }
  [[nodiscard]] std::uint16_t selector() const { return static_cast<std::uint16_t>(low >> 16); }
  [[nodiscard]] unsigned ist() const { return static_cast<unsigned>(low >> 32) & 7; }
  [[nodiscard]] std::uint64_t offset() const { return (low & 0xffff) | (low >> 32 & 0xffff'0000) | (high << 32); }
};

bool enter_real_mode(Core& core, const Event& event) {
  const std::uint64_t at = std::uint64_t{event.vector} * 4;
  // The IVT has no error codes: neither pushed nor given for its own limit.
  if (at + 3 > core.idtr.limit) return core.raise(kVectorGp);
  std::uint32_t target = 0;
  if (!core.read_system(core.idtr.base + at, &target, sizeof target)) return false;
  Stack stack = Stack::present(core);
  if (!stack.push(core.rflags() & 0xffff, kRealModeStackStep) ||
      !stack.push(core.seg[kCs].selector, kRealModeStackStep) || !stack.push(event.return_rip, kRealModeStackStep)) {
    return false;
  }
  stack.keep();
  core.system_flags &= ~(kFlagIf | kFlagTf | kFlagAc | kFlagRf);
  core.seg[kCs].selector = static_cast<std::uint16_t>(target >> 16);
  core.segment_base(kCs) = std::uint64_t{core.seg[kCs].selector} << 4;
  core.rip = target & 0xffff;
  core.update_mode();
  return true;
}

bool is_interrupt_gate(unsigned type) { return type == kTypeInterruptGate || type == kTypeInterruptGate16; }

// The pushed image of RFLAGS. RF is kept in `system_flags` only while breakpoints are armed.
std::uint64_t pushed_flags(const Core& core, const Event& event) {
  return core.rflags() | (event.resume ? kFlagRf : 0);
}

void finish_entry(Core& core, const Gate& gate) {
  core.system_flags &= ~(kFlagTf | kFlagNt | kFlagRf | kFlagVm);
  if (is_interrupt_gate(gate.type())) core.system_flags &= ~kFlagIf;
  core.update_mode();
}

// The handler's code segment, checked. `cpl`: the privilege it will have.
bool read_handler_segment(Core& core, const Gate& gate, std::uint32_t ext, Descriptor& cs, unsigned& cpl) {
  const std::uint16_t selector = gate.selector();
  if (null_selector(selector)) return core.raise(kVectorGp, ext);
  if (!read_descriptor(core, selector, cs, kVectorGp, ext)) return false;
  const bool long_code = !core.long_mode || (cs.long_code() && !cs.big());
  if (!cs.code() || cs.dpl() > core.cpl || !long_code) return core.raise(kVectorGp, selector_error(selector, ext));
  if (!cs.present()) return core.raise(kVectorNp, selector_error(selector, ext));
  cpl = cs.conforming() ? core.cpl : cs.dpl();
  return mark_accessed(core, cs);
}

bool enter_long_mode(Core& core, const Event& event, const Gate& gate, std::uint32_t ext) {
  Descriptor cs;
  unsigned cpl = 0;
  if (!read_handler_segment(core, gate, ext, cs, cpl)) return false;
  std::uint64_t rsp = core.gpr[kRegRsp];
  if (gate.ist() != 0) {
    constexpr unsigned kIstSlots = 3;  // IST1 follows RSP0..RSP2 and a reserved word
    if (!long_stack_pointer(core, kIstSlots + gate.ist(), ext, rsp)) return false;
  } else if (cpl < core.cpl) {
    if (!long_stack_pointer(core, cpl, ext, rsp)) return false;
  }
  rsp &= ~std::uint64_t{15};
  if (!canonical(gate.offset())) return core.raise(kVectorGp, ext);

  std::array<std::uint64_t, 6> frame = {
      event.error,       event.return_rip,      core.seg[kCs].selector, pushed_flags(core, event),
      core.gpr[kRegRsp], core.seg[kSs].selector};
  const std::size_t first = event.has_error ? 0 : 1;
  const std::size_t bytes = (frame.size() - first) * 8;
  rsp -= bytes;
  if (!canonical(rsp) || !canonical(rsp + bytes - 1)) return core.raise(kVectorSs, ext);
  const bool done =
      cpl == 3 ? core.write_slow(rsp, &frame[first], bytes) : core.write_system(rsp, &frame[first], bytes);
  if (!done) return false;

  if (cpl != core.cpl) set_null_segment(core, kSs, static_cast<std::uint16_t>(cpl));
  set_code_segment(core, gate.selector(), cpl, cs);
  core.gpr[kRegRsp] = rsp;
  core.rip = gate.offset();
  finish_entry(core, gate);
  return true;
}

bool enter_protected_mode(Core& core, const Event& event, const Gate& gate, std::uint32_t ext) {
  const bool is_32bit = gate.type() == kTypeInterruptGate || gate.type() == kTypeTrapGate;
  const unsigned width = is_32bit ? 4 : 2;
  const std::uint64_t offset = is_32bit ? gate.offset() : gate.low & 0xffff;
  Descriptor cs;
  unsigned cpl = 0;
  if (!read_handler_segment(core, gate, ext, cs, cpl)) return false;

  Descriptor ss;
  std::uint16_t ss_selector = 0;
  std::uint32_t esp = 0;
  const bool inner = cpl < core.cpl;
  if (inner && (!legacy_inner_stack(core, cpl, ext, ss_selector, esp) ||
                !check_stack_segment(core, ss_selector, cpl, kVectorTs, ext, ss))) {
    return false;
  }
  if (offset > cs.limit()) return core.raise(kVectorGp, ext);
  Stack stack = inner ? Stack::inner(core, ss, esp, selector_error(ss_selector, ext), true) : Stack::present(core);
  if (!inner) stack.error = ext;
  if (inner && (!stack.push(core.seg[kSs].selector, width) || !stack.push(core.gpr[kRegRsp], width))) return false;
  if (!stack.push(pushed_flags(core, event), width) || !stack.push(core.seg[kCs].selector, width) ||
      !stack.push(event.return_rip, width)) {
    return false;
  }
  if (event.has_error && !stack.push(event.error, width)) return false;

  if (inner) set_segment(core, kSs, ss_selector, ss);
  set_code_segment(core, gate.selector(), cpl, cs);
  stack.keep();
  core.rip = offset;
  finish_entry(core, gate);
  return true;
}

bool enter_through_gate(Core& core, const Event& event) {
  const std::uint32_t ext = event.software ? 0 : kErrorExternal;
  const std::uint32_t error = std::uint32_t{event.vector} * 8 + kErrorIdt + ext;
  const std::size_t size = core.long_mode ? 16 : 8;
  const std::uint64_t offset = event.vector * size;
  if (offset + size - 1 > core.idtr.limit) return core.raise(kVectorGp, error);
  Gate gate;
  if (!core.read_system(core.idtr.base + offset, &gate, size)) return false;

  const unsigned type = gate.type();
  const bool gate_32bit = type == kTypeInterruptGate || type == kTypeTrapGate;
  const bool gate_16bit = type == kTypeInterruptGate16 || type == kTypeTrapGate16;
  const bool known = gate_32bit || (!core.long_mode && (gate_16bit || type == kTypeTaskGate));
  if (!known || (event.software && gate.dpl() < core.cpl)) return core.raise(kVectorGp, error);
  if (!gate.present()) return core.raise(kVectorNp, error);
  if (type == kTypeTaskGate) return core.raise(kVectorVc, static_cast<std::uint32_t>(ghcb::kExitTaskSwitch));
  return core.long_mode ? enter_long_mode(core, event, gate, ext) : enter_protected_mode(core, event, gate, ext);
}

// The exceptions that the hypervisor intercepts.
Fault intercepted(const Core& core, const Fault& fault) {
  if (core.config.protection != Protection::kSevEs) return fault;
  if (fault.vector == kVectorDb && core.owns_debug_registers()) return fault;
  const ghcb::ExitCode code = ghcb::kExitException + fault.vector;
  if (exit_kind(code) != ExitKind::kNonAutomatic) return fault;
  return Fault{.vector = kVectorVc, .has_error = true, .error = static_cast<std::uint32_t>(code)};
}

// Is it for who debugs the guest?
bool taken_by_debugger(const Core& core, const Fault& fault) {
  if (core.controls.debugger == nullptr) return false;
  if (fault.vector == kVectorBp) return fault.software && core.controls.debugger->takes_int3;
  // The guest's own steps and breakpoints are out of sight while the debugger has its own.
  return fault.vector == kVectorDb && !fault.software && core.exit.info1 != 0;
}

// EXITINTINFO.
std::uint64_t encode(const Fault& fault, unsigned type) {
  return fault.vector | std::uint64_t{type} << kEventTypeShift | (fault.has_error ? kEventHasError : 0) | kEventValid |
         std::uint64_t{fault.error} << 32;
}

// nRIP and the decode assist, of a guest without SEV-ES.
void show_instruction(Core& core) {
  if (core.config.protection == Protection::kSevEs) return;
  if (core.current != nullptr && core.rip_of(core.current) == core.rip) {
    core.exit.next_rip = core.rip_after(core.current);
  }
  std::uint8_t* unused = nullptr;
  const std::uint64_t va = core.code64 ? core.rip : core.segment_base(kCs) + core.rip;
  const std::byte* page = core.fetch_page(va, unused);
  if (page == nullptr) return;
  const std::size_t size = std::min<std::size_t>(core.exit.instruction.size(), kPageSize - (va & (kPageSize - 1)));
  core.exit.instruction_bytes = static_cast<std::uint8_t>(size);
  std::memcpy(core.exit.instruction.data(), page + (va & (kPageSize - 1)), size);
}

// Delivers `fault`, then what its delivery raises, until a handler is entered. `type` as in EVENTINJ. What the
// hypervisor injects is not intercepted again.
bool deliver(Core& core, Fault fault, unsigned type, bool injected) {
  bool external = type != kTypeException;
  while (true) {
    if (fault.waiting) return false;
    if (fault.npf) {
      core.exit.code = ghcb::kExitNpf;
      core.exit.info1 = fault.error | kNpfUser | kNpfFinal;
      core.exit.info2 = fault.cr2;
      if ((fault.error & kNpfFetch) == 0) show_instruction(core);
      return false;
    }
    if (!injected && taken_by_debugger(core, fault)) {
      core.exit.code = ghcb::kExitException + fault.vector;
      return false;
    }
    if (!injected) fault = intercepted(core, fault);
    if (fault.vector == kVectorVc && core.config.protection != Protection::kSevEs) {
      core.exit.code = fault.error;
      show_instruction(core);
      return false;
    }
    if (fault.vector == kVectorVc && core.config.observer != nullptr) {
      const auto done = static_cast<std::uint64_t>(core.budget_at_run - core.budget);
      core.config.observer->vc_raised({.time = core.clock_at_run + done * core.config.tsc_per_instruction,
                                       .rip = core.rip,
                                       .rsp = core.gpr[kRegRsp],
                                       .exit_code = fault.error,
                                       .cpl = core.cpl,
                                       .injected = injected});
    }
    if (fault.vector == kVectorPf && !external) core.cr2 = fault.cr2;
    const Event event{.vector = fault.vector,
                      .has_error = fault.has_error,
                      .software = fault.software,
                      .resume = !external && !fault.trap,
                      .error = fault.error,
                      .return_rip = core.rip};
    if (enter_event(core, event)) {
      if (fault.vector == kVectorDb) core.dr7 &= ~kDr7General;
      core.interrupt_shadow_on = core.debug_shadow_on = false;
      return true;
    }
    const Fault second = core.fault_info;
    if (second.npf) {
      core.exit.interrupted_event = encode(fault, external ? type : kTypeException);
      fault = second;
      continue;
    }
    const Class first_class = external ? Class::kBenign : class_of(fault.vector);
    const Class second_class = class_of(intercepted(core, second).vector);
    const bool combine = (first_class == Class::kContributory && second_class == Class::kContributory) ||
                         (first_class == Class::kPageFault && second_class != Class::kBenign);
    if (first_class == Class::kDoubleFault) {
      core.exit.code = ghcb::kExitShutdown;
      return false;
    }
    if (second.vector == kVectorPf) core.cr2 = second.cr2;
    fault = combine ? Fault{.vector = kVectorDf, .has_error = true, .error = 0} : second;
    external = injected = false;
  }
}

}  // namespace

bool enter_event(Core& core, const Event& event) noexcept {
  if (!protected_mode(core)) return enter_real_mode(core, event);
  return enter_through_gate(core, event);
}

bool Core::deliver_fault() noexcept { return deliver(*this, fault_info, kTypeException, false); }

bool Core::deliver_injected(std::uint64_t event) noexcept {
  if ((event & kEventValid) == 0) return true;
  const auto type = static_cast<unsigned>(event >> kEventTypeShift & kEventTypeMask);
  const auto vector = static_cast<std::uint8_t>(event);
  // APM vol. 2, 15.35.8: no software interrupts, and no #BP or #OF.
  const bool exception_allowed = vector != kVectorBp && vector != kVectorOf && vector != kVectorNmi && vector < 32;
  if (type != kTypeExternal && type != kTypeNmi && (type != kTypeException || !exception_allowed)) {
    exit.code = ghcb::kExitInvalid;
    return false;
  }
  const bool has_error = type == kTypeException && (event & kEventHasError) != 0;
  const Fault fault{.vector = type == kTypeNmi ? static_cast<std::uint8_t>(kVectorNmi) : vector,
                    .has_error = has_error,
                    .error = has_error ? static_cast<std::uint32_t>(event >> 32) : 0,
                    .cr2 = cr2};
  return deliver(*this, fault, type, true);
}

}  // namespace sevisor::emulator
