#include <ammintrin.h>
#include <cpuid.h>
#include <immintrin.h>
#include <initializer_list>
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "extensions.hpp"

namespace extensions {

namespace {

enum Register { kEax, kEbx, kEcx, kEdx };

std::uint32_t cpuid(std::uint32_t leaf, std::uint32_t subleaf, Register which) {
  std::uint32_t r[4] = {};
  return __get_cpuid_count(leaf, subleaf, &r[kEax], &r[kEbx], &r[kEcx], &r[kEdx]) != 0 ? r[which] : 0;
}

void print(const char* name, bool right) { std::printf("extensions: %s %s\n", name, right ? "ok" : "WRONG"); }

// FS is the C library's, GS nobody's.
void segment_bases() {
  std::uint64_t fs = 0;
  constexpr long kGetFs = 0x1003;
  bool right = syscall(SYS_arch_prctl, kGetFs, &fs) == 0 && _readfsbase_u64() == fs;
  _writefsbase_u64(fs);
  const std::uint64_t value = 0x123456789abc;
  const std::uint64_t before = _readgsbase_u64();
  _writegsbase_u64(value);
  sched_yield();
  right = right && _readgsbase_u64() == value;
  std::uint64_t loaded = 0;
  _writegsbase_u64(reinterpret_cast<std::uintptr_t>(&value) - 8);
  asm volatile("movq %%gs:8, %0" : "=r"(loaded));
  _writegsbase_u64(before);
  print("fsgsbase", right && loaded == value);
}

// Successes, and numbers that differ.
void random_numbers() {
  unsigned long long last = 0;
  int good = 0;
  constexpr int kRounds = 64;
  constexpr int kAttempts = 1000;
  for (int n = 0; n < kRounds; ++n) {
    unsigned long long value = 0;
    int done = 0;
    for (int attempt = 0; attempt < kAttempts && done == 0; ++attempt) {
      done = n % 2 == 0 ? _rdrand64_step(&value) : _rdseed64_step(&value);
    }
    if (done != 0 && value != last) ++good;
    last = value;
  }
  print("rdrand-rdseed", good == kRounds);
}

// Linux keeps the processor's number in TSC_AUX.
void processor_number() {
  bool right = false;
  constexpr int kAttempts = 100;  // this process may be moved in between
  for (int n = 0; n < kAttempts && !right; ++n) {
    unsigned cpu = 0;
    unsigned aux = 0;
    syscall(SYS_getcpu, &cpu, nullptr, nullptr);
    const std::uint64_t before = __rdtsc();
    const std::uint64_t after = __rdtscp(&aux);
    constexpr unsigned kNumber = 0xfff;
    right = (aux & kNumber) == cpu && (_rdpid_u32() & kNumber) == cpu && after >= before;
  }
  print("rdtscp-rdpid", right);
}

void exchanges() {
  Random random(70);
  Hash hash;
  alignas(16) unsigned __int128 wide = 0;
  std::uint64_t narrow = 0;
  for (int n = 0; n < 200; ++n) {
    auto expected = n % 2 == 0 ? wide : static_cast<unsigned __int128>(random.next());
    const auto value = static_cast<unsigned __int128>(random.next()) << 64 | random.next();
    bool equal = false;
    auto low = static_cast<std::uint64_t>(expected);
    auto high = static_cast<std::uint64_t>(expected >> 64);
    asm volatile("lock cmpxchg16b %[m]"
                 : [m] "+m"(wide), "+a"(low), "+d"(high), "=@ccz"(equal)
                 : "b"(static_cast<std::uint64_t>(value)), "c"(static_cast<std::uint64_t>(value >> 64)));
    hash.put(wide), hash.put(low), hash.put(high), hash.put(equal);
    auto low32 = static_cast<std::uint32_t>(n % 3 == 0 ? narrow : 1);
    auto high32 = static_cast<std::uint32_t>(narrow >> 32);
    asm volatile("lock cmpxchg8b %[m]"
                 : [m] "+m"(narrow), "+a"(low32), "+d"(high32), "=@ccz"(equal)
                 : "b"(static_cast<std::uint32_t>(value)), "c"(static_cast<std::uint32_t>(value >> 32)));
    hash.put(narrow), hash.put(low32), hash.put(high32), hash.put(equal);
    std::uint8_t flags = 0;
    asm volatile("movb %1, %%ah\n\tsahf\n\tlahf\n\tmovb %%ah, %0"
                 : "=Q"(flags)
                 : "Q"(static_cast<std::uint8_t>(value))
                 : "rax", "cc");
    hash.put(flags);
    const std::uint64_t chosen = narrow > low ? high : low;  // CMOV, as the compiler likes it
    hash.put(chosen);
  }
  hash.print("cmpxchg-lahf");
}

void cache_lines() {
  constexpr std::size_t kLine = 64;
  alignas(64) static unsigned char memory[16 * kLine];
  Random random(71);
  Hash hash;
  const bool clzero = (cpuid(0x80000008, 0, kEbx) & 1) != 0;
  for (int n = 0; n < 100; ++n) {
    for (unsigned char& byte : memory) byte = static_cast<unsigned char>(random.next());
    unsigned char* line = memory + random.next() % 16 * kLine + random.next() % kLine;
    _mm_clflush(line);
    _mm_clflushopt(line);
    _mm_clwb(line);
    _mm_prefetch(reinterpret_cast<const char*>(line), _MM_HINT_T0);
    __builtin_prefetch(line, 1);
    _mm_mfence();
    unsigned char* begin = memory + (line - memory) / kLine * kLine;
    if (clzero) {
      asm volatile("clzero" : : "a"(line) : "memory");
    } else {
      std::memset(begin, 0, kLine);
    }
    auto* to = memory + random.next() % 256;
    const auto* from = memory + 512 + random.next() % 256;
    std::size_t count = random.next() % 250;
    asm volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(count) : : "memory");
    hash.put(memory);
  }
  hash.print("clflush-clwb-clzero-movsb");
}

// SSE4A, and operands of any alignment with MXCSR.MM: AMD's processors alone. Elsewhere it is written out.
__m128i extract(__m128i value) { return _mm_extracti_si64(value, 13, 20); }
__m128i extract(__m128i value, __m128i how) { return _mm_extract_si64(value, how); }
__m128i insert(__m128i into, __m128i value) { return _mm_inserti_si64(into, value, 9, 31); }
void store_both(double* d, float* f, __m128d value) {
  _mm_stream_sd(d, value);
  _mm_stream_ss(f, _mm_castpd_ps(value));
  _mm_sfence();
}
void sse4a() {
  const bool there = (cpuid(0x80000001, 0, kEcx) >> 6 & 1) != 0;
  Random random(72);
  Hash hash;
  for (int n = 0; n < 500; ++n) {
    const std::uint64_t a = random.next();
    const std::uint64_t b = random.next();
    const std::uint64_t length = 1 + random.next() % 30;
    const std::uint64_t index = random.next() % 30;
    std::uint64_t results[3] = {a >> 20 & 0x1fff, a >> index & ((std::uint64_t{1} << length) - 1),
                                (a & ~(std::uint64_t{0x1ff} << 31)) | (b & 0x1ff) << 31};
    double d = 0;
    float f = 0;
    std::memcpy(&d, &a, sizeof d);
    std::memcpy(&f, &a, sizeof f);
    if (there) {
      const __m128i va = _mm_cvtsi64_si128(static_cast<long long>(a));
      const __m128i vb = _mm_cvtsi64_si128(static_cast<long long>(b));
      const __m128i how = _mm_cvtsi64_si128(static_cast<long long>(length | index << 8));
      results[0] = static_cast<std::uint64_t>(_mm_cvtsi128_si64(extract(va)));
      results[1] = static_cast<std::uint64_t>(_mm_cvtsi128_si64(extract(va, how)));
      results[2] = static_cast<std::uint64_t>(_mm_cvtsi128_si64(insert(va, vb)));
      store_both(&d, &f, _mm_castsi128_pd(va));
    }
    hash.put(results), hash.put(d), hash.put(f);
  }
  hash.print("sse4a");
}

void misaligned() {
  const bool there = (cpuid(0x80000001, 0, kEcx) >> 7 & 1) != 0;
  constexpr unsigned kMisaligned = 0x20000;
  const unsigned before = _mm_getcsr();
  if (there) _mm_setcsr(before | kMisaligned);
  Random random(73);
  Hash hash;
  alignas(16) unsigned char memory[64];
  for (int n = 0; n < 200; ++n) {
    for (unsigned char& byte : memory) byte = static_cast<unsigned char>(random.next());
    const unsigned char* at = memory + random.next() % 48;
    auto value = random.bits<__m128i>();
    if (there) {  // the encoding without VEX, whose operands are to be aligned
      asm volatile("paddd %1, %0" : "+x"(value) : "m"(*reinterpret_cast<const __m128i_u*>(at)));
    } else {
      value = _mm_add_epi32(value, _mm_loadu_si128(reinterpret_cast<const __m128i_u*>(at)));
    }
    hash.put(value);
  }
  _mm_setcsr(before);
  hash.print("misaligned");
}

// What each form saves, its opposite loads again.
enum class Saver { kFxsave, kXsave, kXsaveopt, kXsavec };
bool comes_back(Saver saver, Random& random) {
  struct alignas(64) Area {
    unsigned char bytes[2048];
  };
  static Area area;
  std::memset(area.bytes, 0, sizeof area.bytes);
  const auto a = random.bits<__m256i>();
  const double x = random.number();
  __m256i vector;
  double number = 0;
  constexpr std::uint32_t kMask = 7;
  asm volatile("vmovdqu %0, %%ymm9\n\tfldl %1" : : "m"(a), "m"(x) : "xmm9");
  switch (saver) {
    case Saver::kFxsave:
      asm volatile("fxsave64 %0" : "+m"(area));
      break;
    case Saver::kXsave:
      asm volatile("xsave64 %0" : "+m"(area) : "a"(kMask), "d"(0));
      break;
    case Saver::kXsaveopt:
      asm volatile("xsaveopt64 %0" : "+m"(area) : "a"(kMask), "d"(0));
      break;
    case Saver::kXsavec:
      asm volatile("xsavec64 %0" : "+m"(area) : "a"(kMask), "d"(0));
      break;
  }
  asm volatile("vpxor %%xmm9, %%xmm9, %%xmm9\n\tfstp %%st(0)\n\tfldpi" : : : "xmm9");
  if (saver == Saver::kFxsave) {
    asm volatile("fxrstor64 %0" : : "m"(area) : "xmm9");
  } else {
    asm volatile("xrstor64 %0" : : "m"(area), "a"(kMask), "d"(0) : "xmm9");
  }
  asm volatile("vmovdqu %%ymm9, %0\n\tfstpl %1" : "=m"(vector), "=m"(number));
  const std::size_t size = saver == Saver::kFxsave ? 16 : 32;  // FXSAVE knows no YMM registers
  return std::memcmp(&vector, &a, size) == 0 && std::memcmp(&number, &x, sizeof x) == 0;
}
void saved_state() {
  Random random(74);
  bool right = true;
  for (int n = 0; n < 50; ++n) {
    for (const Saver saver : {Saver::kFxsave, Saver::kXsave, Saver::kXsaveopt, Saver::kXsavec}) {
      right = comes_back(saver, random) && right;
    }
  }
  constexpr std::uint64_t kSseAndAvx = 6;
  right = right && (_xgetbv(0) & kSseAndAvx) == kSseAndAvx && (_xgetbv(1) & ~_xgetbv(0)) == 0;
  print("xsave", right);
}

template <class... Bits>
constexpr std::uint32_t bits(Bits... numbers) {
  return ((std::uint32_t{1} << numbers) | ...);
}

}  // namespace

void user_level() {
  segment_bases();
  random_numbers();
  processor_number();
  exchanges();
  cache_lines();
  sse4a();
  misaligned();
  saved_state();
}

bool everything_used() {
  struct Word {
    std::uint32_t leaf, subleaf;
    Register reg;
    std::uint32_t used;    // by this program
    std::uint32_t system;  // no instruction, or a privileged one
  };
  constexpr std::uint32_t kBasicUsed = bits(0, 4, 8, 15, 19, 23, 24, 25, 26);
  constexpr std::uint32_t kBasicSystem = bits(1, 2, 3, 5, 6, 7, 9, 11, 12, 13, 14, 16, 17, 28);
  constexpr Word kWords[] = {
      // SSE3 PCLMULQDQ SSSE3 FMA CMPXCHG16B SSE4.1 SSE4.2 MOVBE POPCNT AES XSAVE OSXSAVE AVX F16C RDRAND
      {1, 0, kEcx, bits(0, 1, 9, 12, 13, 19, 20, 22, 23, 25, 26, 27, 28, 29, 30), bits(3, 17, 21, 24, 31)},
      {1, 0, kEdx, kBasicUsed, kBasicSystem},
      // FSGSBASE BMI1 AVX2 BMI2 ERMS RDSEED ADX CLFLUSHOPT CLWB SHA; SMEP INVPCID SMAP
      {7, 0, kEbx, bits(0, 3, 5, 8, 9, 18, 19, 23, 24, 29), bits(7, 10, 20)},
      {7, 0, kEcx, bits(9, 10, 22), bits(2)},                         // VAES VPCLMULQDQ RDPID; UMIP
      {7, 0, kEdx, bits(4), 0},                                       // FSRM
      {0xd, 1, kEax, bits(0, 1, 2), bits(3)},                         // XSAVEOPT XSAVEC XGETBV; XSAVES
      {0x80000001, 0, kEcx, bits(0, 5, 6, 7, 8), bits(1, 4, 9, 22)},  // LAHF LZCNT SSE4A misaligned SSE, PREFETCHW
      {0x80000001, 0, kEdx, kBasicUsed | bits(22, 27), kBasicSystem | bits(11, 20, 25, 26, 29)},  // MMX, RDTSCP
      {0x80000008, 0, kEbx, bits(0), bits(2, 9, 12, 14, 15, 17, 24, 26, 28, 29)},                 // CLZERO
  };
  bool all = true;
  for (const Word& word : kWords) {
    const std::uint32_t left = cpuid(word.leaf, word.subleaf, word.reg) & ~(word.used | word.system);
    if (left == 0) continue;
    all = false;
    std::printf("unused: CPUID %#x.%u register %d has bits %#x\n", word.leaf, word.subleaf, word.reg, left);
  }
  return all;
}

}  // namespace extensions
