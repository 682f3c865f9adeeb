#include <immintrin.h>

#include "extensions.hpp"

namespace extensions {

namespace {
constexpr int kRounds = 1000;

__m128 singles(Random& r) {
  return _mm_set_ps(static_cast<float>(r.number()), static_cast<float>(r.number()), static_cast<float>(r.number()),
                    static_cast<float>(r.number()));
}
__m128d doubles(Random& r) { return _mm_set_pd(r.number(), r.number()); }

void arithmetic() {
  Random random(10);
  Hash hash;
  for (int n = 0; n < kRounds; ++n) {
    const __m128 a = singles(random);
    const __m128 b = singles(random);
    const __m128d c = doubles(random);
    const __m128d d = doubles(random);
    hash.put(_mm_add_ps(_mm_mul_ps(a, b), _mm_sub_ps(a, b)));
    hash.put(_mm_div_ps(a, b));
    hash.put(_mm_sqrt_ps(b));
    hash.put(_mm_min_ps(_mm_max_ps(a, b), b));
    hash.put(_mm_cmple_ps(a, b));
    hash.put(_mm_add_pd(_mm_mul_pd(c, d), _mm_sub_pd(c, d)));
    hash.put(_mm_div_pd(c, d));
    hash.put(_mm_sqrt_pd(_mm_max_pd(c, d)));
    hash.put(_mm_cmpunord_pd(c, d));
    hash.put(_mm_addsub_ps(_mm_hadd_ps(a, b), _mm_hsub_ps(b, a)));
    hash.put(_mm_addsub_pd(_mm_hadd_pd(c, d), _mm_movedup_pd(d)));
    hash.put(_mm_cvtpd_ps(c));
    hash.put(_mm_cvtps_pd(a));
    hash.put(_mm_cvtps_epi32(a));
    hash.put(_mm_cvttpd_epi32(c));
    hash.put(_mm_cvtepi32_ps(_mm_castps_si128(b)));
    hash.put(_mm_cvtsd_si64(c) + _mm_cvttss_si32(a) + _mm_comilt_sd(c, d) + _mm_ucomieq_ss(a, b));
    hash.put(_mm_cvtsi64_sd(c, n * 1000003LL));
    hash.put(_mm_unpackhi_ps(_mm_shuffle_ps(a, b, 0x4e), _mm_movehl_ps(a, b)));
    hash.put(_mm_movemask_ps(a) + _mm_movemask_pd(c));
  }
  hash.print("sse-floating");
}

void whole_numbers() {
  Random random(11);
  Hash hash;
  for (int n = 0; n < kRounds; ++n) {
    const auto a = random.bits<__m128i>();
    const auto b = random.bits<__m128i>();
    const __m128i count = _mm_cvtsi32_si128(n & 31);
    hash.put(_mm_add_epi8(_mm_adds_epi16(a, b), _mm_subs_epu8(a, b)));
    hash.put(_mm_sub_epi64(_mm_mul_epu32(a, b), _mm_madd_epi16(a, b)));
    hash.put(_mm_xor_si128(_mm_mulhi_epi16(a, b), _mm_mulhi_epu16(a, b)));
    hash.put(_mm_sad_epu8(_mm_avg_epu8(a, b), b));
    hash.put(_mm_packus_epi16(_mm_sra_epi16(a, count), _mm_srl_epi32(b, count)));
    hash.put(_mm_unpacklo_epi8(_mm_sll_epi64(a, count), _mm_slli_si128(b, 5)));
    hash.put(_mm_shufflehi_epi16(_mm_shuffle_epi32(a, 0x1b), 0x2d));
    hash.put(_mm_movemask_epi8(_mm_cmpgt_epi8(a, b)));
    // SSSE3
    hash.put(_mm_shuffle_epi8(a, _mm_abs_epi8(b)));
    hash.put(_mm_alignr_epi8(a, b, 7));
    hash.put(_mm_hadds_epi16(_mm_hadd_epi32(a, b), _mm_sign_epi16(a, b)));
    hash.put(_mm_maddubs_epi16(a, _mm_mulhrs_epi16(a, b)));
    // SSE4.1
    hash.put(_mm_blendv_epi8(a, b, _mm_cmpeq_epi64(_mm_blend_epi16(a, b, 0x5a), a)));
    hash.put(_mm_mpsadbw_epu8(a, b, 5));
    hash.put(_mm_minpos_epu16(_mm_mullo_epi32(a, b)));
    hash.put(_mm_min_epi8(_mm_max_epu32(a, b), _mm_cvtepu8_epi16(b)));
    hash.put(_mm_insert_epi64(_mm_packus_epi32(a, b), n, 1));
    hash.put(_mm_extract_epi32(a, 3) + _mm_extract_epi8(b, 9) + _mm_testz_si128(a, b) + _mm_testc_si128(a, a));
    hash.put(_mm_dp_ps(_mm_cvtepi32_ps(a), _mm_cvtepi32_ps(b), 0x7b));
    hash.put(
        _mm_round_ps(_mm_mul_ps(_mm_cvtepi32_ps(a), _mm_set1_ps(1e-7F)), _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC));
    // SSE4.2
    hash.put(_mm_cmpgt_epi64(a, b));
  }
  hash.print("sse-integer");
}

void strings() {
  Random random(12);
  Hash hash;
  for (int n = 0; n < kRounds; ++n) {
    auto text = random.bits<__m128i>();
    auto set = random.bits<__m128i>();
    text = _mm_and_si128(text, _mm_set1_epi8(0x17));
    set = _mm_and_si128(set, _mm_set1_epi8(0x17));
    hash.put(_mm_cmpistri(set, text, 0x00));
    hash.put(_mm_cmpistri(set, text, 0x0c));
    hash.put(_mm_cmpestri(set, n % 17, text, n % 13, 0x44));
    hash.put(_mm_cmpistrm(set, text, 0x48));
    hash.put(_mm_cmpestrm(set, n % 5, text, n % 11, 0x19));
    hash.put(_mm_cmpistrc(set, text, 0x08) + 2 * _mm_cmpistrs(set, text, 0x08) + 4 * _mm_cmpistrz(set, text, 0x08));
  }
  hash.print("sse-strings");
}

void mmx() {
  Random random(13);
  Hash hash;
  for (int n = 0; n < kRounds; ++n) {
    const auto a = random.bits<__m64>();
    const auto b = random.bits<__m64>();
    hash.put(_mm_adds_pi16(_mm_mullo_pi16(a, b), _mm_unpackhi_pi8(a, b)));
    hash.put(_mm_sad_pu8(_mm_avg_pu8(a, b), _mm_shuffle_pi16(b, 0x93)));
    hash.put(_mm_shuffle_pi8(a, b));
    hash.put(_mm_cvttps_pi32(_mm_cvtpi32_ps(_mm_setzero_ps(), a)));
    hash.put(_mm_movemask_pi8(_mm_cmpgt_pi8(a, b)));
  }
  _mm_empty();
  hash.print("mmx");
}
}  // namespace

void sse() {
  arithmetic();
  whole_numbers();
  strings();
  mmx();
}

}  // namespace extensions
