#include "firmware/sha256_ni.hpp"

#include <immintrin.h>

#include "firmware/sha256_constants.hpp"

// Compiled for processors that have the instructions. So it calls no inline function that others include as well: the
// linker might keep this file's copy for all of them.

namespace sevisor::firmware {

namespace {
constexpr std::size_t kBlockBytes = 64;
constexpr int kGroups = 16;  // of four rounds each

__m128i read(const void* at) noexcept { return _mm_loadu_si128(static_cast<const __m128i*>(at)); }
void write(void* at, __m128i value) noexcept { _mm_storeu_si128(static_cast<__m128i*>(at), value); }
}  // namespace

void sha256_blocks_ni(std::uint32_t* state, const std::byte* blocks, std::size_t count) noexcept {
  // The instructions want the words as A B E F and C D G H, the first one highest.
  const __m128i dcba = read(state);
  const __m128i hgfe = read(state + 4);
  const __m128i cdab = _mm_shuffle_epi32(dcba, 0xb1);
  const __m128i efgh = _mm_shuffle_epi32(hgfe, 0x1b);
  __m128i abef = _mm_alignr_epi8(cdab, efgh, 8);
  __m128i cdgh = _mm_blend_epi16(efgh, cdab, 0xf0);
  const __m128i big_endian = _mm_set_epi64x(0x0c0d0e0f08090a0b, 0x0405060700010203);

  for (; count != 0; --count, blocks += kBlockBytes) {
    const __m128i abef_before = abef;
    const __m128i cdgh_before = cdgh;
    __m128i words[4];  // the last sixteen of the message schedule
#pragma GCC unroll 16
    for (int group = 0; group < kGroups; ++group) {
      __m128i& now = words[group % 4];
      if (group < 4) {
        now = _mm_shuffle_epi8(read(blocks + 16 * group), big_endian);
      } else {
        const __m128i last = words[(group + 3) % 4];
        const __m128i seven_back = _mm_alignr_epi8(last, words[(group + 2) % 4], 4);
        now = _mm_sha256msg1_epu32(now, words[(group + 1) % 4]);
        now = _mm_sha256msg2_epu32(_mm_add_epi32(now, seven_back), last);
      }
      const __m128i sum = _mm_add_epi32(now, read(kSha256RoundConstants + 4 * group));
      cdgh = _mm_sha256rnds2_epu32(cdgh, abef, sum);
      abef = _mm_sha256rnds2_epu32(abef, cdgh, _mm_shuffle_epi32(sum, 0x0e));
    }
    abef = _mm_add_epi32(abef, abef_before);
    cdgh = _mm_add_epi32(cdgh, cdgh_before);
  }

  const __m128i feba = _mm_shuffle_epi32(abef, 0x1b);
  const __m128i dchg = _mm_shuffle_epi32(cdgh, 0xb1);
  write(state, _mm_blend_epi16(feba, dchg, 0xf0));
  write(state + 4, _mm_alignr_epi8(dchg, feba, 8));
}

}  // namespace sevisor::firmware
