#include "vmm/end/end_wait.hpp"

#include <algorithm>
#include <array>
#include <catch2/catch.hpp>
#include <csignal>
#include <cstddef>
#include <cstdlib>
#include <fcntl.h>
#include <fmt/format.h>
#include <optional>
#include <pthread.h>
#include <string>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/error.hpp"

namespace sevisor::vmm {
namespace {

using namespace std::chrono_literals;

// Signals to this thread, which has them blocked.
void send(int signal) { ::pthread_kill(::pthread_self(), signal); }

TEST_CASE("SIGTERM ends the run unless the guest is to be asked") {
  const EndSignals signals;
  RunState state;
  send(SIGTERM);
  wait_for_end(
      state, signals, {}, [] { FAIL("nobody is to be asked"); }, ServiceManager());
  CHECK(state.outcome()->code == 128 + SIGTERM);
  CHECK(state.outcome()->reason == "ended by SIGTERM");
}

TEST_CASE("SIGTERM asks the guest, which powers off") {
  const EndSignals signals;
  RunState state;
  int asked = 0;
  send(SIGTERM);
  wait_for_end(
      state, signals, {.timeout = std::nullopt, .power_off_time = 60s},
      [&] {
        ++asked;
        state.end({ExitCode::kPoweredOff, "the guest powered off"});
      },
      ServiceManager());
  CHECK(asked == 1);
  CHECK(state.outcome()->code == 0);
}

TEST_CASE("a guest that is asked and does not power off is ended") {
  const EndSignals signals;
  RunState state;
  int asked = 0;
  const auto start = std::chrono::steady_clock::now();
  send(SIGTERM);
  wait_for_end(
      state, signals, {.timeout = std::nullopt, .power_off_time = 50ms}, [&] { ++asked; }, ServiceManager());
  CHECK(std::chrono::steady_clock::now() - start >= 50ms);
  CHECK(asked == 1);
  CHECK(state.outcome()->code == 128 + SIGTERM);
  CHECK(state.outcome()->reason == "the guest did not power off within 0.05 s of SIGTERM");
}

TEST_CASE("a second SIGTERM, and any other signal, ends the run at once") {
  for (const int second : {SIGTERM, SIGINT, SIGHUP, SIGQUIT}) {
    INFO("signal " << second);
    const EndSignals signals;
    RunState state;
    send(SIGTERM);
    wait_for_end(
        state, signals, {.timeout = std::nullopt, .power_off_time = 60s}, [&] { send(second); }, ServiceManager());
    CHECK(state.outcome()->code == 128 + second);
  }
  const EndSignals signals;
  RunState state;
  send(SIGINT);
  wait_for_end(
      state, signals, {.timeout = std::nullopt, .power_off_time = 60s}, [] { FAIL("it is not asked"); },
      ServiceManager());
  CHECK(state.outcome()->code == 128 + SIGINT);
}

TEST_CASE("the time limit of the run holds while the guest powers off") {
  const EndSignals signals;
  RunState state;
  send(SIGTERM);
  wait_for_end(
      state, signals, {.timeout = 50ms, .power_off_time = 60s}, [] {}, ServiceManager());
  CHECK(state.outcome()->code == static_cast<int>(ExitCode::kTimedOut));
}

// A service manager's socket.
class Manager {
 public:
  explicit Manager(const std::string& name) : name_(name), fd_(::socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK, 0)) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::ranges::copy(name, address.sun_path);
    if (name.starts_with('@')) address.sun_path[0] = '\0';
    const auto size = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + name.size());
    REQUIRE(::bind(fd_.get(), reinterpret_cast<const sockaddr*>(&address), size) == 0);
  }
  ~Manager() {
    if (!name_.starts_with('@')) ::unlink(name_.c_str());
  }
  Manager(const Manager&) = delete;
  Manager& operator=(const Manager&) = delete;

  // The next datagram; empty if none has come.
  [[nodiscard]] std::string take() const {
    std::array<char, 256> text{};
    const ssize_t got = ::recv(fd_.get(), text.data(), text.size(), 0);
    return got < 0 ? std::string() : std::string(text.data(), static_cast<std::size_t>(got));
  }

 private:
  std::string name_;
  UniqueFd fd_;
};

TEST_CASE("a service manager is told by one datagram, through a path or an abstract socket") {
  const std::string unique = fmt::format("sevisor-test-{}", ::getpid());
  const std::string longest = "@" + unique + std::string(sizeof sockaddr_un{}.sun_path - 1 - unique.size(), 'x');
  for (const std::string& name : {"/tmp/" + unique, "@" + unique, longest}) {
    INFO(name);
    const Manager manager(name);
    const ServiceManager told(name);
    told.tell("READY=1\nSTATUS=The guest runs.");
    CHECK(manager.take() == "READY=1\nSTATUS=The guest runs.");
    CHECK(manager.take().empty());
  }
}

TEST_CASE("what the guest is asked is told to the service manager") {
  const std::string name = fmt::format("@sevisor-test-stop-{}", ::getpid());
  const Manager manager(name);
  const EndSignals signals;
  RunState state;
  send(SIGTERM);
  wait_for_end(
      state, signals, {.timeout = std::nullopt, .power_off_time = 60s},
      [&] {
        state.end({ExitCode::kPoweredOff, "the guest powered off"});
      },
      ServiceManager(name));
  CHECK(manager.take() == "STOPPING=1\nSTATUS=SIGTERM: the guest is asked to power off, and has 60 s for it");
}

TEST_CASE("a service manager's socket with an impossible name is refused, and one that is gone does no harm") {
  for (const std::string& name : {std::string("relative"), std::string("@"), std::string("/"), std::string("vsock:2:1"),
                                  "/" + std::string(sizeof sockaddr_un{}.sun_path - 1, 'x')}) {
    INFO(name);
    CHECK_THROWS_AS(ServiceManager(name), Error);
  }
  ServiceManager("/nonexistent/socket").tell("READY=1");
  ServiceManager().tell("READY=1");
}

TEST_CASE("the journal is known by the device and inode that JOURNAL_STREAM gives") {
  struct stat status {};
  REQUIRE(::fstat(STDERR_FILENO, &status) == 0);
  ::setenv("JOURNAL_STREAM", fmt::format("{}:{}", status.st_dev, status.st_ino).c_str(), 1);
  CHECK(is_journal(STDERR_FILENO));
  const UniqueFd other(::open("/dev/zero", O_RDONLY | O_CLOEXEC));
  CHECK_FALSE(is_journal(other.get()));
  ::setenv("JOURNAL_STREAM", fmt::format("{}:{}", status.st_dev, status.st_ino + 1).c_str(), 1);
  CHECK_FALSE(is_journal(STDERR_FILENO));
  ::unsetenv("JOURNAL_STREAM");
  CHECK_FALSE(is_journal(STDERR_FILENO));
  CHECK_FALSE(is_journal(-1));
}

}  // namespace
}  // namespace sevisor::vmm
