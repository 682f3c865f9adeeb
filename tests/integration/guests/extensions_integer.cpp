#include <immintrin.h>

#include "extensions.hpp"

namespace extensions {

namespace {
constexpr int kRounds = 2000;

void bits() {
  Random random(1);
  Hash hash;
  for (int n = 0; n < kRounds; ++n) {
    const std::uint64_t a = random.next();
    const std::uint64_t b = random.next() >> (n & 63);
    const auto narrow = static_cast<std::uint32_t>(a);
    hash.put(_tzcnt_u64(b) + _lzcnt_u64(b) + static_cast<std::uint64_t>(__builtin_popcountll(a)));
    hash.put(_tzcnt_u32(narrow) + _lzcnt_u32(narrow) + static_cast<unsigned>(__builtin_popcount(narrow)));
    hash.put(_andn_u64(a, b));
    hash.put(_bextr_u64(a, static_cast<unsigned>(b & 63), static_cast<unsigned>(b >> 8 & 63)));
    hash.put(_blsi_u64(a) ^ _blsmsk_u64(b) ^ _blsr_u64(a));
    hash.put(_pdep_u64(a, b) ^ _pext_u64(a, b));
    hash.put(_bzhi_u64(a, static_cast<unsigned>(b & 63)));
    hash.put(a << (b & 63) | a >> (n & 63));
    hash.put(static_cast<std::int64_t>(a) >> (b & 63));
  }
  hash.print("bmi");
}

void carries() {
  Random random(2);
  Hash hash;
  unsigned char carry = 0;
  unsigned char overflow = 0;
  unsigned long long low = 0;
  unsigned long long high = 0;
  for (int n = 0; n < kRounds; ++n) {
    carry = _addcarryx_u64(carry, random.next(), low, &low);
    overflow = _addcarryx_u64(overflow, random.next(), high, &high);
    unsigned long long upper = 0;
    hash.put(_mulx_u64(low, high, &upper));
    hash.put(upper);
    hash.put(carry);
    hash.put(overflow);
    carry = _subborrow_u64(carry, low, upper, &low);
  }
  hash.print("adx");
}

void bytes() {
  Random random(3);
  Hash hash;
  std::uint64_t memory[4] = {};
  std::uint64_t crc = 0;
  std::uint32_t crc32 = 0;
  for (int n = 0; n < kRounds; ++n) {
    memory[n & 3] = random.next();
    std::uint64_t loaded = 0;
    std::memcpy(&loaded, reinterpret_cast<const char*>(memory) + (n % 24), sizeof loaded);
    hash.put(__builtin_bswap64(loaded) + __builtin_bswap32(static_cast<std::uint32_t>(loaded)));
    crc = _mm_crc32_u64(crc, loaded);
    crc32 =
        _mm_crc32_u32(_mm_crc32_u16(_mm_crc32_u8(crc32, static_cast<unsigned char>(n)), static_cast<unsigned short>(n)),
                      static_cast<unsigned>(crc));
    hash.put(crc);
    hash.put(crc32);
  }
  hash.print("movbe-crc32");
}
}  // namespace

void integers() {
  bits();
  carries();
  bytes();
}

}  // namespace extensions
