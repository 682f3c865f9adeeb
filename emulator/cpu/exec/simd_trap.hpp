// Runs a stub with SIMD floating-point exceptions unmasked on the host, to learn what the processor reports.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>

namespace sevisor::emulator {

struct Core;
struct Op;

// Runs op's stub with the host's MXCSR (or, for MMX instructions, the one in the x87 image) as given. If the
// instruction traps: MXCSR as the processor left it; registers and memory are then unchanged but for MMX's own. Nothing
// if it completes. SIGFPE is caught meanwhile, and only from this thread.
[[nodiscard]] std::optional<std::uint32_t> run_trapping(Core& core, const Op* op, std::byte* memory,
                                                        std::uint32_t mxcsr);

}  // namespace sevisor::emulator
