// The state of one processor while it runs, and the ways its instructions reach memory. Private to emulator/cpu.
//
// How it runs: Core::run (run_loop.cpp) looks up the block at RIP in the CodeCache, which decodes it on first use
// (decoder.cpp), and calls one handler after another (exec_*.cpp). A block's first operation is op_enter, which charges
// the block's instructions to the budget. A handler that faults, exits or needs another look-up calls leave() and
// returns nullptr.
#pragma once

#include <array>
#include <bitset>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "base/bytes.hpp"
#include "emulator/cpu/code/op.hpp"
#include "emulator/cpu/cpu.hpp"
#include "emulator/cpu/memory/paging_cache.hpp"
#include "emulator/cpu/memory/tlb.hpp"
#include "emulator/cpu/state/flags.hpp"
#include "emulator/cpu/state/registers.hpp"
#include "emulator/memory/guest_memory.hpp"

namespace sevisor::emulator {

class CodeCache;

// Slots of Core::gpr beyond the sixteen general registers.
inline constexpr std::uint8_t kRegRsp = 4;
inline constexpr std::uint8_t kRegZero = 16;         // always 0: stands for an absent base or index
inline constexpr std::uint8_t kRegBlock = 17;        // RIP of the running block's first byte
inline constexpr std::uint8_t kRegSegmentBase = 18;  // six: ES CS SS DS FS GS
inline constexpr std::size_t kRegSlots = 24;

enum class Leave : std::uint8_t {
  kFault,      // `fault` is delivered; RIP is that of the instruction, which has not retired
  kLookup,     // go on at `rip`; the instruction has retired. Also after anything that changes mode_bits()
  kRestart,    // go on at `rip`, before the operation that left: the block was thrown away, or the budget is used up
  kExit,       // `exit` is filled; the instruction has retired and `rip` is set (VMGEXIT, HLT, write traps)
  kExitFault,  // `exit` is filled; the instruction has not retired (shutdown, unimplemented)
};

struct Fault {
  std::uint8_t vector = 0;
  bool has_error = false;
  bool trap = false;      // #DB after an instruction, INT3, INTO, INTn: the pushed RIP is `rip`, not the instruction's
  bool software = false;  // INTn, INT3, INTO, INT1: gate DPL is checked, EXT is 0
  bool non_canonical = false;  // the address was: #SS instead of #GP if it was the stack's, see settle_fault()
  bool npf = false;            // no exception but a nested page fault that leaves the guest, at GPA `cr2`
  bool waiting = false;        // neither: the device bus has no answer
  std::uint32_t error = 0;
  std::uint64_t cr2 = 0;  // for #PF
};

enum class Access : std::uint8_t { kRead, kWrite, kFetch };

// EXITINFO1 of a nested page fault: the bits of #PF's error code, all accesses being the user's (APM vol. 2, 15.25.6).
inline constexpr std::uint32_t kNpfPresent = 1U << 0;
inline constexpr std::uint32_t kNpfWrite = 1U << 1;
inline constexpr std::uint32_t kNpfUser = 1U << 2;
inline constexpr std::uint32_t kNpfFetch = 1U << 4;

struct Core final : PageObserver {
  Core(const CpuConfig& config, GuestMemory& memory, CodeCache& code, VirtualClock& clock);
  ~Core() override;
  Core(const Core&) = delete;
  Core& operator=(const Core&) = delete;

  // --- state the handlers touch most --------------------------------------------------------------------------------
  alignas(64) std::array<std::uint64_t, kRegSlots> gpr{};
  StatusFlags flags;
  Tlb* tlb = nullptr;              // of the present privilege: &tlbs[...], see select_tlb()
  std::int64_t budget = 0;         // instructions left in this run; charged a block at a time
  std::uint64_t jump_key = 0;      // jump cache entries and links with another key are stale: see update_mode()
  std::uint64_t rip = 0;           // up to date between blocks; within one see rip_of()
  std::uint64_t system_flags = 0;  // RFLAGS without the status flags and without bit 1
  std::uint8_t cpl = 0;
  bool long_mode = false;  // EFER.LMA
  bool code64 = false;     // EFER.LMA and CS.L
  bool sse_ready = false;  // CR0 and CR4 let SSE instructions run
  bool avx_ready = false;  // CR0, CR4 and XCR0 let AVX instructions run

  const Op* current = nullptr;  // the operation that runs
  static constexpr std::size_t kSlowBytes = 64;
  alignas(
      16) std::array<std::byte, kSlowBytes> slow_value{};  // on its way to or from the slow path of read() and write()

  // --- why the block was left ---------------------------------------------------------------------------------------
  Leave reason = Leave::kLookup;
  Fault fault_info;
  CpuExit exit;
  bool interrupt_shadow_on = false;  // the next instruction runs before any interrupt: STI, MOV SS, POP SS
  bool debug_shadow_on = false;      // MOV SS, POP SS also hold back #DB
  bool step_due = false;             // #DB for RFLAGS.TF comes after this instruction
  std::uint32_t pauses_left = 0;     // until PAUSE exits
  std::uint64_t last_pause = 0;      // TSC ticks
  bool iret_done = false;            // with RunControls::iret_window
  bool debugger_armed = false;       // its breakpoints stand for the guest's
  DeviceBus* bus = nullptr;          // while emulate() runs
  RunControls controls;
  std::uint64_t retired_before_run = 0;
  std::uint64_t clock_at_run = 0;
  std::int64_t budget_at_run = 0;

  // --- the rest
  // -------------------------------------------------------------------------------------------------------
  std::array<Segment, kSegmentCount> seg;
  SystemSegment ldtr, tr, gdtr, idtr;
  std::uint64_t cr0 = 0, cr2 = 0, cr3 = 0, cr4 = 0, cr8 = 0, efer = 0;
  std::array<std::uint64_t, 4> dr{}, dr_mask{};
  std::uint64_t dr6 = 0xffff0ff0, dr7 = 0x400;
  ModelRegisters msr;
  VectorState vec;
  std::uint64_t sev_features = 0;
  std::uint64_t ghcb = 0;  // MSR 0xC0010130
  // Of what page walks have found: changes at every flush, INVLPG and closed page, never equal to another core's.
  std::uint64_t generation = 0;
  // The same, of what code was found at which linear address, by privilege. Linux writes CR3 thousands of times in its
  // boot; jumps within the kernel, whose pages are global, live on.
  std::uint64_t supervisor_jumps = 0;
  std::uint64_t user_jumps = 0;
  bool local_code = false;     // supervisor code was found through a translation that is not global
  std::uint64_t random_state;  // RDRAND, RDSEED

  const CpuConfig config;
  GuestMemory& memory;
  CodeCache& code;
  VirtualClock& clock;
  // Supervisor; user; supervisor with SMAP suspended (RFLAGS.AC); one that stays empty, while
  // alignment is checked or a breakpoint is on data: each access goes through access.cpp.
  std::array<Tlb, 5> tlbs;
  bool alignment_checked = false;  // at CPL 3 with CR0.AM and RFLAGS.AC
  bool breakpoints_armed = false;  // DR7 enables one or more
  bool watching = false;           // one of them is on data
  // How many elements the next repeated string instruction may do before its segments are looked at again.
  static constexpr std::uint64_t kMuchRoom = ~std::uint64_t{0};
  std::uint64_t string_room = kMuchRoom;
  std::uint8_t data_hits = 0;  // B3:B0 of DR6, of the instruction that runs
  PagingCache paging;

  struct JumpEntry {
    std::uint64_t rip;
    std::uint64_t key;
    const Op* first;
  };
  static constexpr std::size_t kJumpEntries = 16384;
  std::array<JumpEntry, kJumpEntries> jumps{};

  // --- registers
  // ------------------------------------------------------------------------------------------------------ `offset`:
  // byte offset in gpr, as in Op::dst. 32-bit writes clear the upper half, smaller ones leave it.
  template <class T>
  [[nodiscard]] T reg(std::uint8_t offset) const noexcept {
    return load<T>(reinterpret_cast<const std::byte*>(gpr.data()) + offset);
  }
  template <class T>
  void set_reg(std::uint8_t offset, T value) noexcept {
    std::byte* to = reinterpret_cast<std::byte*>(gpr.data()) + offset;
    if constexpr (sizeof(T) == 4) {
      store<std::uint64_t>(to, value);
    } else {
      store<T>(to, value);
    }
  }
  [[nodiscard]] std::uint64_t rflags() const noexcept { return system_flags | flags.rflags() | kFlagOne; }
  // Status and system flags; the caller has masked what its privilege may not change. Does not select the TLB again.
  void set_rflags(std::uint64_t value) noexcept {
    flags.set_rflags(value);
    system_flags = value & ~(kStatusFlags | kFlagOne);
  }
  [[nodiscard]] std::uint64_t& segment_base(std::uint8_t s) noexcept { return gpr[kRegSegmentBase + s]; }

  [[nodiscard]] std::uint64_t rip_of(const Op* op) const noexcept { return gpr[kRegBlock] + op->rip_offset; }
  // RIP of the next instruction. Code of 16 bits has 32 of them as well: only a branch or return of that operand size
  // clears the upper half (AMD APM vol. 1, 2.3), and a segment of 64 KiB ends at its limit instead of wrapping.
  [[nodiscard]] std::uint64_t rip_after(const Op* op) const noexcept {
    return wrap_rip(gpr[kRegBlock] + op->rip_offset + op->length);
  }
  [[nodiscard]] std::uint64_t wrap_rip(std::uint64_t value) const noexcept {
    return code64 ? value : value & 0xffffffff;
  }
  // TSC ticks at this operation.
  [[nodiscard]] std::uint64_t now(const Op* op) const noexcept;

  // --- operands in memory
  // --------------------------------------------------------------------------------------------- Linear address of the
  // operation's memory operand.
  [[nodiscard]] std::uint64_t address(const Op* op) const noexcept {
    return ((gpr[op->base] + (gpr[op->index] << op->scale) + static_cast<std::uint64_t>(op->disp)) & op->address_mask) +
           gpr[op->segment];
  }

  // Each returns false with the fault noted when the access faults; then the handler returns fault().
  template <class T>
  [[nodiscard]] bool read(std::uint64_t va, T& out) noexcept {
    const TlbEntry& e = tlb->at(va);
    if (((va + sizeof(T) - 1) & ~std::uint64_t{0xfff}) == e.read_tag) [[likely]] {
      out = load<T>(host_pointer(va, e));
      return true;
    }
    static_assert(sizeof(T) <= kSlowBytes);
    if (!slow_read(va, sizeof(T))) return false;
    out = load<T>(slow_value.data());
    return true;
  }
  template <class T>
  [[nodiscard]] bool write(std::uint64_t va, const T& value) noexcept {
    const TlbEntry& e = tlb->at(va);
    if (((va + sizeof(T) - 1) & ~std::uint64_t{0xfff}) == e.write_tag) [[likely]] {
      store<T>(host_pointer(va, e), value);
      return true;
    }
    static_assert(sizeof(T) <= kSlowBytes);
    store<T>(slow_value.data(), value);
    return slow_write(va, sizeof(T));
  }
  // First half of read-modify-write: faults as a write would. The write() that follows cannot fault.
  template <class T>
  [[nodiscard]] bool read_to_modify(std::uint64_t va, T& out) noexcept {
    const TlbEntry& e = tlb->at(va);
    if (((va + sizeof(T) - 1) & ~std::uint64_t{0xfff}) == e.write_tag) [[likely]] {
      out = load<T>(host_pointer(va, e));
      return true;
    }
    if (!slow_modify(va, sizeof(T))) return false;
    out = load<T>(slow_value.data());
    return true;
  }
  // A host pointer to [va, va + size) if the page is at hand for reading (writing) with no side effect and the range
  // does not leave it; nullptr otherwise. For the string instructions and wide vector operands.
  [[nodiscard]] const std::byte* peek(std::uint64_t va, std::size_t size) noexcept {
    const TlbEntry& e = tlb->at(va);
    return ((va + size - 1) & ~std::uint64_t{0xfff}) == e.read_tag ? host_pointer(va, e) : nullptr;
  }
  [[nodiscard]] std::byte* poke(std::uint64_t va, std::size_t size) noexcept {
    const TlbEntry& e = tlb->at(va);
    return ((va + size - 1) & ~std::uint64_t{0xfff}) == e.write_tag ? host_pointer(va, e) : nullptr;
  }
  static std::byte* host_pointer(std::uint64_t va, const TlbEntry& e) noexcept {
    return reinterpret_cast<std::byte*>(va + e.addend);
  }

  // access.cpp: any size up to 4096 bytes, any crossing, privilege of the present CPL.
  [[nodiscard]] bool read_slow(std::uint64_t va, void* out, std::size_t size) noexcept;
  [[nodiscard]] bool write_slow(std::uint64_t va, const void* in, std::size_t size) noexcept;
  // To and from `slow_value`: handlers whose locals have no address stay small.
  [[nodiscard]] bool slow_read(std::uint64_t va, std::size_t size) noexcept;
  [[nodiscard]] bool slow_write(std::uint64_t va, std::size_t size) noexcept;
  [[nodiscard]] bool slow_modify(std::uint64_t va, std::size_t size) noexcept;
  // Would a write fault? Sets A and D as the write will.
  [[nodiscard]] bool probe_write(std::uint64_t va, std::size_t size) noexcept;
  // Implicit supervisor accesses (descriptor tables, TSS, exception frames), whatever the CPL.
  [[nodiscard]] bool read_system(std::uint64_t va, void* out, std::size_t size) noexcept;
  [[nodiscard]] bool write_system(std::uint64_t va, const void* in, std::size_t size) noexcept;
  // #AC at CPL 3 (APM vol. 2, 8.2.18). False with it noted. The accesses that can fail here never hit the TLB.
  [[nodiscard]] bool aligned(std::uint64_t va, std::size_t size) noexcept;
  // After resolve() has failed: is it for the bus to answer?
  [[nodiscard]] bool on_bus(bool supervisor) const noexcept { return bus != nullptr && fault_info.npf && !supervisor; }
  [[nodiscard]] std::byte* resolve(std::uint64_t sum, std::size_t size, Access access, bool supervisor) noexcept;
  [[nodiscard]] bool read_pieces(std::uint64_t va, std::byte* out, std::size_t size, bool supervisor) noexcept;
  [[nodiscard]] bool write_pieces(std::uint64_t va, const std::byte* in, std::size_t size, bool supervisor) noexcept;
  [[nodiscard]] bool probe_pieces(std::uint64_t va, std::size_t size, bool supervisor) noexcept;

  // --- leaving a block
  // ------------------------------------------------------------------------------------------------ Notes a fault.
  // Returns false, so that `return raise(...)` fits the functions above.
  bool raise(std::uint8_t vector) noexcept {
    fault_info = Fault{.vector = vector};
    return false;
  }
  bool raise(std::uint8_t vector, std::uint32_t error) noexcept {
    fault_info = Fault{.vector = vector, .has_error = true, .error = error};
    return false;
  }
  // After an access to the stack returned false.
  bool stack_fault() noexcept {
    if (fault_info.non_canonical) fault_info.vector = kVectorSs;
    return false;
  }
  // After `op` left with a fault: the memory operand's segment decides between #GP and #SS (APM vol. 2, 8.2.13).
  void settle_fault(const Op* op) noexcept {
    if (fault_info.non_canonical && op->segment_register == kSs) fault_info.vector = kVectorSs;
  }
  // What a handler returns after one of the accesses returned false.
  const Op* fault() noexcept {
    reason = Leave::kFault;
    return nullptr;
  }
  const Op* fault(std::uint8_t vector) noexcept {
    raise(vector);
    return fault();
  }
  const Op* fault(std::uint8_t vector, std::uint32_t error) noexcept {
    raise(vector, error);
    return fault();
  }
  const Op* leave(Leave why) noexcept {
    reason = why;
    return nullptr;
  }
  // The instruction has retired; go on at `target` through the dispatcher (mode changed, TLB flushed, IF set ...).
  const Op* leave_at(std::uint64_t target) noexcept {
    rip = target;
    return leave(Leave::kLookup);
  }
  // Near branch within the same mode: the quick way on. `target` is wrapped and canonical.
  const Op* jump(std::uint64_t target) noexcept {
    rip = target;
    const JumpEntry& e = jumps[jump_index(target)];
    if (e.rip == target && e.key == jump_key) [[likely]]
      return e.first;
    return leave(Leave::kLookup);
  }
  // The same for direct branches, which remember their successor.
  const Op* jump_linked(const Op* op, std::uint64_t target) noexcept {
    rip = target;
    if (op->link_key == jump_key) [[likely]]
      return op->link;
    const JumpEntry& e = jumps[jump_index(target)];
    if (e.rip == target && e.key == jump_key) {
      op->link = e.first;
      op->link_key = jump_key;
      return e.first;
    }
    return leave(Leave::kLookup);
  }
  static std::size_t jump_index(std::uint64_t target) noexcept {
    return (target ^ (target >> 12)) & (kJumpEntries - 1);
  }
  // A #VMEXIT after this instruction: RIP is already that of the next one (table 15-33 of APM vol. 2: HLT, VMGEXIT,
  // traps).
  const Op* exit_after(const Op* op, std::uint64_t code, std::uint64_t info1 = 0) noexcept;
  // A non-automatic exit: #VC with the exit code as error code.
  const Op* vc(std::uint64_t exit_code) noexcept { return fault(kVectorVc, static_cast<std::uint32_t>(exit_code)); }
  // There is no memory at `gpa`, or it is read-only. False, noted.
  bool no_memory(std::uint64_t gpa, std::uint32_t error) noexcept;

  // --- modes
  // ------------------------------------------------------------------------------------------------------------ Picks
  // the TLB for CPL, CR4.SMAP and RFLAGS.AC. To be called when one of them changes.
  void select_tlb() noexcept;
  // Works out long_mode, code64, jump_key and the TLB from the registers. To be called when CR0, CR4, EFER, a segment
  // register, CPL or RFLAGS.TF/AC changed; the handler then leaves by leave_at(). jump_key is made of the generation,
  // the mode and the privilege, so that what is linked on one side of a system call is still linked after the next.
  void update_mode() noexcept;
  // Code size 1:0 (0 16-bit, 1 32-bit, 2 64-bit), SS.B 2, segments need checks 3, single step (RFLAGS.TF) 4.
  [[nodiscard]] unsigned mode_bits() const noexcept;
  // A new jump_key: nothing in the jump cache or in a link is valid any more. After every TLB flush.
  void forget_jumps() noexcept;
  void flush_tlb(bool keep_global) noexcept;
  void invalidate_page(std::uint64_t va) noexcept;  // INVLPG

  // PageObserver
  void page_closed(const std::byte* host_page) override;
  void all_pages_closed() override;

  // Page of the code at `va`, through the fetch TLB. nullptr with a fault noted.
  const std::byte* fetch_page(std::uint64_t va, std::uint8_t*& page_flags);
  struct FetchEntry {
    std::uint64_t page;
    std::uint64_t key;
    const std::byte* host;
    std::uint8_t* page_flags;
  };
  static constexpr std::size_t kFetchEntries = 256;
  std::array<FetchEntry, kFetchEntries> fetches{};
  // Linear pages that code was fetched from under this jump generation, hashed by address and size: INVLPG of any other
  // page leaves the jumps alone. Linux invalidates data pages all the time, and looking every block up again cost 8% of
  // its boot.
  static constexpr std::size_t kCodePageBits = 4096;
  std::bitset<kCodePageBits> code_pages;
  static std::size_t code_page_bit(std::uint64_t va, unsigned shift) noexcept {
    return (va >> shift ^ va >> (shift + 12) ^ shift << 6) & (kCodePageBits - 1);
  }
  // Host pages that the TLBs and `fetches` may point into, hashed, since all of them were emptied. Linux makes 64 MiB
  // of its memory shared at boot: looking through the TLBs of 64 vCPUs for each page of it took five seconds.
  static constexpr std::size_t kHostPageBits = 32768;
  std::bitset<kHostPageBits> host_pages;
  static std::size_t host_page_bit(const std::byte* page) noexcept {
    return (reinterpret_cast<std::uintptr_t>(page) >> 12) & (kHostPageBits - 1);
  }
  // Instructions that straddle a page: kept with the bytes they were decoded from, since either page may change.
  struct Straddler;
  std::vector<Straddler> straddlers;

  // --- run_loop.cpp
  // -------------------------------------------------------------------------------------------------------
  CpuExit run(const RunControls& run_controls);
  Emulated emulate(DeviceBus& device_bus, CpuExit& out);
  // First operation at `rip`, decoding it if need be; nullptr with a fault noted when the fetch faults. `single`: of a
  // block of one instruction.
  const Op* lookup(bool single);

  // --- breakpoints.cpp
  // ----------------------------------------------------------------------------------------------------- What DR7 says
  // about armed breakpoints; called by update_mode().
  void look_at_breakpoints() noexcept;
  // DR7 and the addresses that count.
  [[nodiscard]] std::uint64_t armed_dr7() const noexcept { return debugger_armed ? controls.debugger->dr7 : dr7; }
  [[nodiscard]] std::uint64_t armed_address(unsigned i) const noexcept {
    return debugger_armed ? controls.debugger->addresses[i] : dr[i];
  }
  [[nodiscard]] bool stepped_by_debugger() const noexcept {
    return controls.debugger != nullptr && controls.debugger->steps;
  }
  // Of an access by the running instruction while `watching`.
  void note_access(std::uint64_t va, std::size_t size, bool write) noexcept;
  // Is there one on the instruction at RIP? Notes the #DB fault.
  [[nodiscard]] bool hits_instruction_breakpoint() noexcept;
  // After an instruction: notes the #DB trap in fault_info. `stepped`: it began with RFLAGS.TF set.
  void note_debug_trap(bool stepped) noexcept;
  // Are the debug registers the guest's own, DR7 and #DB without an intercept? (15.34.11, DebugSwap)
  [[nodiscard]] bool owns_debug_registers() const noexcept;

  // --- paging.cpp
  // ---------------------------------------------------------------------------------------------------------
  struct Translation {
    Gpa gpa;
    View view = View::kPrivate;
    bool writable = false;  // a write now needs no more checks and no D update
    bool global = false;
    std::uint8_t shift = 12;  // log2 of the guest's page size
  };
  // `supervisor`: implicit access. False with #PF, #GP or #SS noted. Sets A and, for writes, D.
  [[nodiscard]] bool translate(std::uint64_t va, Access access, bool supervisor, Translation& out) noexcept;

  // --- events.cpp
  // --------------------------------------------------------------------------------------------------------- Delivers
  // fault_info, with double fault and shutdown. False: `exit` is filled with kExitShutdown.
  [[nodiscard]] bool deliver_fault() noexcept;
  // An EVENTINJ event. False: `exit` is filled (shutdown), or the event cannot be injected.
  [[nodiscard]] bool deliver_injected(std::uint64_t event) noexcept;
};

// How a handler goes on to the operation after its own. It calls it rather than returning it, which the compiler makes
// a jump; where it does not, the stack is bounded by the block: op_enter is only ever returned to the dispatcher.
inline const Op* next(Core& core, const Op* op) {
  const Op* following = op + 1;
  core.current = following;
  return following->fn(core, following);
}

}  // namespace sevisor::emulator
