// SHA-256 blocks by the processor's SHA extensions (APM vol. 4, SHA256RNDS2, SHA256MSG1, SHA256MSG2). The one part of
// the firmware that uses vector registers. Freestanding.
#pragma once

#include <cstddef>
#include <cstdint>

namespace sevisor::firmware {

// Compresses `count` blocks of 64 bytes into the eight words of `state` (FIPS 180-4 section 6.2.2). The processor must
// have SSSE3, SSE4.1 and the SHA extensions, and CR4.OSFXSR must be set.
void sha256_blocks_ni(std::uint32_t* state, const std::byte* blocks, std::size_t count) noexcept;

}  // namespace sevisor::firmware
