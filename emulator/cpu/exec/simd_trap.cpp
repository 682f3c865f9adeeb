#include "emulator/cpu/exec/simd_trap.hpp"

#include <csignal>
#include <emmintrin.h>
#include <mutex>
#include <pthread.h>
#include <ucontext.h>

#include "emulator/cpu/exec/vector.hpp"

namespace sevisor::emulator {

namespace {

struct Trap {
  bool expected = false;
  bool happened = false;
  std::uint32_t mxcsr = 0;
};
thread_local Trap trap;

// Leaves the stub as its RET would: a stub has nothing on the stack when its instruction runs.
void on_trap(int signal, siginfo_t* /*info*/, void* context) {
  if (!trap.expected) {  // somebody else's error: let it happen again, without us
    static_cast<void>(::signal(signal, SIG_DFL));
    return;
  }
  auto* state = static_cast<ucontext_t*>(context);
  greg_t* registers = state->uc_mcontext.gregs;
  trap = Trap{.expected = false, .happened = true, .mxcsr = state->uc_mcontext.fpregs->mxcsr};
  state->uc_mcontext.fpregs->mxcsr = kMxcsrReset;
  registers[REG_RIP] = load<greg_t>(reinterpret_cast<const void*>(registers[REG_RSP]));
  registers[REG_RSP] += 8;
}

class CatchSigfpe {
 public:
  CatchSigfpe() {
    struct sigaction action {};
    action.sa_sigaction = on_trap;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK;
    ::sigaction(SIGFPE, &action, &previous_action_);
    sigset_t set;
    ::sigemptyset(&set);
    ::sigaddset(&set, SIGFPE);
    ::pthread_sigmask(SIG_UNBLOCK, &set, &previous_mask_);
  }
  ~CatchSigfpe() {
    ::pthread_sigmask(SIG_SETMASK, &previous_mask_, nullptr);
    ::sigaction(SIGFPE, &previous_action_, nullptr);
  }
  CatchSigfpe(const CatchSigfpe&) = delete;
  CatchSigfpe& operator=(const CatchSigfpe&) = delete;

 private:
  struct sigaction previous_action_ {};
  sigset_t previous_mask_{};
};

}  // namespace

std::optional<std::uint32_t> run_trapping(Core& core, const Op* op, std::byte* memory, std::uint32_t mxcsr) {
  static std::mutex one_at_a_time;  // the handler is the process's
  const std::lock_guard lock(one_at_a_time);
  const CatchSigfpe caught;
  trap = Trap{.expected = true};
  if ((op->aux & kStubMmx) != 0) borrow_x87(core.vec);
  _mm_setcsr(mxcsr);
  static_cast<void>(call_stub(core, op, memory));
  _mm_setcsr(kMxcsrReset);
  return_x87(core.vec);
  trap.expected = false;
  if (!trap.happened) return std::nullopt;
  return trap.mxcsr;
}

}  // namespace sevisor::emulator
