#include "vmm/end/thread_filter.hpp"

#include <cerrno>
#include <linux/seccomp.h>
#include <malloc.h>
#include <seccomp.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <termios.h>
#include <unistd.h>

#include "base/error.hpp"
#include "base/unique_fd.hpp"
#include "kvm/abi.hpp"

namespace sevisor::vmm {

namespace {

constexpr const char* kAdvice = "Use --seccomp off on a kernel without filters.";

[[noreturn]] void refuse(const char* tried, int error_number) {
  throw Error(ExitCode::kBadUsage, tried, errno_text(error_number), kAdvice);
}

class Filter {
 public:
  Filter() : context_(::seccomp_init(SCMP_ACT_KILL_PROCESS)) {
    if (context_ == nullptr) refuse("make a seccomp filter", ENOMEM);
  }
  ~Filter() { ::seccomp_release(context_); }
  Filter(const Filter&) = delete;
  Filter& operator=(const Filter&) = delete;

  void allow(int call) { check(::seccomp_rule_add(context_, SCMP_ACT_ALLOW, call, 0)); }
  // With this value of the argument `index`, 32 bits of which count.
  void allow(int call, unsigned index, std::uint64_t value) {
    const scmp_arg_cmp compare{index, SCMP_CMP_MASKED_EQ, 0xffffffff, value};
    check(::seccomp_rule_add_array(context_, SCMP_ACT_ALLOW, call, 1, &compare));
  }
  [[nodiscard]] std::vector<sock_filter> program() const;

 private:
  static void check(int result) {
    if (result < 0) refuse("add to a seccomp filter", -result);
  }
  scmp_filter_ctx context_;
};

std::vector<sock_filter> Filter::program() const {
  const UniqueFd file(::memfd_create("seccomp", MFD_CLOEXEC));
  if (!file) refuse("make a seccomp filter", errno);
  check(::seccomp_export_bpf(context_, file.get()));
  const off_t size = ::lseek(file.get(), 0, SEEK_END);
  std::vector<sock_filter> program(static_cast<std::size_t>(size) / sizeof(sock_filter));
  if (::pread(file.get(), program.data(), program.size() * sizeof(sock_filter), 0) != size) {
    refuse("make a seccomp filter", errno);
  }
  return program;
}

constexpr int kMaxArenas = 8;

constexpr int kCalls[] = {
    // Memory: the allocator's, the emulated host's caches of code and pages.
    SCMP_SYS(brk),
    SCMP_SYS(mmap),
    SCMP_SYS(munmap),
    SCMP_SYS(mremap),
    SCMP_SYS(mprotect),
    SCMP_SYS(madvise),
    // Locks and waiting.
    SCMP_SYS(futex),
    SCMP_SYS(poll),
    SCMP_SYS(ppoll),
    SCMP_SYS(sched_yield),
    SCMP_SYS(sched_getaffinity),
    SCMP_SYS(restart_syscall),
    SCMP_SYS(nanosleep),
    SCMP_SYS(clock_nanosleep),
    SCMP_SYS(clock_gettime),
    SCMP_SYS(clock_getres),
    SCMP_SYS(gettimeofday),
    // What is open: console, event descriptors, records and traces.
    SCMP_SYS(read),
    SCMP_SYS(write),
    SCMP_SYS(writev),
    SCMP_SYS(pread64),
    SCMP_SYS(pwrite64),
    SCMP_SYS(lseek),
    SCMP_SYS(fstat),
    SCMP_SYS(newfstatat),
    SCMP_SYS(close),
    // Signals: the kick, the handler of faults, abort().
    SCMP_SYS(rt_sigreturn),
    SCMP_SYS(rt_sigaction),
    SCMP_SYS(rt_sigprocmask),
    SCMP_SYS(rt_sigpending),
    SCMP_SYS(rt_sigtimedwait),
    SCMP_SYS(sigaltstack),
    SCMP_SYS(tgkill),
    SCMP_SYS(getpid),
    SCMP_SYS(gettid),
    // A thread's beginning and end.
    SCMP_SYS(rseq),
    SCMP_SYS(set_robust_list),
    SCMP_SYS(getrandom),
    SCMP_SYS(exit),
    SCMP_SYS(exit_group),
};

constexpr unsigned long kIoctls[] = {
    KVM_RUN,    KVM_IRQ_LINE, KVM_SIGNAL_MSI, KVM_SET_GSI_ROUTING, KVM_GET_CLOCK,
    TCGETS,  // isatty()
    TCSETS,  // the handler of faults puts the terminal back
    TIOCGWINSZ, TIOCGPGRP,
};

}  // namespace

ThreadFilter ThreadFilter::for_guest_threads(bool emulated) {
  // glibc's allocator asks /sys how many CPUs there are when it makes the ninth arena, unless their number is given: a
  // thread that may not open files would be killed for it.
  if (::mallopt(M_ARENA_MAX, kMaxArenas) != 1) refuse("limit the allocator's arenas (mallopt)", EINVAL);
  Filter filter;
  for (const int call : kCalls) filter.allow(call);
  for (const unsigned long request : kIoctls) filter.allow(SCMP_SYS(ioctl), 1, request);
  filter.allow(SCMP_SYS(prctl), 0, PR_SET_NAME);
  if (emulated) {
    // It copies arguments of its callers so, for EFAULT instead of a fault: of this process's memory alone.
    const auto self = static_cast<std::uint64_t>(::getpid());
    filter.allow(SCMP_SYS(process_vm_readv), 0, self);
    filter.allow(SCMP_SYS(process_vm_writev), 0, self);
    // The processor's stubs are written through one mapping and run in another.
    filter.allow(SCMP_SYS(memfd_create));
    filter.allow(SCMP_SYS(ftruncate));
  }
  ThreadFilter result;
  result.program_ = filter.program();
  return result;
}

void ThreadFilter::confine_this_thread() const {
  if (program_.empty()) return;
  if (::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) refuse("give up new privileges (PR_SET_NO_NEW_PRIVS)", errno);
  sock_fprog program{static_cast<unsigned short>(program_.size()), const_cast<sock_filter*>(program_.data())};
  if (::syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program) != 0) refuse("install a seccomp filter", errno);
}

}  // namespace sevisor::vmm
