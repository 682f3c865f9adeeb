// Keys and secrets are nowhere in the memory of a `sevisor` that ends: each run is stopped at its end, before the
// kernel takes the memory back, and all of it is searched.
#include <algorithm>
#include <cerrno>
#include <cinttypes>
#include <csignal>
#include <fcntl.h>
#include <string_view>
#include <sys/ptrace.h>

#include "base/unique_fd.hpp"
#include "sev/certificate.hpp"
#include "sev/crypto.hpp"
#include "sev/launch_secret.hpp"
#include "sev/session.hpp"
#include "tool.hpp"

using namespace sevisor;
using namespace sevisor::test;
using nlohmann::json;

namespace {

using Words = std::vector<std::string>;

struct Needle {
  std::string what;
  Bytes bytes;
};

// A key as it is, as text, and as the two blocks that HMAC makes of it (FIPS 198-1 section 4).
void add_key(std::vector<Needle>& needles, const std::string& what, std::span<const std::byte> key) {
  const auto text = [](const std::string& string) {
    const auto bytes = std::as_bytes(std::span(string));
    return Bytes(bytes.begin(), bytes.end());
  };
  needles.push_back({what, {key.begin(), key.end()}});
  needles.push_back({what + " in hexadecimal", text(sev::to_hex(key))});
  needles.push_back({what + " in base64", text(sev::to_base64(key))});
  for (const std::byte pad : {std::byte{0x36}, std::byte{0x5c}}) {
    Bytes padded(key.begin(), key.end());
    for (std::byte& b : padded) b ^= pad;
    needles.push_back({what + " with HMAC's padding", padded});
  }
}

// Which of the needles are in the memory of process `pid` that can be written.
std::vector<std::string> search_memory(pid_t pid, const std::vector<Needle>& needles) {
  const std::string folder = "/proc/" + std::to_string(pid);
  const UniqueFd memory(::open((folder + "/mem").c_str(), O_RDONLY | O_CLOEXEC));
  REQUIRE(memory);
  std::ifstream maps(folder + "/maps");
  std::vector<std::string> found;
  std::size_t searched = 0;
  for (std::string line; std::getline(maps, line);) {
    std::uint64_t begin = 0;
    std::uint64_t end = 0;
    char writable = 0;
    if (std::sscanf(line.c_str(), "%" SCNx64 "-%" SCNx64 " %*c%c", &begin, &end, &writable) != 3 || writable != 'w') {
      continue;
    }
    constexpr std::uint64_t kMost = std::uint64_t{1} << 32;  // larger is a sanitizer's, about memory, not memory
    if (end - begin > kMost) continue;
    Bytes bytes(end - begin);
    const ssize_t got = ::pread(memory.get(), bytes.data(), bytes.size(), static_cast<off_t>(begin));
    if (got <= 0) continue;
    bytes.resize(static_cast<std::size_t>(got));
    searched += bytes.size();
    for (const Needle& needle : needles) {
      if (std::ranges::search(bytes, needle.bytes).empty()) continue;
      found.push_back(needle.what + " in " + line);
    }
  }
  CHECK(searched > 100'000);
  return found;
}

struct Ended {
  int code = -1;
  std::vector<std::string> found;
};

// Runs `sevisor` to its end; there `find` looks at it. nullopt where a process may not trace its child.
template <class Find>
std::optional<Ended> run_traced(const WorkFolder& folder, Words words, Find find) {
  words.insert(words.begin(), SEVISOR_BINARY);
  std::vector<char*> argv;
  for (std::string& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);
  const std::string out = folder / ".out";
  const std::string data = folder / "data";
  std::fflush(nullptr);  // or the child would print it again
  const pid_t child = ::fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    if (::ptrace(PTRACE_TRACEME, 0, nullptr, nullptr) == 0 && ::chdir(folder.path().c_str()) == 0 &&
        ::freopen(out.c_str(), "w", stdout) != nullptr && ::freopen(out.c_str(), "a", stderr) != nullptr &&
        ::setenv("XDG_DATA_HOME", data.c_str(), 1) == 0 &&
        ::setenv("ASAN_OPTIONS", "detect_leaks=0", 1) == 0) {  // it works by tracing, too
      ::execv(argv[0], argv.data());                           // stops with SIGTRAP
    }
    ::_exit(127);
  }
  int status = 0;
  REQUIRE(::waitpid(child, &status, 0) == child);
  if (!WIFSTOPPED(status)) return std::nullopt;
  REQUIRE(::ptrace(PTRACE_SETOPTIONS, child, nullptr, PTRACE_O_TRACEEXIT | PTRACE_O_EXITKILL) == 0);
  Ended ended;
  std::uintptr_t signal = 0;
  for (;;) {
    REQUIRE(::ptrace(PTRACE_CONT, child, nullptr, signal) == 0);
    REQUIRE(::waitpid(child, &status, 0) == child);
    if (WIFEXITED(status)) break;
    REQUIRE(WIFSTOPPED(status));
    if (status >> 8 == (SIGTRAP | PTRACE_EVENT_EXIT << 8)) {
      ended.found = find(child);
      signal = 0;
    } else {
      signal = static_cast<std::uintptr_t>(WSTOPSIG(status));
    }
  }
  ended.code = WEXITSTATUS(status);
  return ended;
}

// The private number of the emulated platform's PDH: in its NVRAM behind a magic of 16 bytes, three certificates and
// the PEK's number.
Bytes pdh_scalar(const WorkFolder& folder) {
  constexpr std::size_t kScalarSize = 48;
  constexpr std::size_t kPdhAt = 16 + 3 * sev::kCertificateSize + kScalarSize;
  const Bytes nvram = read_file(folder / "data/sevisor/emulated-platform/nvram").value();
  REQUIRE(nvram.size() > kPdhAt + kScalarSize);
  const auto at = nvram.begin() + static_cast<std::ptrdiff_t>(kPdhAt);
  return {at, at + kScalarSize};
}

// The keys of the session in owner_*, and what they were derived from on the platform.
std::vector<Needle> session_needles(const WorkFolder& folder) {
  std::vector<Needle> needles;
  add_key(needles, "the TIK", read_file(folder / "owner_tik.bin").value());
  add_key(needles, "the TEK", read_file(folder / "owner_tek.bin").value());
  const auto pdh = sev::PrivateKey::of_scalar(sev::Curve::kP384, pdh_scalar(folder));
  const auto godh = sev::Certificate::parse(sev::from_base64(read_text(folder / "owner_godh.b64")).value(), "GODH");
  const Bytes session = sev::from_base64(read_text(folder / "owner_session.b64")).value();
  sev::Nonce nonce;
  std::copy_n(session.begin(), nonce.size(), nonce.begin());
  const auto shared = pdh.value().shared_secret(godh.key()).value();
  const auto master = sev::session_master_secret(shared, nonce);
  add_key(needles, "the shared secret", shared);
  add_key(needles, "the master secret", *master);
  add_key(needles, "the KEK", *sev::derive_key(*master, "sev-kek", {}));
  add_key(needles, "the KIK", *sev::derive_key(*master, "sev-kik", {}));
  return needles;
}

void add_platform_key(const WorkFolder& folder, std::vector<Needle>& needles) {
  const Bytes scalar = pdh_scalar(folder);
  add_key(needles, "the PDH's private key", scalar);
  // As OpenSSL's numbers are in memory: little-endian.
  needles.push_back({"the PDH's private key as a number", {scalar.rbegin(), scalar.rend()}});
}

void check_clean(const std::optional<Ended>& ended, int code) {
  REQUIRE(ended);
  CHECK(ended->code == code);
  for (const std::string& found : ended->found) FAIL_CHECK(found);
}

}  // namespace

TEST_CASE("keys and secrets are wiped before the program ends") {
  const WorkFolder folder;
  put_file(folder / "key", std::as_bytes(std::span(std::string_view("the key to the disk 90b1"))));

  // The search finds what is there: a program's argument.
  const auto sees = run_traced(folder, {"firmware", "/nonexistent/needle-5d21"}, [](pid_t pid) {
    const auto text = std::as_bytes(std::span(std::string_view("needle-5d21")));
    return search_memory(pid, {{"argument", {text.begin(), text.end()}}});
  });
  if (!sees) {
    skip("a process may not trace its child here");
    return;
  }
  CHECK_FALSE(sees->found.empty());

  // The files are there once the session has ended, and what to look for is in them.
  check_clean(run_traced(folder, {"session", "--host", "emulated", "--policy", "0x5", "--out", "owner"},
                         [&](pid_t pid) {
                           std::vector<Needle> needles = session_needles(folder);
                           add_platform_key(folder, needles);
                           return search_memory(pid, needles);
                         }),
              0);
  std::vector<Needle> needles = session_needles(folder);
  const auto secret = std::as_bytes(std::span(std::string_view("the key to the disk 90b1")));
  needles.push_back({"the guest's secret", {secret.begin(), secret.end()}});
  add_platform_key(folder, needles);
  const auto clean = [&](const Words& args, int code) {
    INFO(args[0]);
    check_clean(run_traced(folder, args, [&](pid_t pid) { return search_memory(pid, needles); }), code);
  };

  const Words launch = {"run",     "--host",    "emulated",       "--firmware", SEVISOR_FIRMWARE,    "--memory",
                        "64M",     "--dh-cert", "owner_godh.b64", "--session",  "owner_session.b64", "--json",
                        "run.json"};
  clean(launch, 37);
  const json report = json::parse(read_text(folder / "run.json"));
  const std::string measurement = report["measurement"];
  const Words claim = {"--measurement", measurement,
                       "--api-major",   "1",
                       "--api-minor",   "55",
                       "--build-id",    "21",
                       "--policy",      "5",
                       "--tik",         "owner_tik.bin",
                       "--tek",         "owner_tek.bin",
                       "--firmware",    SEVISOR_FIRMWARE,
                       "--cpu-type",    "EPYC-v4"};
  const auto verify = [&](const Words& more) {
    Words args = {"verify"};
    args.insert(args.end(), claim.begin(), claim.end());
    args.insert(args.end(), more.begin(), more.end());
    return args;
  };
  clean(verify({"--num-cpus", "1", "--inject-secret", "luks-key:key", "--secret-header", "h", "--secret-payload", "p"}),
        0);
  clean(verify({"--num-cpus", "5"}), 1);
  clean({"measure",
         "--mode",
         "seves",
         "--vcpus",
         "1",
         "--vcpu-type",
         "EPYC",
         "--tik",
         "owner_tik.bin",
         "--api-major",
         "1",
         "--api-minor",
         "55",
         "--build-id",
         "21",
         "--policy",
         "5",
         "--nonce",
         std::string(32, '0'),
         "--output-format",
         "json"},
        0);
  clean({"secret", "--secret", "luks-key:key", "--tik", "owner_tik.bin", "--tek", "owner_tek.bin", "--measurement",
         measurement, "--out", "packet"},
        0);
  clean({"secret", "--secret", "luks-key:key", "--out", "packet", "--table-only"}, 0);

  // Keys as text, which is decoded first; and refused, half-way through.
  const std::string tik = sev::to_base64(read_file(folder / "owner_tik.bin").value());
  put_file(folder / "owner_tik.bin", std::as_bytes(std::span(tik)));
  clean(verify({"--num-cpus", "1"}), 0);
  clean(verify({"--num-cpus", "1", "--tk", "owner_tik.bin"}), 35);
  put_file(folder / "owner_tek.bin", Bytes(15));
  clean(verify({"--num-cpus", "1"}), 35);

  // The platform's part: the session's keys, its own, and the secret on its way into the guest's memory.
  Words with_secret = launch;
  with_secret.insert(with_secret.end(), {"--secret", "packet"});
  clean(with_secret, 37);
}
