#include <algorithm>
#include <csignal>
#include <cstdlib>
#include <immintrin.h>
#include <sched.h>
#include <string>
#include <sys/wait.h>
#include <unistd.h>

#include "extensions.hpp"

namespace extensions {

// The C library picks its string functions by CPUID.
void library() {
  Random random(50);
  Hash hash;
  static char text[8192];
  static char copy[8192 + 64];
  for (int n = 0; n < 300; ++n) {
    const std::size_t length = random.next() % 4000;
    for (std::size_t i = 0; i < length; ++i) text[i] = static_cast<char>('a' + random.next() % 26);
    text[length] = 0;
    const std::size_t at = random.next() % 64;
    std::memcpy(copy + at, text, length + 1);
    hash.put(std::strlen(copy + at));
    hash.put(std::memcmp(copy + at, text, length) == 0);
    const char* found = std::strchr(text, 'q');
    hash.put(found == nullptr ? -1 : found - text);
    found = std::strrchr(copy + at, 'x');
    hash.put(found == nullptr ? -1 : found - copy);
    found = std::strstr(text, "abc");
    hash.put(found == nullptr ? -1 : found - text);
    std::memmove(copy + at + 1, copy + at, length);
    std::memset(copy, n, at);
    hash.put_bytes(copy, length + at);
    hash.put(std::strcmp(copy + at, text) > 0);
    std::sort(text, text + length);
    hash.put_bytes(text, length);
    char number[64];
    std::snprintf(number, sizeof number, "%.17g %a %.3f", random.number(), random.number(), random.number());
    hash.put_bytes(number, std::strlen(number));
    hash.put(std::strtod(number, nullptr));
  }
  hash.print("library");
}

namespace {

void spoil(int /*signal*/) {
  asm volatile(
      "vpcmpeqb %%ymm0, %%ymm0, %%ymm0\n\tvpcmpeqb %%ymm5, %%ymm5, %%ymm5\n\tvpcmpeqb %%ymm15, %%ymm15, "
      "%%ymm15\n\tfldpi"
      "\n\tfldpi\n\tfstp %%st(0)\n\tfstp %%st(0)"
      :
      :
      : "xmm0", "xmm5", "xmm15");
}

// Vector and x87 registers hold values over a system call, in which signals arrive and other processes run.
std::uint64_t held(std::uint64_t seed, int rounds) {
  Random random(seed);
  Hash hash;
  std::uint64_t mismatches = 0;
  for (int n = 0; n < rounds; ++n) {
    const auto a = random.bits<__m256i>();
    const auto b = random.bits<__m256i>();
    const double x = random.number();
    __m256i kept_a;
    __m256i kept_b;
    double kept_x = 0;
    long number = n % 3 == 0 ? 39 : 24;  // getpid, sched_yield
    asm volatile(
        "vmovdqu %[a], %%ymm5\n\tvmovdqu %[b], %%ymm15\n\tfldl %[x]\n\tsyscall\n\tvmovdqu %%ymm5, %[ka]\n\t"
        "vmovdqu %%ymm15, %[kb]\n\tfstpl %[kx]"
        : [ka] "=m"(kept_a), [kb] "=m"(kept_b), [kx] "=m"(kept_x), "+a"(number)
        : [a] "m"(a), [b] "m"(b), [x] "m"(x)
        : "rcx", "r11", "memory", "xmm5", "xmm15", "st");
    if (n % 5 == 0) std::raise(SIGUSR1);
    mismatches += std::memcmp(&a, &kept_a, sizeof a) != 0 || std::memcmp(&b, &kept_b, sizeof b) != 0 ||
                  std::memcmp(&x, &kept_x, sizeof x) != 0;
  }
  return mismatches;
}

}  // namespace

void switches() {
  std::signal(SIGUSR1, spoil);
  const pid_t child = fork();
  const std::uint64_t wrong = held(child == 0 ? 60 : 61, 2000);
  if (child == 0) _exit(wrong == 0 ? 0 : 1);
  int status = -1;
  waitpid(child, &status, 0);
  std::printf("extensions: switches %s\n", wrong == 0 && status == 0 ? "ok" : "WRONG");
}

}  // namespace extensions
