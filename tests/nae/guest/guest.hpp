// What the guest's programs share: checks, the GHCB by hand, what exceptions came.
#pragma once

#include <cstdint>
#include <initializer_list>

#include "ghcb/page.hpp"
#include "tests/nae/cases.hpp"
#include "tests/nae/layout.h"

namespace sevisor::nae {

inline volatile Result& result() { return *reinterpret_cast<volatile Result*>(NAE_RESULT); }
inline const volatile std::uint64_t* parameters() {
  return reinterpret_cast<const volatile std::uint64_t*>(NAE_PARAMETERS);
}

[[noreturn]] void finish(bool passed);
void check(std::uint64_t actual, std::uint64_t expected, int line);
#define CHECK_EQUAL(actual, expected) \
  ::sevisor::nae::check(static_cast<std::uint64_t>(actual), static_cast<std::uint64_t>(expected), __LINE__)

inline std::uint64_t read_msr(std::uint32_t index) {
  std::uint32_t low, high;
  asm volatile("rdmsr" : "=a"(low), "=d"(high) : "c"(index));
  return std::uint64_t{high} << 32 | low;
}
inline void write_msr(std::uint32_t index, std::uint64_t value) {
  asm volatile("wrmsr" : : "c"(index), "a"(static_cast<std::uint32_t>(value)), "d"(value >> 32) : "memory");
}
// Lets time pass: this many turns of a loop.
inline void linger(unsigned turns) {
  for (unsigned i = 0; i < turns; ++i) asm volatile("");
}
inline void vmgexit() { asm volatile(".byte 0xf3, 0x0f, 0x01, 0xd9" : : : "memory"); }

inline constexpr std::uint32_t kGhcbMsr = 0xc0010130;
// A request of the MSR protocol: what stands in the MSR afterwards.
inline std::uint64_t ask_msr(std::uint64_t request) {
  write_msr(kGhcbMsr, request);
  vmgexit();
  return read_msr(kGhcbMsr);
}

// This vCPU's GHCB.
ghcb::Page& page();
std::uint64_t page_address();

// A request written by hand. Only the fields named are marked valid, the exit code and both infos unless left out.
struct Raw {
  std::uint64_t code = 0, info_1 = 0, info_2 = 0;
  std::uint64_t rax = 0, rcx = 0, rdx = 0, scratch = 0, xcr0 = 0;
  std::uint8_t cpl = 0;
  std::uint32_t usage = 0;
  std::uint16_t version = 1;
};
void ask(const Raw& raw, std::initializer_list<ghcb::Field> fields, std::initializer_list<ghcb::Field> left_out = {});
// The last answer: exit_info_1 and 2.
void check_answer(std::uint64_t info_1, std::uint64_t info_2, int line);
#define CHECK_ANSWER(info_1, info_2) ::sevisor::nae::check_answer(info_1, info_2, __LINE__)

// Exceptions that reached the handler, #VC apart unless it was one to be passed on.
struct Seen {
  unsigned count = 0;   // of all
  unsigned vector = 0;  // the last one's
  std::uint64_t error = 0;
  std::uint64_t rip = 0;
  unsigned vcs = 0;           // #VC
  std::uint64_t vc_code = 0;  // the last one's error code
  unsigned nmis = 0;
  unsigned interrupts = 0;  // vector 0x21
};
extern Seen seen;
// Where the next exception goes on, once; 0: at the instruction that raised it.
extern std::uint64_t fixup;
// The next VMGEXIT of the #VC handler is preceded by another #VC, which spoils its request.
extern bool nest_once;

void set_up_exceptions();
extern "C" void run_user(void (*function)(), std::uint64_t rflags);
extern "C" [[noreturn]] void user_done();

void run_event_program(Program program, std::uint64_t vcpu);
void run_rule_program(Program program);
void run_orders();

}  // namespace sevisor::nae
