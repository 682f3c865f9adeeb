#include <immintrin.h>

#include "extensions.hpp"

namespace extensions {

namespace {
constexpr int kRounds = 1000;

void aes() {
  Random random(20);
  Hash hash;
  auto state = random.bits<__m128i>();
  for (int n = 0; n < kRounds; ++n) {
    const auto key = random.bits<__m128i>();
    state = _mm_aesenc_si128(state, key);
    hash.put(_mm_aesenclast_si128(state, key));
    hash.put(_mm_aesdeclast_si128(_mm_aesdec_si128(state, key), key));
    hash.put(_mm_aesimc_si128(_mm_aeskeygenassist_si128(key, 0x1b)));
    hash.put(_mm_clmulepi64_si128(state, key, 0x10));
    hash.put(_mm_clmulepi64_si128(state, key, 0x01));
  }
  hash.print("aes-pclmulqdq");
}

void sha() {
  Random random(21);
  Hash hash;
  auto a = random.bits<__m128i>();
  auto b = random.bits<__m128i>();
  for (int n = 0; n < kRounds; ++n) {
    const auto words = random.bits<__m128i>();
    const __m128i next = _mm_sha256rnds2_epu32(a, b, words);
    hash.put(_mm_sha256msg2_epu32(_mm_sha256msg1_epu32(a, words), b));
    hash.put(_mm_sha1rnds4_epu32(_mm_sha1nexte_epu32(a, words), b, 2));
    hash.put(_mm_sha1msg2_epu32(_mm_sha1msg1_epu32(a, b), words));
    a = b;
    b = next;
  }
  hash.put(a);
  hash.print("sha");
}

void wide() {
  Random random(22);
  Hash hash;
  auto state = random.bits<__m256i>();
  for (int n = 0; n < kRounds; ++n) {
    const auto key = random.bits<__m256i>();
    state = _mm256_aesenc_epi128(state, key);
    hash.put(_mm256_aesdeclast_epi128(_mm256_aesdec_epi128(state, key), key));
    hash.put(_mm256_aesenclast_epi128(state, key));
    hash.put(_mm256_clmulepi64_epi128(state, key, 0x11));
  }
  hash.print("vaes-vpclmulqdq");
}
}  // namespace

void crypto() {
  aes();
  sha();
  wide();
}

}  // namespace extensions
