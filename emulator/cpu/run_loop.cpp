// The dispatcher: between blocks it looks at events, the budget and why the last block was left.
#include <algorithm>
#include <utility>

#include "emulator/cpu/code/code_cache.hpp"
#include "emulator/cpu/code/decoder.hpp"
#include "emulator/cpu/code/straddler.hpp"
#include "emulator/cpu/core.hpp"
#include "emulator/cpu/intercepts.hpp"
#include "emulator/cpu/state/host_unit.hpp"
#include "ghcb/exit_code.hpp"

namespace sevisor::emulator {

namespace {

constexpr unsigned kSingleStepMode = 16;
constexpr std::size_t kStraddlers = 64;
constexpr std::size_t kMaxInstructionBytes = 15;
// Matches no jump_key, so that a block run alone does not go on into the next one.
constexpr std::uint64_t kNoJumps = 0;

// The instruction at `va` begins in `page` and goes on in the next.
const Op* straddling(Core& core, std::uint64_t va, const std::byte* page, unsigned mode) {
  const std::size_t here = kPageSize - (va & 0xfff);
  std::uint8_t* unused = nullptr;
  const std::byte* next = core.fetch_page(va + here, unused);
  if (next == nullptr) return nullptr;
  std::array<std::byte, 16> bytes{};
  std::copy_n(page + (va & 0xfff), std::min(here, kMaxInstructionBytes), bytes.begin());
  if (here < kMaxInstructionBytes) {
    std::copy_n(next, kMaxInstructionBytes - here, bytes.begin() + static_cast<std::ptrdiff_t>(here));
  }
  if (core.straddlers.empty()) core.straddlers.resize(kStraddlers);
  Core::Straddler& s = core.straddlers[(va >> 12) & (kStraddlers - 1)];
  if (s.block == nullptr || s.rip != core.rip || s.mode != mode || s.bytes != bytes) {
    s.block = decode_block(std::span(bytes).first(kMaxInstructionBytes), mode, 1, core.code.stubs());
    s.rip = core.rip;
    s.mode = mode;
    s.bytes = bytes;
    if (s.block == nullptr) {  // fifteen bytes and still not whole
      core.raise(kVectorGp, 0);
      return nullptr;
    }
  }
  return s.block->ops.data();
}

}  // namespace

const Op* Core::lookup(bool single) {
  if (!single) {
    const JumpEntry& e = jumps[jump_index(rip)];
    if (e.rip == rip && e.key == jump_key && e.first->fn != op_poisoned) return e.first;
  }
  if (!code64 && rip > seg[kCs].limit) {
    raise(kVectorGp, 0);
    return nullptr;
  }
  const std::uint64_t va = code64 ? rip : (segment_base(kCs) + rip) & 0xffffffff;
  std::uint8_t* page_flags = nullptr;
  const std::byte* page = fetch_page(va, page_flags);
  if (page == nullptr) return nullptr;
  const auto offset = static_cast<unsigned>(va & 0xfff);
  const unsigned mode = mode_bits() | (single ? kSingleStepMode : 0);
  const Op* first = code.find(page, offset, mode);
  if (first == nullptr) {
    return_units(vec);
    code.collect();
    const unsigned limit = (mode & kSingleStepMode) != 0 ? 1 : CodeCache::kMaxInstructions;
    auto block = decode_block(std::span(page + offset, kPageSize - offset), mode, limit, code.stubs());
    if (block == nullptr) return straddling(*this, va, page, mode);
    block->page = page;
    block->offset = static_cast<std::uint16_t>(offset);
    block->page_flags = page_flags;
    first = code.add(std::move(block));
  }
  if (!single) jumps[jump_index(rip)] = JumpEntry{.rip = rip, .key = jump_key, .first = first};
  return first;
}

CpuExit Core::run(const RunControls& run_controls) {
  controls = run_controls;
  exit = CpuExit{};
  budget = budget_at_run = static_cast<std::int64_t>(controls.instruction_limit);
  clock_at_run = clock.now;
  pauses_left = kPauseFilterCount;
  current = nullptr;
  if (const bool arms = controls.debugger != nullptr && controls.debugger->has_breakpoints; arms || debugger_armed) {
    debugger_armed = arms;
    update_mode();
  }
  const auto finish = [this]() -> CpuExit {
    return_units(vec);
    const auto done = static_cast<std::uint64_t>(budget_at_run - budget);
    retired_before_run += done;
    clock.now = clock_at_run + done * config.tsc_per_instruction;
    return exit;
  };
  const auto finish_with = [&](std::uint64_t exit_code) {
    exit.code = exit_code;
    return finish();
  };
  // Delivers the fault noted. True: the guest goes on.
  const auto deliver = [this] {
    --budget;  // takes time as an instruction does: a guest that does nothing but fault must not run for ever
    return deliver_fault();
  };

  if (controls.event_injection != 0 && !deliver_injected(controls.event_injection)) return finish();
  while (true) {
    const bool shadow = interrupt_shadow_on;
    if (!shadow && controls.interrupt_window && (system_flags & kFlagIf) != 0) return finish_with(ghcb::kExitVintr);
    if (std::exchange(iret_done, false)) return finish_with(ghcb::kExitIret);
    if (budget <= 0) return finish_with(ghcb::kExitIntr);
    const bool stepping = (system_flags & kFlagTf) != 0;
    const bool single = shadow || stepping || breakpoints_armed || bus != nullptr || stepped_by_debugger();
    if (breakpoints_armed) {
      if (hits_instruction_breakpoint()) {
        if (!deliver()) return finish();
        continue;
      }
      system_flags &= ~kFlagRf;
    }

    const Op* op = lookup(single);
    if (op == nullptr) {
      if (!deliver()) return finish();
      continue;
    }
    interrupt_shadow_on = debug_shadow_on = false;
    step_due = stepping;
    const std::uint64_t key = jump_key;
    if (single) jump_key = kNoJumps;
    for (const Op* next = op; next != nullptr; next = next->fn(*this, next)) current = next;
    op = current;
    if (single && jump_key == kNoJumps) jump_key = key;

    // What the block was charged for and did not run is given back.
    const bool retired = reason == Leave::kLookup || reason == Leave::kExit;
    if (op->slot != 0) {
      budget += static_cast<std::int64_t>((op - op->slot)->imm) - op->number - (retired && op->length != 0 ? 1 : 0);
    }
    switch (reason) {
      case Leave::kFault:
        data_hits = 0;
        settle_fault(op);
        rip = fault_info.trap ? rip : rip_of(op);
        if (!deliver()) return finish();
        break;
      case Leave::kExit:
      case Leave::kExitFault:
        return finish();
      case Leave::kLookup:
        if ((step_due || data_hits != 0 || stepped_by_debugger()) && !debug_shadow_on) {
          note_debug_trap(step_due);
          if (!deliver()) return finish();
        }
        break;
      case Leave::kRestart:
        if (breakpoints_armed) system_flags |= kFlagRf;  // the one on this instruction has had its say
        break;
    }
  }
}

Emulated Core::emulate(DeviceBus& device_bus, CpuExit& out) {
  const bool shadow = interrupt_shadow_on;
  const bool debug_shadow = debug_shadow_on;
  const std::uint64_t rip_before = rip;
  if (breakpoints_armed) system_flags |= kFlagRf;  // one on this instruction has had its say
  reason = Leave::kFault;                          // unless the instruction gets to run
  fault_info = Fault{};
  bus = &device_bus;
  out = run({.instruction_limit = 1});
  bus = nullptr;
  if (out.code == ghcb::kExitIntr) return reason == Leave::kFault ? Emulated::kFaulted : Emulated::kDone;
  if (reason != Leave::kFault || !fault_info.waiting) return Emulated::kExited;
  // As if it had not been tried, for the clock too.
  clock.now = clock_at_run;
  rip = rip_before;
  interrupt_shadow_on = shadow;
  debug_shadow_on = debug_shadow;
  return Emulated::kWaiting;
}

}  // namespace sevisor::emulator
