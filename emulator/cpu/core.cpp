#include "emulator/cpu/core.hpp"

#include "emulator/cpu/code/code_cache.hpp"
#include "emulator/cpu/code/straddler.hpp"

namespace sevisor::emulator {

Core::Core(const CpuConfig& cpu_config, GuestMemory& guest_memory, CodeCache& code_cache, VirtualClock& virtual_clock)
    : random_state(cpu_config.random_seed),
      config(cpu_config),
      memory(guest_memory),
      code(code_cache),
      clock(virtual_clock) {
  memory.add_observer(this);
  code.attach(this);
  forget_jumps();
}

Core::~Core() {
  code.detach(this);
  memory.remove_observer(this);
}

std::uint64_t Core::now(const Op* op) const noexcept {
  // The whole block was charged when it was entered; what stands behind this operation has not run yet.
  const Op* first = op - op->slot;
  const std::int64_t ahead = static_cast<std::int64_t>(first->imm) - op->number;
  const auto done = static_cast<std::uint64_t>(budget_at_run - budget - ahead);
  return clock_at_run + done * config.tsc_per_instruction;
}

const Op* Core::exit_after(const Op* op, std::uint64_t exit_code, std::uint64_t info1) noexcept {
  exit.code = exit_code;
  exit.info1 = info1;
  rip = rip_after(op);
  return leave(Leave::kExit);
}

}  // namespace sevisor::emulator
