// An instruction that lies in two pages, as Core keeps it.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>

#include "emulator/cpu/code/code_cache.hpp"
#include "emulator/cpu/core.hpp"

namespace sevisor::emulator {

struct Core::Straddler {
  std::uint64_t rip = 0;
  unsigned mode = 0;
  unsigned size = 0;  // bytes compared
  std::array<std::byte, 16> bytes{};
  std::unique_ptr<Block> block;
};

}  // namespace sevisor::emulator
