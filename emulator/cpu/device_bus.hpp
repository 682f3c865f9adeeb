// What stands in for memory and ports while a hypervisor emulates an instruction.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "base/address.hpp"

namespace sevisor::emulator {

// Accesses come in program order, and none leaves its page. What is written counts only if the instruction completes:
// one that waits for an answer, or faults, is done again from its start.
class DeviceBus {
 public:
  virtual ~DeviceBus() = default;
  // False: there is no answer yet.
  [[nodiscard]] virtual bool read(Gpa gpa, std::span<std::byte> data) = 0;
  virtual void write(Gpa gpa, std::span<const std::byte> data) = 0;
  // INS and OUTS: elements of `size` bytes.
  [[nodiscard]] virtual bool input(std::uint16_t port, unsigned size, std::span<std::byte> data) = 0;
  virtual void output(std::uint16_t port, unsigned size, std::span<const std::byte> data) = 0;
};

}  // namespace sevisor::emulator
