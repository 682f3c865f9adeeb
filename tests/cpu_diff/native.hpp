// The host's processor.
#pragma once

#include "tests/cpu_diff/machine.hpp"

namespace sevisor::cpu_diff {

// Maps the code and data pages at their fixed addresses and catches the signals of faulting instructions while it
// lives. One at a time. Throws std::runtime_error if an address is taken.
class Native {
 public:
  Native();
  ~Native();
  Native(const Native&) = delete;
  Native& operator=(const Native&) = delete;

  // Runs `instruction` (or several, up to 64 bytes) to completion or fault; `machine` is its state before and after.
  void run(std::span<const std::uint8_t> instruction, Mode mode, Machine& machine);
};

}  // namespace sevisor::cpu_diff
