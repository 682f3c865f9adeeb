// What the system half of the processor shares: descriptors, stacks, events, transfers of control. Private to
// emulator/cpu.
#pragma once

#include <cstdint>

#include "emulator/cpu/code/decoder.hpp"
#include "emulator/cpu/core.hpp"
#include "emulator/cpu/state/features.hpp"

namespace sevisor::emulator {

// Parts of add_system().
void add_far_returns(SelectorTable& table);        // far_return.cpp: IRET
void add_system_calls(SelectorTable& table);       // system_call.cpp: INTn, SYSCALL ...
void add_segments(SelectorTable& table);           // exec/segment.cpp: LDS .. LSS, LGDT .. SIDT, SWAPGS, FS/GS base
void add_descriptors(SelectorTable& table);        // exec/descriptor.cpp: LLDT .. STR, LAR .. ARPL
void add_control_registers(SelectorTable& table);  // exec/control_register.cpp: CLTS, LMSW, XGETBV, XSETBV
void add_msr(SelectorTable& table);                // exec/msr.cpp: RDMSR, WRMSR, RDTSC, RDTSCP, RDPID, RDPMC
void add_io(SelectorTable& table);                 // exec/io.cpp: IN, OUT, INS, OUTS
void add_flags(SelectorTable& table);              // exec/flags.cpp: PUSHF, POPF, CLI, STI, CLAC, STAC

// Forms of JMP, CALL, RET, MOV and POP.
bool select_far_branch(Insn& insn, Op& op);
bool select_far_return(Insn& insn, Op& op);
bool select_segment_move(Insn& insn, Op& op);
bool select_segment_pop(Insn& insn, Op& op);
bool select_control_register(Insn& insn, Op& op);

// exec/descriptor.cpp: a selector or status word that an instruction stores, in register or memory.
void place_stored_word(const Insn& insn, Op& op);
const Op* store_word(Core& core, const Op* op, std::uint64_t value);

// --- small things ----------------------------------------------------------------------------------------------------

[[nodiscard]] constexpr bool canonical(std::uint64_t va) noexcept {
  return static_cast<std::uint64_t>(static_cast<std::int64_t>(va << 16) >> 16) == va;
}
[[nodiscard]] inline bool protected_mode(const Core& core) noexcept { return (core.cr0 & kCr0Pe) != 0; }
[[nodiscard]] inline std::uint64_t c_bit_mask(const CpuConfig& config) noexcept {
  return config.protection == Protection::kNone ? 0 : std::uint64_t{1} << config.c_bit;
}
// User code may not see SLDT, STR, SMSW, SGDT, SIDT.
[[nodiscard]] inline bool umip_denies(const Core& core) noexcept { return (core.cr4 & kCr4Umip) != 0 && core.cpl != 0; }
[[nodiscard]] inline unsigned io_privilege(const Core& core) noexcept {
  return static_cast<unsigned>(core.system_flags >> 12) & 3;
}
// op.bits: the operand size in bytes.
inline void set_size(const Insn& insn, Op& op) { op.bits = static_cast<std::uint8_t>(insn.operand_bits() / 8); }
// Bits that exist here: of CR4 and EFER (XCR0: features.hpp). CPUID must not offer more.
inline constexpr std::uint64_t kCr4Pvi = 1U << 1;
inline constexpr std::uint64_t kCr4Implemented = kCr4Vme | kCr4Pvi | kCr4Tsd | kCr4De | kCr4Pse | kCr4Pae | kCr4Mce |
                                                 kCr4Pge | kCr4Pce | kCr4Osfxsr | kCr4Osxmmexcpt | kCr4Umip |
                                                 kCr4Fsgsbase | kCr4Pcide | kCr4Osxsave | kCr4Smep | kCr4Smap;
inline constexpr std::uint64_t kEferWritable = kEferSce | kEferLme | kEferNxe | kEferFfxsr;
inline constexpr std::uint64_t kEferIgnored = kEferLma | kEferSvme;  // WRMSR has no effect on them (3.1.7; 15.35.10)
// DR6: what a write can change, and what always reads 1.
inline constexpr std::uint64_t kDr6Writable = 0xe00f;
inline constexpr std::uint64_t kDr6Fixed = 0xffff'0ff0;
inline constexpr std::uint64_t kDr6Hits = 0xf;
inline constexpr std::uint64_t kDr6Access = 1U << 13;
inline constexpr std::uint64_t kDr6SingleStep = 1U << 14;
// DR7, the same; and GD, with which MOV of a debug register raises #DB.
inline constexpr std::uint64_t kDr7Writable = 0xffff'23ff;
inline constexpr std::uint64_t kDr7Fixed = 0x400;
inline constexpr std::uint64_t kDr7General = 1U << 13;
// SEV_FEATURES (appendix B): the debug registers are swapped at VMRUN and #VMEXIT.
inline constexpr std::uint64_t kFeatureDebugSwap = 1U << 5;
// Stands in the way of a single-instruction block going on into a cached one (run_loop.cpp sets it).
inline constexpr std::uint64_t kNoJumps = 0;

// The last step of an instruction that changed mode, privilege or flags: goes on at `target`.
inline const Op* go_on(Core& core, std::uint64_t target) noexcept {
  const bool alone = core.jump_key == kNoJumps;
  core.update_mode();
  const bool window = core.controls.interrupt_window && (core.system_flags & kFlagIf) != 0;
  if (alone || window || (core.system_flags & kFlagTf) != 0) return core.leave_at(target);
  return core.jump(target);
}

// Holds interrupts back for one instruction. Between the operations of a block none is taken anyway.
inline const Op* shadow_next(Core& core, const Op* op) noexcept {
  if (!core.controls.interrupt_window && core.jump_key != kNoJumps && op[1].fn != op_continue) return op + 1;
  core.interrupt_shadow_on = true;
  return core.leave_at(core.rip_after(op));
}

// --- segments.cpp ----------------------------------------------------------------------------------------------------

inline constexpr std::uint16_t kSelectorIndex = 0xfff8;
inline constexpr std::uint16_t kSelectorError = 0xfffc;  // what of a selector stands in an error code
inline constexpr std::uint16_t kSelectorLocal = 4;
inline constexpr std::uint16_t kSelectorRpl = 3;
inline constexpr std::uint32_t kErrorExternal = 1;  // EXT
inline constexpr std::uint32_t kErrorIdt = 2;

// Type bits of code and data segments (APM vol. 2, 4.7).
inline constexpr std::uint16_t kTypeAccessed = 1;
inline constexpr std::uint16_t kTypeWritable = 2;  // of data; readable of code
inline constexpr std::uint16_t kTypeConforming = 4;
inline constexpr std::uint16_t kTypeCode = 8;
// System types (table 4-5, 4-6).
inline constexpr unsigned kTypeTss16 = 1;
inline constexpr unsigned kTypeLdt = 2;
inline constexpr unsigned kTypeTss16Busy = 3;
inline constexpr unsigned kTypeCallGate16 = 4;
inline constexpr unsigned kTypeTaskGate = 5;
inline constexpr unsigned kTypeInterruptGate16 = 6;
inline constexpr unsigned kTypeTrapGate16 = 7;
inline constexpr unsigned kTypeTss = 9;
inline constexpr unsigned kTypeTssBusy = 11;
inline constexpr unsigned kTypeCallGate = 12;
inline constexpr unsigned kTypeInterruptGate = 14;
inline constexpr unsigned kTypeTrapGate = 15;

// A descriptor as it stands in GDT or LDT, and where.
struct Descriptor {
  std::uint64_t raw = 0;
  std::uint64_t va = 0;

  [[nodiscard]] std::uint16_t attributes() const noexcept {
    return static_cast<std::uint16_t>((raw >> 40 & 0xff) | (raw >> 44 & 0xf00));
  }
  [[nodiscard]] std::uint32_t limit() const noexcept {
    const auto value = static_cast<std::uint32_t>((raw & 0xffff) | (raw >> 32 & 0xf0000));
    return (attributes() & kSegGranularity) != 0 ? value << 12 | 0xfff : value;
  }
  [[nodiscard]] std::uint32_t base() const noexcept {
    return static_cast<std::uint32_t>((raw >> 16 & 0xff'ffff) | (raw >> 32 & 0xff00'0000));
  }
  [[nodiscard]] unsigned dpl() const noexcept { return attributes() >> 5 & 3U; }
  [[nodiscard]] unsigned type() const noexcept { return attributes() & 0xfU; }
  [[nodiscard]] bool present() const noexcept { return (attributes() & kSegPresent) != 0; }
  [[nodiscard]] bool system() const noexcept { return (attributes() & kSegS) == 0; }
  [[nodiscard]] bool code() const noexcept { return !system() && (type() & kTypeCode) != 0; }
  [[nodiscard]] bool conforming() const noexcept { return code() && (type() & kTypeConforming) != 0; }
  [[nodiscard]] bool writable_data() const noexcept {
    return !system() && (type() & (kTypeCode | kTypeWritable)) == kTypeWritable;
  }
  [[nodiscard]] bool long_code() const noexcept { return (attributes() & kSegLong) != 0; }
  [[nodiscard]] bool big() const noexcept { return (attributes() & kSegDefault) != 0; }
};

// Error code for a selector.
[[nodiscard]] constexpr std::uint32_t selector_error(std::uint16_t selector, std::uint32_t ext = 0) noexcept {
  return (selector & kSelectorError) | ext;
}
[[nodiscard]] constexpr bool null_selector(std::uint16_t selector) noexcept { return (selector & kSelectorError) == 0; }

// The descriptor of a selector that is not null; raises `vector` if it lies beyond the table's limit.
[[nodiscard]] bool read_descriptor(Core& core, std::uint16_t selector, Descriptor& out, std::uint8_t vector = kVectorGp,
                                   std::uint32_t ext = 0) noexcept;
// Does the selector point into its table?
[[nodiscard]] bool within_table(const Core& core, std::uint16_t selector) noexcept;
// The second half of a 16-byte system descriptor of long mode.
[[nodiscard]] bool read_upper(Core& core, const Descriptor& descriptor, std::uint16_t selector, std::uint64_t& out,
                              std::uint8_t vector = kVectorGp) noexcept;
// Sets the accessed bit in the table. Call before anything changes: it may fault.
[[nodiscard]] bool mark_accessed(Core& core, Descriptor& descriptor) noexcept;
// Fills the hidden part. No checks.
void set_segment(Core& core, SegmentRegister s, std::uint16_t selector, const Descriptor& descriptor) noexcept;
void set_null_segment(Core& core, SegmentRegister s, std::uint16_t selector) noexcept;
// CS and CPL of a far transfer; the mode is worked out by go_on().
void set_code_segment(Core& core, std::uint16_t selector, unsigned cpl, const Descriptor& descriptor) noexcept;
void set_real_mode_segment(Core& core, SegmentRegister s, std::uint16_t selector) noexcept;
// CS with base 0 and limit 4 GiB (SYSCALL, SYSRET, SYSENTER, SYSEXIT); its SS.
void set_flat_code(Core& core, std::uint16_t selector, unsigned dpl, bool long_code) noexcept;
void set_flat_stack(Core& core, std::uint16_t selector, unsigned dpl) noexcept;
// MOV, POP, LxS of any register but CS, with all checks.
[[nodiscard]] bool load_segment(Core& core, SegmentRegister s, std::uint16_t selector) noexcept;
// A stack segment for privilege `cpl`, checked and marked accessed; faults are `vector` or #SS with `ext`. `null`: an
// accepted null selector.
[[nodiscard]] bool check_stack_segment(Core& core, std::uint16_t selector, unsigned cpl, std::uint8_t vector,
                                       std::uint32_t ext, Descriptor& out) noexcept;
// A return to less privilege takes away segments that it may not keep (APM vol. 3, RET far).
void drop_privileged_segments(Core& core) noexcept;
// SS:ESP of privilege `cpl` from a legacy TSS.
[[nodiscard]] bool legacy_inner_stack(Core& core, unsigned cpl, std::uint32_t ext, std::uint16_t& ss,
                                      std::uint32_t& esp) noexcept;
// A stack pointer from the 64-bit TSS: `slot` 0..2 RSP0..RSP2, 4..10 IST1..IST7 (APM vol. 2, 12.2.5).
[[nodiscard]] bool long_stack_pointer(Core& core, unsigned slot, std::uint32_t ext, std::uint64_t& rsp) noexcept;

// --- a stack that is pushed to or popped from before the registers change --------------------------------------------

struct Stack {
  Core& core;
  std::uint64_t base;
  std::uint64_t mask;  // of the stack pointer: 64, 32 or 16 bits
  std::uint64_t sp;
  std::uint32_t limit;
  bool expand_down;
  bool system;          // implicit supervisor access: a stack of another privilege
  std::uint32_t error;  // of #SS
  // The present stack.
  [[nodiscard]] static Stack present(Core& core) noexcept;
  // Another one: SS's descriptor and pointer.
  [[nodiscard]] static Stack inner(Core& core, const Descriptor& ss, std::uint64_t sp, std::uint32_t error,
                                   bool system) noexcept;
  [[nodiscard]] static Stack in_long_mode(Core& core, std::uint64_t sp, std::uint32_t error, bool system) noexcept;

  // `bytes` 2, 4 or 8.
  [[nodiscard]] bool push(std::uint64_t value, unsigned bytes) noexcept;
  [[nodiscard]] bool pop(std::uint64_t& value, unsigned bytes) noexcept;
  void skip(std::uint64_t bytes) noexcept { move_to(sp + bytes); }
  // Makes it the present stack pointer.
  void keep() const noexcept { core.gpr[kRegRsp] = sp; }

 private:
  void move_to(std::uint64_t value) noexcept { sp = (sp & ~mask) | (value & mask); }
  [[nodiscard]] bool check(std::uint64_t at, unsigned bytes) const noexcept;
};

// --- events.cpp ------------------------------------------------------------------------------------------------------

struct Event {
  std::uint8_t vector = 0;
  bool has_error = false;
  bool software = false;  // INTn, INT3, INTO: gate DPL is checked, EXT is 0
  bool resume = false;    // RF is set in the pushed image: faults
  std::uint32_t error = 0;
  std::uint64_t return_rip = 0;
};
// Enters the handler. False: nothing has changed but perhaps memory under the stack; the fault is noted.
[[nodiscard]] bool enter_event(Core& core, const Event& event) noexcept;

// --- far_control.cpp -------------------------------------------------------------------------------------------------

inline constexpr std::uint16_t kRealModeCodeLimit = 0xffff;

[[nodiscard]] inline bool bad_code_size(const Core& core, const Descriptor& cs) noexcept {
  return core.long_mode && cs.long_code() && cs.big();
}
[[nodiscard]] inline bool to_64bit(const Core& core, const Descriptor& cs) noexcept {
  return core.long_mode && cs.long_code();
}
// Is `rip` one that this code segment can run at? Raises #GP(0) otherwise.
[[nodiscard]] bool check_code_target(Core& core, const Descriptor& cs, std::uint64_t rip) noexcept;
const Op* jump_real_mode(Core& core, std::uint16_t selector, std::uint64_t offset) noexcept;

}  // namespace sevisor::emulator
