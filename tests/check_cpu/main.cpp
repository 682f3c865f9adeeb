// check_cpu: random cases of every user-level instruction form that the engine implements, run by the engine and by the
// host's processor. Ends with 0 if nothing differs, 1 if something does, 2 for bad arguments. With --list-untried what
// differs on a processor that nobody has tried is listed, and the end is 0 as well.
//
// Cases run in a child process, one after another; each is drawn from the seed and its own number alone. A case that
// kills the child or hangs is reported as a difference, and another child goes on behind it.
#include <CLI/CLI.hpp>
#include <cstdio>
#include <cstring>
#include <fmt/format.h>
#include <map>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/mapping.hpp"
#include "tests/check_cpu/comparison.hpp"
#include "tests/cpu_diff/differences.hpp"
#include "tests/cpu_diff/judgement.hpp"

namespace sevisor::check_cpu {

namespace {

using namespace cpu_diff;

struct Options {
  std::uint64_t seed = 1;
  std::uint64_t cases = 1'000'000;
  std::uint64_t first = 0;
  std::string only;
  bool quiet = false;
  bool list_untried = false;
};

struct Subject {
  Mode mode;
  FormEntry form;
};

// What the child writes and its parent reads.
struct Counts {
  std::uint64_t cases;
  std::uint64_t completed;
  std::uint64_t different;  // failures among them
  std::uint64_t failed;     // the engine could not run it, or the child died
  std::uint64_t first;      // number of the first that differs
};
struct Board {
  volatile std::uint64_t current;  // number of the case that runs
  std::uint64_t shown;             // differences printed so far
  std::array<char, 256> text;      // bytes of the instruction that runs
};

// The board and a row of counts for each subject, in memory that a child shares.
class Shared {
 public:
  explicit Shared(std::size_t subjects)
      : mapping_(map(sizeof(Board) + subjects * sizeof(Counts))),
        board_(reinterpret_cast<Board*>(mapping_.data())),
        counts_(reinterpret_cast<Counts*>(mapping_.data() + sizeof(Board)), subjects) {}
  [[nodiscard]] Board& board() const { return *board_; }
  [[nodiscard]] std::span<Counts> counts() const { return counts_; }

 private:
  static Mapping map(std::size_t size) {
    void* at = ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (at == MAP_FAILED) throw std::runtime_error("no memory to share with a child");
    return {at, size};
  }
  Mapping mapping_;
  Board* board_;
  std::span<Counts> counts_;
};

const char* mode_name(Mode mode) { return mode == Mode::k64 ? "64-bit" : "32-bit"; }

// Only forms of this mnemonic, or all.
bool chosen(const Options& options, const Encoding& sample) {
  return options.only.empty() || options.only == ZydisMnemonicGetString(sample.info.mnemonic);
}

// What is compared goes to `subjects`; what is not, by reason, to `others`.
void collect(const Options& options, std::vector<Subject>& subjects,
             std::map<std::string, std::vector<std::string>>& others) {
  Engine engine;
  for (const Mode mode : {Mode::k64, Mode::k32}) {
    for (FormEntry& form : list_forms(mode)) {
      if (!chosen(options, form.samples.front())) continue;
      // A form is compared if one of its samples is: the others differ in prefixes that have no meaning for it.
      Choice choice = choose(engine, mode, form.samples.front());
      for (const Encoding& sample : form.samples) {
        if (choice.verdict == Verdict::kCompared) break;
        const Choice other = choose(engine, mode, sample);
        if (other.verdict == Verdict::kCompared) choice = other;
      }
      std::erase_if(form.samples,
                    [&](const Encoding& sample) { return choose(engine, mode, sample).verdict != Verdict::kCompared; });
      if (choice.verdict == Verdict::kCompared) {
        subjects.push_back({mode, std::move(form)});
      } else if (choice.verdict == Verdict::kNotCompared) {
        auto& list = others[std::string(choice.reason)];
        if (std::find(list.begin(), list.end(), form.name) == list.end()) list.push_back(form.name);
      }
    }
  }
}

void note_difference(Counts& counts, std::uint64_t number, bool failed) {
  if (counts.different == 0) counts.first = number;
  ++counts.different;
  if (failed) ++counts.failed;
}

// The case of this number, drawn from it and the seed alone. False: no encoding was found.
bool draw_case(const Options& options, const Subject& subject, std::uint64_t number, Random& random, Encoding& e) {
  constexpr std::uint64_t kSpread = 0x9e3779b97f4a7c15;
  random = Random((options.seed * kSpread) ^ (number * kSpread + 1));
  return vary(random, subject.mode, subject.form, e);
}

// Never returns.
[[noreturn]] void run_child(const Options& options, const std::vector<Subject>& subjects, const Shared& shared,
                            std::uint64_t first) {
  constexpr std::uint64_t kShown = 20;
  Board& board = shared.board();
  Native native;
  Engine engine;
  for (std::uint64_t n = first; n < options.first + options.cases; ++n) {
    const std::size_t which = n % subjects.size();
    const auto& [mode, form] = subjects[which];
    board.current = n;
    Random random(0);
    Encoding e;
    board.text[0] = 0;
    if (!draw_case(options, subjects[which], n, random, e) || choose(engine, mode, e).verdict != Verdict::kCompared)
      continue;
    std::string bytes = form.name + ":";
    for (const std::uint8_t b : e.code()) bytes += fmt::format(" {:02x}", b);
    static_cast<void>(std::snprintf(board.text.data(), board.text.size(), "%s", bytes.c_str()));
    const Outcome outcome = compare(random, mode, e, native, engine);
    Counts& counts = shared.counts()[which];
    if (!outcome.ran) continue;
    ++counts.cases;
    if (outcome.completed) ++counts.completed;
    if (outcome.difference.empty()) continue;
    note_difference(counts, n, outcome.failed);
    if (++board.shown <= kShown) fmt::print("case {}: {}\n{}", n, form.name, outcome.difference);
    static_cast<void>(std::fflush(stdout));
  }
  board.current = options.first + options.cases;
  static_cast<void>(std::fflush(stdout));
  ::_exit(0);
}

// Waits for the child, with its progress on a terminal. How it ended, in words; empty if it came to its end.
std::string wait_for(pid_t child, const Options& options, const Shared& shared) {
  constexpr unsigned kTick = 100'000;  // microseconds
  constexpr unsigned kPatience = 200;  // ticks without a new case
  const bool terminal = ::isatty(STDERR_FILENO) != 0;
  std::uint64_t last = ~std::uint64_t{0};
  unsigned idle = 0;
  while (true) {
    int status = 0;
    const pid_t done = ::waitpid(child, &status, WNOHANG);
    if (done == child) {
      if (terminal) fmt::print(stderr, "\r\033[K");
      if (WIFEXITED(status) && WEXITSTATUS(status) == 0) return {};
      return WIFSIGNALED(status) ? fmt::format("killed by signal {}", WTERMSIG(status))
                                 : fmt::format("ended with {}", WEXITSTATUS(status));
    }
    const std::uint64_t now = shared.board().current;
    idle = now == last ? idle + 1 : 0;
    last = now;
    if (idle == kPatience) {
      ::kill(child, SIGKILL);
      ::waitpid(child, &status, 0);
      return "did not come back";
    }
    if (terminal) fmt::print(stderr, "\r{} of {} cases", now - options.first, options.cases);
    ::usleep(kTick);
  }
}

// Runs all cases. Returns how many killed their child.
std::uint64_t run_cases(const Options& options, const std::vector<Subject>& subjects, const Shared& shared) {
  constexpr std::uint64_t kMostDeaths = 50;
  std::uint64_t deaths = 0;
  std::uint64_t next = options.first;
  while (next < options.first + options.cases && deaths < kMostDeaths) {
    static_cast<void>(std::fflush(stdout));
    shared.board().current = next;
    const pid_t child = ::fork();
    if (child < 0) throw std::runtime_error("cannot fork");
    if (child == 0) run_child(options, subjects, shared, next);
    const std::string end = wait_for(child, options, shared);
    if (end.empty()) break;
    const std::uint64_t at = shared.board().current;
    ++deaths;
    note_difference(shared.counts()[at % subjects.size()], at, true);
    fmt::print("case {}: {}: {}\n", at, shared.board().text.data(), end);
    next = at + 1;
  }
  return deaths;
}

void print_coverage(const std::vector<Subject>& subjects, std::span<const Counts> counts) {
  fmt::print("\nCompared (form: cases, of which without an exception):\n");
  for (std::size_t n = 0; n < subjects.size(); ++n) {
    fmt::print("  {} {:<44} {:>8} {:>8}{}\n", mode_name(subjects[n].mode), subjects[n].form.name, counts[n].cases,
               counts[n].completed, counts[n].different == 0 ? "" : fmt::format("  {} DIFFERENT", counts[n].different));
  }
}

void print_others(const std::map<std::string, std::vector<std::string>>& others) {
  fmt::print("\nImplemented, not compared:\n");
  for (const auto& [reason, names] : others) {
    fmt::print("  {} forms: {}\n", names.size(), reason);
    std::string line = "   ";
    constexpr std::size_t kWidth = 116;
    for (const std::string& name : names) {
      if (line.size() + name.size() > kWidth) {
        fmt::print("{}\n", line);
        line = "   ";
      }
      line += " " + name + ";";
    }
    fmt::print("{}\n", line);
  }
}

// What differs, by form.
Findings collect_findings(const Options& options, const std::vector<Subject>& subjects,
                          std::span<const Counts> counts) {
  const std::string only = options.only.empty() ? "" : " --only " + options.only;
  Findings findings;
  for (std::size_t n = 0; n < subjects.size(); ++n) {
    const Counts& c = counts[n];
    if (c.different == 0) continue;
    const Subject& subject = subjects[n];
    Encoding e;
    Random random(0);
    std::string bytes;
    if (draw_case(options, subject, c.first, random, e)) {
      for (const std::uint8_t b : e.code()) bytes += fmt::format(" {:02x}", b);
    }
    const char* mnemonic = ZydisMnemonicGetString(subject.form.samples.front().info.mnemonic);
    findings[fmt::format("{} {}", mode_name(subject.mode), subject.form.name)] = {
        .differences = c.different - c.failed,
        .failures = c.failed,
        .first = fmt::format("  first:{}: ./dev check-cpu --seed {} --first {} --cases 1{}", bytes, options.seed,
                             c.first, only),
        .repeat = fmt::format("./dev check-cpu --only {}", mnemonic)};
  }
  return findings;
}

int check(const Options& options) {
  std::vector<Subject> subjects;
  std::map<std::string, std::vector<std::string>> others;
  collect(options, subjects, others);
  if (subjects.empty()) {
    fmt::print("No form is compared.\n");
    print_others(others);
    return 2;
  }
  fmt::print("{}", describe_differences(host_processor()));
  const Shared shared(subjects.size());
  const std::uint64_t deaths = run_cases(options, subjects, shared);
  if (!options.quiet) {
    print_coverage(subjects, shared.counts());
    print_others(others);
  }
  Counts total{};
  std::uint64_t never = 0;
  for (const Counts& c : shared.counts()) {
    total.cases += c.cases;
    total.completed += c.completed;
    total.different += c.different;
    if (c.cases == 0) ++never;
  }
  fmt::print(
      "\ncheck-cpu: seed {}: {} forms, {} cases run ({} without an exception), {} forms without a case, {} "
      "differences, {} crashes\n",
      options.seed, subjects.size(), total.cases, total.completed, never, total.different, deaths);
  const Judgement judgement = judge(host_processor(), collect_findings(options, subjects, shared.counts()));
  fmt::print("{}", judgement.report);
  const bool passed = options.list_untried ? judgement.passed : total.different == 0;
  return passed && deaths == 0 ? 0 : 1;
}

int run(int argc, char** argv) {
  Options options;
  CLI::App app("Holds the emulated processor to the one it runs on, instruction by instruction", "check-cpu");
  app.add_option("--seed", options.seed, "another sequence of cases (default 1)");
  app.add_option("--cases", options.cases, "how many cases (default 1000000)");
  app.add_option("--first", options.first, "number of the first case; with --cases 1 it repeats one case");
  app.add_option("--only", options.only, "only this mnemonic, as in Intel's syntax: add, rcl, movsb");
  app.add_flag("--list-untried", options.list_untried,
               "end with 0 if a processor that nobody has tried differs: list what does");
  app.add_flag("--quiet", options.quiet, "print differences and the last line only");
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : 2;
  }
  return check(options);
}

}  // namespace
}  // namespace sevisor::check_cpu

int main(int argc, char** argv) {
  try {
    return sevisor::check_cpu::run(argc, argv);
  } catch (const std::exception& error) {
    static_cast<void>(std::fprintf(stderr, "check-cpu: %s\n", error.what()));
    return 2;
  }
}
