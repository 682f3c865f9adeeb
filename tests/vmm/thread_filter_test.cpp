#include "vmm/end/thread_filter.hpp"

#include <catch2/catch.hpp>
#include <csignal>
#include <fcntl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

using namespace sevisor::vmm;

namespace {

// How a process ends that confines itself and then does `what`: its exit code, or 128 + the signal.
template <class What>
int end_of(What what) {
  const ThreadFilter filter = ThreadFilter::for_guest_threads(false);
  const pid_t pid = ::fork();
  if (pid == 0) {
    filter.confine_this_thread();
    what();
    ::_exit(0);
  }
  int status = 0;
  ::waitpid(pid, &status, 0);
  return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

}  // namespace

TEST_CASE("a thread that serves a guest keeps what it needs and loses the rest") {
  CHECK(end_of([] {}) == 0);
  CHECK(end_of([] {
          timespec now{};
          ::clock_gettime(CLOCK_MONOTONIC, &now);
          if (::write(-1, "x", 1) != -1) ::_exit(1);
        }) == 0);
  CHECK(end_of([] { (void)::open("/dev/null", O_RDONLY); }) == 128 + SIGSYS);
  CHECK(end_of([] { (void)::socket(AF_INET, SOCK_STREAM, 0); }) == 128 + SIGSYS);
  CHECK(end_of([] { ::execl("/bin/true", "true", nullptr); }) == 128 + SIGSYS);
  CHECK(end_of([] { (void)::fork(); }) == 128 + SIGSYS);
  CHECK(end_of([] { ::kill(::getppid(), 0); }) == 128 + SIGSYS);
}

TEST_CASE("without a filter nothing changes") {
  const pid_t pid = ::fork();
  if (pid == 0) {
    ThreadFilter().confine_this_thread();
    ::_exit(::open("/dev/null", O_RDONLY) >= 0 ? 7 : 1);
  }
  int status = 0;
  ::waitpid(pid, &status, 0);
  CHECK(WEXITSTATUS(status) == 7);
}
