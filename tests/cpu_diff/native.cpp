#include "tests/cpu_diff/native.hpp"

#include <csignal>
#include <cstring>
#include <stdexcept>
#include <sys/mman.h>
#include <ucontext.h>

#include "base/bytes.hpp"

namespace sevisor::cpu_diff {

namespace {

// native_enter.S knows these offsets.
struct Frame {
  Registers regs;
  std::uint64_t host_rsp;
  std::uint64_t entry;
  struct __attribute__((packed)) {
    std::uint32_t offset;
    std::uint16_t selector;
  } far_entry;
  // Written by the stubs in the code page: 1 fell through, 2 went to kTaken.
  std::uint64_t path;
};
static_assert(offsetof(Frame, regs.rflags) == 128 && offsetof(Frame, regs.fx) == 144);
static_assert(offsetof(Frame, regs.ymm_high) == 656);
static_assert(offsetof(Frame, host_rsp) == 912 && offsetof(Frame, entry) == 920 && offsetof(Frame, far_entry) == 928);

}  // namespace

extern "C" {
Frame cpu_diff_frame;       // NOLINT: the assembly finds the registers here
std::uint8_t cpu_diff_ymm;  // NOLINT: and here whether to touch the YMM registers
void cpu_diff_enter();
void cpu_diff_enter_far();
void cpu_diff_done();
void cpu_diff_faulted();
}

namespace {

// Selectors that Linux gives every process (arch/x86/include/asm/segment.h): __USER32_CS, __USER_CS.
constexpr std::uint16_t kUserCs32 = 0x23;
constexpr std::uint16_t kUserCs64 = 0x33;

constexpr std::array kSignals = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP};
constexpr std::size_t kPage = 4096;
constexpr std::uint64_t kPathPage = kCode + kPage;  // writable
constexpr std::uint64_t kBack = kCode + 0x400;      // 64-bit: jumps to cpu_diff_done

std::array<struct sigaction, kSignals.size()> previous;  // NOLINT: signal state is the process's
std::vector<std::byte> alternate_stack;                  // NOLINT
stack_t previous_stack;                                  // NOLINT
volatile std::sig_atomic_t inside = 0;                   // NOLINT
volatile std::sig_atomic_t arrived = 0;                  // NOLINT: at a branch's target, which is not mapped
Machine* running = nullptr;                              // NOLINT

void on_signal(int signal, siginfo_t* info, void* context) {
  auto* uc = static_cast<ucontext_t*>(context);
  greg_t* g = uc->uc_mcontext.gregs;
  if (inside == 0) {
    static_cast<void>(::signal(signal, SIG_DFL));
    static_cast<void>(::raise(signal));
    return;
  }
  static_cast<void>(info);
  constexpr std::array kOrder = {REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI,
                                 REG_R8,  REG_R9,  REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15};
  for (std::size_t n = 0; n < kOrder.size(); ++n) {
    cpu_diff_frame.regs.gpr[n] = static_cast<std::uint64_t>(g[kOrder[n]]);
  }
  cpu_diff_frame.regs.rflags = static_cast<std::uint64_t>(g[REG_EFL]);
  constexpr std::uint64_t kResume = 1U << 16;  // set by the processor in what a fault saves
  cpu_diff_frame.regs.rflags &= ~kResume;
  running->exception = static_cast<int>(g[REG_TRAPNO]);
  running->error = static_cast<std::uint32_t>(g[REG_ERR]);
  constexpr int kPageFault = 14;
  running->cr2 = running->exception == kPageFault ? static_cast<std::uint64_t>(g[REG_CR2]) : 0;
  running->rip = static_cast<std::uint64_t>(g[REG_RIP]);
  // A branch to where nothing can run is complete: the fault is that of the instruction there.
  constexpr std::uint32_t kFetch = 0x10;
  if (running->exception == kPageFault && (running->error & kFetch) != 0 && running->rip != kCode) {
    running->exception = kNoException;
    running->error = 0;
    running->cr2 = 0;
    arrived = 1;
  }
  g[REG_RIP] = static_cast<greg_t>(reinterpret_cast<std::uintptr_t>(&cpu_diff_faulted));
  g[REG_RSP] = static_cast<greg_t>(cpu_diff_frame.host_rsp);
  g[REG_EFL] = 2;
  // A fault in 32-bit code is handled in 64-bit code, as all else here.
  g[REG_CSGSFS] = (g[REG_CSGSFS] & ~greg_t{0xffff}) | kUserCs64;
}

void map(std::uint64_t at, std::size_t size, int protection) {
  void* wanted = reinterpret_cast<void*>(at);  // NOLINT
  void* got = ::mmap(wanted, size, protection, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
  if (got != wanted) throw std::runtime_error("cannot map the pages of the differential tests");
}

class Writer {
 public:
  explicit Writer(std::uint64_t at) : at_(at) {}
  Writer& bytes(std::span<const std::uint8_t> b) {
    std::memcpy(reinterpret_cast<void*>(at_), b.data(), b.size());  // NOLINT
    at_ += b.size();
    return *this;
  }
  Writer& bytes(std::initializer_list<std::uint8_t> b) { return bytes(std::span(b.begin(), b.size())); }
  template <class T>
  Writer& value(T v) {
    store<T>(reinterpret_cast<void*>(at_), v);  // NOLINT
    at_ += sizeof(T);
    return *this;
  }
  [[nodiscard]] std::uint64_t at() const { return at_; }

 private:
  std::uint64_t at_;
};

// movb $path, kPathPage; jump to cpu_diff_done. Flags and registers stay.
void write_stub(Writer to, Mode mode, std::uint8_t path) {
  if (mode == Mode::k64) {
    to.bytes({0xc6, 0x05});  // movb $imm8, disp32(%rip)
    to.value<std::uint32_t>(static_cast<std::uint32_t>(kPathPage - (to.at() + 5))).bytes({path});
    to.bytes({0xff, 0x25}).value<std::uint32_t>(0);  // jmp *(%rip)
    to.value<std::uint64_t>(reinterpret_cast<std::uintptr_t>(&cpu_diff_done));
  } else {
    to.bytes({0xc6, 0x05}).value<std::uint32_t>(static_cast<std::uint32_t>(kPathPage)).bytes({path});  // absolute
    to.bytes({0xea}).value<std::uint32_t>(static_cast<std::uint32_t>(kBack)).value<std::uint16_t>(kUserCs64);  // ljmp
  }
}

}  // namespace

bool host_has_ymm() { return __builtin_cpu_supports("avx") != 0; }

Registers initial_registers() {
  Registers r;
  constexpr std::uint16_t kControlWord = 0x37f;
  store<std::uint16_t>(r.fx.data(), kControlWord);
  store<std::uint32_t>(r.fx.data() + kFxMxcsr, 0x1f80);
  return r;
}

Native::Native() {
  cpu_diff_ymm = host_has_ymm() ? 1 : 0;
  map(kCode, kPage, PROT_READ | PROT_WRITE | PROT_EXEC);
  map(kPathPage, kPage, PROT_READ | PROT_WRITE);
  map(kData - kPage, kDataSize + 2 * kPage, PROT_NONE);
  ::mprotect(reinterpret_cast<void*>(kData), kDataSize, PROT_READ | PROT_WRITE);  // NOLINT
  std::memset(reinterpret_cast<void*>(kCode), 0xcc, kPage);                       // NOLINT
  Writer(kBack)
      .bytes({0xff, 0x25})
      .value<std::uint32_t>(0)
      .value<std::uint64_t>(reinterpret_cast<std::uintptr_t>(&cpu_diff_done));
  constexpr std::size_t kStackSize = 65536;
  alternate_stack.resize(kStackSize);
  stack_t stack{};
  stack.ss_sp = alternate_stack.data();
  stack.ss_size = alternate_stack.size();
  ::sigaltstack(&stack, &previous_stack);
  struct sigaction action {};
  action.sa_sigaction = on_signal;
  action.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER;
  for (std::size_t n = 0; n < kSignals.size(); ++n) ::sigaction(kSignals[n], &action, &previous[n]);
}

Native::~Native() {
  for (std::size_t n = 0; n < kSignals.size(); ++n) ::sigaction(kSignals[n], &previous[n], nullptr);
  ::sigaltstack(&previous_stack, nullptr);
  ::munmap(reinterpret_cast<void*>(kCode), 2 * kPage);                      // NOLINT
  ::munmap(reinterpret_cast<void*>(kData - kPage), kDataSize + 2 * kPage);  // NOLINT
}

void Native::run(std::span<const std::uint8_t> instruction, Mode mode, Machine& machine) {
  Writer code(kCode);
  code.bytes(instruction);
  write_stub(code, mode, 1);
  write_stub(Writer(kTaken), mode, 2);
  std::memcpy(reinterpret_cast<void*>(kData), machine.data.data(), kDataSize);  // NOLINT
  *reinterpret_cast<volatile std::uint8_t*>(kPathPage) = 0;                     // NOLINT
  machine.exception = kNoException;
  machine.error = 0;
  machine.cr2 = 0;
  cpu_diff_frame.regs = machine.regs;
  cpu_diff_frame.entry = kCode;
  cpu_diff_frame.far_entry.offset = static_cast<std::uint32_t>(kCode);
  cpu_diff_frame.far_entry.selector = kUserCs32;
  running = &machine;
  arrived = 0;
  inside = 1;
  if (mode == Mode::k64) {
    cpu_diff_enter();
  } else {
    cpu_diff_enter_far();
  }
  inside = 0;
  machine.regs = cpu_diff_frame.regs;
  std::memcpy(machine.data.data(), reinterpret_cast<void*>(kData), kDataSize);  // NOLINT
  if (machine.exception == kNoException && arrived == 0) {
    const std::uint8_t path = *reinterpret_cast<volatile std::uint8_t*>(kPathPage);  // NOLINT
    machine.rip = path == 2 ? kTaken : kCode + instruction.size();
  }
}

}  // namespace sevisor::cpu_diff
