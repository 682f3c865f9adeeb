// One start of a virtual machine monitor: bench_startup RAM_MIB COMMAND... runs the command, whose guest prints an 'S'
// first of all, and ends it there. Prints "WALL CPU RESIDENT": microseconds of the clock from before exec to that byte;
// of processor time that the process, all its threads, had until then; KiB that it then has resident, without the
// mapping that is the guest's RAM. What runs the command is as small as can be: its own cost is in both figures.
#include <array>
#include <cerrno>
#include <charconv>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <fcntl.h>
#include <fstream>
#include <poll.h>
#include <spawn.h>
#include <string>
#include <string_view>
#include <sys/wait.h>
#include <unistd.h>

namespace {

constexpr int kPatienceMs = 20'000;
constexpr std::uint64_t kSlackKib = 4096;  // what a monitor maps together with the guest's RAM

[[noreturn]] void die(const char* tried) {
  (void)std::fprintf(stderr, "bench_startup: %s: %s\n", tried, std::strerror(errno));
  std::exit(1);
}

std::int64_t microseconds(clockid_t clock) {
  timespec now{};
  if (::clock_gettime(clock, &now) != 0) die("read a clock");
  return now.tv_sec * 1'000'000 + now.tv_nsec / 1000;
}

// The number of KiB in a line "Rss:   123 kB" of smaps.
std::uint64_t kib_of(std::string_view line) {
  const std::size_t at = line.find_first_of("0123456789");
  std::uint64_t value = 0;
  if (at != std::string_view::npos) std::from_chars(line.data() + at, line.data() + line.size(), value);
  return value;
}

std::uint64_t resident_beside(pid_t pid, std::uint64_t ram_kib) {
  std::ifstream maps("/proc/" + std::to_string(pid) + "/smaps");
  std::uint64_t sum = 0;
  bool is_ram = false;
  for (std::string line; std::getline(maps, line);) {
    if (line.starts_with("Size:")) {
      const std::uint64_t size = kib_of(line);
      is_ram = size >= ram_kib && size < ram_kib + kSlackKib;
    } else if (line.starts_with("Rss:") && !is_ram) {
      sum += kib_of(line);
    }
  }
  return sum;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 3) return 2;
  std::uint64_t ram_mib = 0;
  const std::string_view ram = argv[1];
  std::from_chars(ram.data(), ram.data() + ram.size(), ram_mib);
  std::array<int, 2> pipe{};
  if (::pipe2(pipe.data(), O_CLOEXEC) != 0) die("make a pipe");
  posix_spawn_file_actions_t actions;
  ::posix_spawn_file_actions_init(&actions);
  ::posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
  ::posix_spawn_file_actions_adddup2(&actions, pipe[1], STDOUT_FILENO);
  ::posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, "/dev/null", O_WRONLY, 0);
  pid_t pid = -1;
  const std::int64_t start = microseconds(CLOCK_MONOTONIC);
  errno = ::posix_spawnp(&pid, argv[2], &actions, nullptr, argv + 2, environ);
  if (errno != 0) die(argv[2]);
  ::close(pipe[1]);
  char byte = 0;
  pollfd ready{pipe[0], POLLIN, 0};
  const bool came = ::poll(&ready, 1, kPatienceMs) == 1 && ::read(pipe[0], &byte, 1) == 1 && byte == 'S';
  const std::int64_t end = microseconds(CLOCK_MONOTONIC);
  clockid_t clock{};
  const std::int64_t cpu = came && ::clock_getcpuclockid(pid, &clock) == 0 ? microseconds(clock) : 0;
  const std::uint64_t resident = came ? resident_beside(pid, ram_mib << 10) : 0;
  ::kill(pid, SIGKILL);
  ::waitpid(pid, nullptr, 0);
  if (!came) {
    (void)std::fprintf(stderr, "bench_startup: the guest's first byte never came from %s\n", argv[2]);
    return 1;
  }
  (void)std::printf("%lld %lld %llu\n", static_cast<long long>(end - start), static_cast<long long>(cpu),
                    static_cast<unsigned long long>(resident));
  return 0;
}
