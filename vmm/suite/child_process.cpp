#include "vmm/suite/child_process.hpp"

#include <cerrno>
#include <csignal>
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/error.hpp"

namespace sevisor::suite {

namespace {

constexpr int kCannotExecute = 127;  // as shells have it

[[noreturn]] void refuse(const char* tried) {
  throw Error(ExitCode::kBadUsage, fmt::format("start a case: {}", tried), errno_text(errno),
              "Lower --jobs, or raise ulimit -n and ulimit -u.");
}

struct Pipe {
  UniqueFd from;
  UniqueFd to;
};

Pipe make_pipe() {
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) refuse("make a pipe");
  return {UniqueFd(ends[0]), UniqueFd(ends[1])};
}

void make_non_blocking(const UniqueFd& fd) { ::fcntl(fd.get(), F_SETFL, ::fcntl(fd.get(), F_GETFL) | O_NONBLOCK); }

}  // namespace

ChildProcess::ChildProcess(const std::vector<std::string>& arguments) {
  std::vector<char*> argv;
  argv.reserve(arguments.size() + 1);
  for (const std::string& argument : arguments) argv.push_back(const_cast<char*>(argument.c_str()));
  argv.push_back(nullptr);
  Pipe input = make_pipe();
  Pipe output = make_pipe();
  Pipe errors = make_pipe();
  const pid_t parent = ::getpid();
  pid_ = ::fork();
  if (pid_ < 0) refuse("make a process");
  if (pid_ == 0) {  // only what is safe after a fork of a program with threads
    ::setpgid(0, 0);
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    sigset_t none;
    ::sigemptyset(&none);
    ::sigprocmask(SIG_SETMASK, &none, nullptr);
    (void)::signal(SIGPIPE, SIG_DFL);
    const bool ready = ::getppid() == parent && ::dup2(input.from.get(), STDIN_FILENO) >= 0 &&
                       ::dup2(output.to.get(), STDOUT_FILENO) >= 0 && ::dup2(errors.to.get(), STDERR_FILENO) >= 0;
    if (ready) ::execv(argv[0], argv.data());
    ::_exit(kCannotExecute);
  }
  pid_fd_ = UniqueFd(static_cast<int>(::syscall(SYS_pidfd_open, pid_, 0)));
  input_ = std::move(input.to);
  output_ = std::move(output.from);
  errors_ = std::move(errors.from);
  for (const UniqueFd* fd : {&input_, &output_, &errors_}) make_non_blocking(*fd);
  if (!pid_fd_) {
    const int error_number = errno;
    signal(SIGKILL);
    (void)wait();
    errno = error_number;
    refuse("watch a process");
  }
}

ChildProcess::~ChildProcess() {
  if (pid_ < 0) return;
  signal(SIGKILL);
  (void)wait();
}

void ChildProcess::signal(int number) const noexcept {
  if (pid_ > 0) ::kill(pid_, number);
}

int ChildProcess::wait() noexcept {
  int status = 0;
  while (::waitpid(pid_, &status, 0) < 0 && errno == EINTR) {
  }
  pid_ = -1;
  return WIFSIGNALED(status) ? kSignalExitBase + WTERMSIG(status) : WEXITSTATUS(status);
}

}  // namespace sevisor::suite
