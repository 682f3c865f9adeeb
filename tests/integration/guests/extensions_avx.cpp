#include <immintrin.h>

#include "extensions.hpp"

namespace extensions {

namespace {
constexpr int kRounds = 1000;

__m256 singles(Random& r) {
  alignas(32) float v[8];
  for (float& x : v) x = static_cast<float>(r.number());
  return _mm256_load_ps(v);
}
__m256d doubles(Random& r) { return _mm256_set_pd(r.number(), r.number(), r.number(), r.number()); }

void floating_avx() {
  Random random(30);
  Hash hash;
  for (int n = 0; n < kRounds; ++n) {
    const __m256 a = singles(random);
    const __m256 b = singles(random);
    const __m256d c = doubles(random);
    const __m256d d = doubles(random);
    hash.put(_mm256_add_ps(_mm256_mul_ps(a, b), _mm256_div_ps(a, b)));
    hash.put(_mm256_addsub_pd(_mm256_hadd_pd(c, d), _mm256_sqrt_pd(_mm256_max_pd(c, d))));
    hash.put(_mm256_cmp_ps(a, b, _CMP_NLE_UQ));
    hash.put(_mm256_cmp_pd(c, d, _CMP_EQ_US));
    hash.put(_mm256_blendv_ps(a, b, _mm256_cmp_ps(a, b, _CMP_LT_OS)));
    hash.put(_mm256_permute2f128_ps(a, b, 0x21));
    hash.put(_mm256_permutevar_ps(a, _mm256_castps_si256(b)));
    hash.put(_mm256_insertf128_pd(c, _mm256_extractf128_pd(d, 1), 0));
    hash.put(_mm256_cvtps_epi32(a));
    hash.put(_mm256_cvtpd_ps(c));
    hash.put(_mm256_cvttpd_epi32(d));
    hash.put(_mm256_round_pd(c, _MM_FROUND_TO_ZERO));
    hash.put(_mm256_dp_ps(a, b, 0xf1));
    hash.put(_mm256_shuffle_pd(c, d, 0x6));
    hash.put(_mm256_movemask_ps(a) + _mm256_testz_ps(a, b) + _mm256_testnzc_pd(c, d));
    // FMA
    hash.put(_mm256_fmadd_ps(a, b, a));
    hash.put(_mm256_fnmsub_pd(c, d, c));
    hash.put(_mm256_fmaddsub_ps(a, b, b));
    hash.put(_mm256_fmsubadd_pd(c, d, d));
    hash.put(_mm_fmadd_sd(_mm256_castpd256_pd128(c), _mm256_castpd256_pd128(d), _mm256_castpd256_pd128(c)));
    // F16C
    const __m128i half = _mm256_cvtps_ph(a, _MM_FROUND_TO_NEAREST_INT);
    hash.put(half);
    hash.put(_mm256_cvtph_ps(half));
  }
  hash.print("avx-fma-f16c");
}

void integer_avx2() {
  Random random(31);
  Hash hash;
  for (int n = 0; n < kRounds; ++n) {
    const auto a = random.bits<__m256i>();
    const auto b = random.bits<__m256i>();
    hash.put(_mm256_add_epi8(_mm256_adds_epi16(a, b), _mm256_subs_epu8(a, b)));
    hash.put(_mm256_sub_epi64(_mm256_mul_epu32(a, b), _mm256_madd_epi16(a, b)));
    hash.put(_mm256_shuffle_epi8(a, b));
    hash.put(_mm256_alignr_epi8(a, b, 11));
    hash.put(_mm256_permutevar8x32_epi32(a, b));
    hash.put(_mm256_permute4x64_epi64(a, 0x39));
    hash.put(_mm256_permute2x128_si256(a, b, 0x13));
    hash.put(_mm256_sllv_epi32(a, _mm256_and_si256(b, _mm256_set1_epi32(63))));
    hash.put(_mm256_srav_epi32(a, _mm256_and_si256(b, _mm256_set1_epi32(63))));
    hash.put(_mm256_srlv_epi64(a, _mm256_and_si256(b, _mm256_set1_epi64x(127))));
    hash.put(_mm256_packus_epi32(_mm256_mullo_epi32(a, b), _mm256_cvtepi16_epi32(_mm256_castsi256_si128(a))));
    hash.put(_mm256_broadcastsi128_si256(_mm256_extracti128_si256(a, 1)));
    hash.put(_mm256_broadcastb_epi8(_mm256_castsi256_si128(b)));
    hash.put(_mm256_blend_epi32(a, b, 0xa6));
    hash.put(_mm256_mpsadbw_epu8(a, b, 0x2d));
    hash.put(_mm256_movemask_epi8(_mm256_cmpgt_epi8(a, b)) + _mm256_testc_si256(a, b));
    hash.put(_mm256_unpackhi_epi16(_mm256_slli_si256(a, 3), _mm256_srli_epi16(b, 3)));
  }
  hash.print("avx2");
}

void gathers() {
  Random random(32);
  Hash hash;
  alignas(32) int table[512];
  for (int& x : table) x = static_cast<int>(random.next());
  alignas(32) int out[8];
  for (int n = 0; n < kRounds; ++n) {
    const auto mask = random.bits<__m256i>();
    const __m256i index = _mm256_and_si256(random.bits<__m256i>(), _mm256_set1_epi32(255));
    const __m256i wide = _mm256_and_si256(random.bits<__m256i>(), _mm256_set1_epi64x(127));
    hash.put(_mm256_mask_i32gather_epi32(mask, table, index, mask, 4));
    hash.put(_mm256_i64gather_epi64(reinterpret_cast<const long long*>(table), wide, 8));
    hash.put(_mm256_mask_i32gather_pd(_mm256_setzero_pd(), reinterpret_cast<const double*>(table),
                                      _mm256_castsi256_si128(index), _mm256_castsi256_pd(mask), 4));
    hash.put(_mm256_i64gather_ps(reinterpret_cast<const float*>(table), wide, 4));
    std::memset(out, n, sizeof out);
    _mm256_maskstore_epi32(out, mask, index);
    hash.put(out);
    hash.put(_mm256_maskload_pd(reinterpret_cast<const double*>(table + (n & 255)), mask));
  }
  hash.print("avx2-gather-mask");
}
}  // namespace

void avx() {
  floating_avx();
  integer_avx2();
  gathers();
}

}  // namespace extensions
