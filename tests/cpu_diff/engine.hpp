// The emulated processor, in long mode at CPL 3 with the data pages mapped.
#pragma once

#include <memory>

#include "tests/cpu_diff/machine.hpp"

namespace sevisor::cpu_diff {

// What the engine makes of an instruction.
enum class Support : std::uint8_t {
  kRuns,
  kUndefined,      // #UD: none of what CPUID offers
  kUnimplemented,  // stops the guest
};

class Engine {
 public:
  Engine();
  ~Engine();
  Engine(const Engine&) = delete;
  Engine& operator=(const Engine&) = delete;

  [[nodiscard]] Support support(std::span<const std::uint8_t> instruction, Mode mode);

  // As Native::run. A REP instruction that stops for the budget is taken up again until it is complete. Throws
  // std::runtime_error if the engine cannot run the instruction.
  void run(std::span<const std::uint8_t> instruction, Mode mode, Machine& machine);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace sevisor::cpu_diff
