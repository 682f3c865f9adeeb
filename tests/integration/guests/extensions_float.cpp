#include <cfenv>
#include <cmath>
#include <csetjmp>
#include <csignal>
#include <vector>

#include "extensions.hpp"

namespace extensions {

namespace {

void put(Hash& hash, long double value) { hash.put_bytes(&value, 10); }

// What IEEE 754 defines: the same on every processor.
void x87() {
  Random random(40);
  Hash hash;
  for (int n = 0; n < 2000; ++n) {
    volatile long double a = static_cast<long double>(random.number()) / 3;
    volatile long double b = static_cast<long double>(random.number()) / 7;
    put(hash, a + b);
    put(hash, a * b - b);
    put(hash, b == 0 ? 0 : a / b);
    put(hash, std::sqrt(std::fabs(a)));
    put(hash, std::rint(a) + std::trunc(b));
    put(hash, std::fmod(a, b == 0 ? 1 : b));
    put(hash, std::ldexp(a, n % 40));
    hash.put(static_cast<long long>(std::fmod(a, 1e9L)) + (a < b) + (std::isnan(a * 0 / b) ? 1 : 0));
    hash.put(static_cast<double>(a));
    hash.put(static_cast<float>(b));
  }
  char text[64];
  std::snprintf(text, sizeof text, "%.20Lg %La", 1.0L / 3, 2.0L / 3);
  hash.put_bytes(text, std::strlen(text));
  hash.print("x87");
}

void rounding() {
  Random random(41);
  Hash hash;
  for (const int mode : {FE_TONEAREST, FE_UPWARD, FE_DOWNWARD, FE_TOWARDZERO}) {
    std::fesetround(mode);
    std::feclearexcept(FE_ALL_EXCEPT);
    for (int n = 0; n < 500; ++n) {
      volatile double a = random.number();
      volatile double b = random.number();
      volatile float c = static_cast<float>(a);
      volatile long double d = a;
      hash.put(a * b);
      hash.put(c / 3);
      hash.put(std::nearbyint(a / 10));
      put(hash, d / 3);
      hash.put(std::lrint(std::fmod(b, 1e6)));
      hash.put(std::fetestexcept(FE_ALL_EXCEPT));
      if (n % 50 == 0) std::feclearexcept(FE_ALL_EXCEPT);
    }
  }
  std::fesetround(FE_TONEAREST);
  std::feclearexcept(FE_ALL_EXCEPT);
  hash.print("rounding");
}

sigjmp_buf again;
volatile std::sig_atomic_t code = 0;
void on_trap(int /*signal*/, siginfo_t* info, void* /*context*/) {
  code = info->si_code;
  siglongjmp(again, 1);
}

template <class T>
void divide(T a, T b) {
  volatile T x = a;
  volatile T y = b;
  x = x / y;
  x = x + y;  // an x87 exception waits for the next instruction
}
template <class T>
void multiply(T a, T b) {
  volatile T x = a;
  volatile T y = b;
  x = x * y;
}

// Unmasked exceptions: the signal's code says which.
template <class F>
void trap(Hash& hash, int exception, F f) {
  struct sigaction action {};
  action.sa_sigaction = on_trap;
  action.sa_flags = SA_SIGINFO;
  sigaction(SIGFPE, &action, nullptr);
  code = -1;
  if (sigsetjmp(again, 1) == 0) {
    feenableexcept(exception);
    f();
  }
  fedisableexcept(FE_ALL_EXCEPT);
  std::feclearexcept(FE_ALL_EXCEPT);
  hash.put(static_cast<int>(code));
}

void traps() {
  Hash hash;
  const double huge = 1e308;
  const double tiny = 1e-308;
  trap(hash, FE_DIVBYZERO, [] { divide(1.0, 0.0); });
  trap(hash, FE_DIVBYZERO, [] { divide(1.0F, 0.0F); });
  trap(hash, FE_DIVBYZERO, [] { divide(1.0L, 0.0L); });
  trap(hash, FE_INVALID, [] { divide(0.0, 0.0); });
  trap(hash, FE_INVALID, [] { divide(0.0L, 0.0L); });
  trap(hash, FE_OVERFLOW, [=] { multiply(huge, huge); });
  trap(hash, FE_UNDERFLOW, [=] { multiply(tiny, tiny); });
  trap(hash, FE_INEXACT, [] { divide(1.0, 3.0); });
  trap(hash, FE_OVERFLOW, [] { divide(1.0, 0.0); });  // masked: nothing happens
  hash.print("traps");
}

void loops() {
  Random random(42);
  Hash hash;
  constexpr int kSize = 64;
  std::vector<double> a(kSize * kSize);
  std::vector<double> b(kSize * kSize);
  std::vector<double> c(kSize * kSize);
  for (double& x : a) x = static_cast<double>(random.next() >> 40);
  for (double& x : b) x = static_cast<double>(random.next() >> 40);
  for (int i = 0; i < kSize; ++i) {
    for (int k = 0; k < kSize; ++k) {
      for (int j = 0; j < kSize; ++j) c[i * kSize + j] += a[i * kSize + k] * b[k * kSize + j];
    }
  }
  hash.put_bytes(c.data(), c.size() * sizeof(double));
  std::vector<std::uint32_t> words(10000);
  for (std::uint32_t& w : words) w = static_cast<std::uint32_t>(random.next());
  std::uint32_t sum = 0;
  std::uint16_t least = 0xffff;
  for (const std::uint32_t w : words) sum += w * 2654435761U >> (w & 15);
  for (const std::uint32_t w : words) least = std::min(least, static_cast<std::uint16_t>(w));
  hash.put(sum);
  hash.put(least);
  hash.print("loops");
}

}  // namespace

void floating() {
  x87();
  rounding();
  traps();
  loops();
}

}  // namespace extensions
