// One instruction, run twice: on the host's own processor (native.hpp) and in the emulated one (engine.hpp), from the
// same registers, flags and memory. A test makes an instruction (encodings.hpp), points its operands at the data pages
// (operands.hpp), runs both and compares what is left. Registers are random; what is not compared is named by the test.
//
// Both see the same addresses: kDataPages pages at kData with nothing mapped on either side, and the instruction at
// kCode. Branches may go to kTaken; it and the byte after the instruction are the only places where execution may end.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace sevisor::cpu_diff {

inline constexpr std::uint64_t kCode = 0x67450000;  // where no bit offset of an operand at an edge leads
inline constexpr std::uint64_t kTaken = kCode + 0x60;
inline constexpr std::uint64_t kData = 0x20000000;
inline constexpr std::size_t kDataPages = 2;
inline constexpr std::size_t kDataSize = kDataPages * 4096;

enum class Mode : std::uint8_t {
  k64,
  k32,  // compatibility mode: 32-bit code and stack, flat segments
  k16,  // engine only: 16-bit code and stack; ES, SS and DS begin at kData, CS at kCode & ~0xffff
};

struct Registers {
  std::array<std::uint64_t, 16> gpr{};
  std::uint64_t rflags = 0x202;
  alignas(16) std::array<std::byte, 512> fx{};           // FXSAVE64 image: x87, MXCSR, XMM0..15
  std::array<std::array<std::byte, 16>, 16> ymm_high{};  // upper halves of YMM0..15; 0 if the host has no AVX
};
inline constexpr std::size_t kFxMxcsr = 24;
inline constexpr std::size_t kFxXmm = 160;
// Does the host have the YMM registers, and its kernel keep them?
[[nodiscard]] bool host_has_ymm();
// FNINIT's state with MXCSR 0x1f80.
[[nodiscard]] Registers initial_registers();

inline constexpr int kNoException = -1;

// State before and after.
struct Machine {
  Registers regs;
  std::vector<std::byte> data = std::vector<std::byte>(kDataSize);  // contents of the data pages
  // Only after: where execution went on (the faulting instruction's own address if it faulted) ...
  std::uint64_t rip = kCode;
  int exception = kNoException;  // ... vector
  std::uint32_t error = 0;       // error code, 0 if the exception has none
  std::uint64_t cr2 = 0;         // for #PF
};

}  // namespace sevisor::cpu_diff
