#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstdlib>
#include <filesystem>
#include <fmt/format.h>
#include <fstream>
#include <iterator>
#include <optional>
#include <set>
#include <span>
#include <string_view>
#include <yaml-cpp/yaml.h>

#include "base/error.hpp"
#include "sev/encoding.hpp"
#include "sev/policy.hpp"
#include "vmm/console/expect_matcher.hpp"
#include "vmm/suite/suite.hpp"
#include "vmm/text/seconds_text.hpp"

namespace sevisor::suite {

namespace {

constexpr std::chrono::seconds kMaxTime{86400};
constexpr double kDefaultTimeout = 300;  // seconds for a case
constexpr std::string_view kDefaultFailOn = "Kernel panic - not syncing";
constexpr std::uintmax_t kMaxSuiteSize = 16 << 20;  // bytes
constexpr std::size_t kMaxCases = 10'000;
constexpr std::size_t kMaxNodes = 1'000'000;
constexpr unsigned kMaxVcpus = 255;  // as `sevisor run` has it
// Of variables in the environment: a runner's own MEMORY or KERNEL shall not change the guest.
constexpr std::string_view kEnvironmentPrefix = "SEVISOR_";

// Keys of a case that are options of `sevisor run`. A path is relative to the suite's folder.
struct RunKey {
  std::string_view key;
  const char* option;
  bool is_path = false;
  bool may_be_empty = false;
};
constexpr RunKey kRunKeys[] = {
    {.key = "kernel", .option = "--kernel", .is_path = true},
    {.key = "initrd", .option = "--initrd", .is_path = true},
    {.key = "append", .option = "--append", .may_be_empty = true},
    {.key = "kernel-hashes", .option = "--kernel-hashes"},
    {.key = "firmware", .option = "--firmware", .is_path = true},
    {.key = "cpu-type", .option = "--cpu-type"},
    {.key = "memory", .option = "--memory"},
    {.key = "policy", .option = "--policy"},
    {.key = "init-api", .option = "--init-api"},
    {.key = "confidential", .option = "--confidential"},
    {.key = "rtc", .option = "--rtc"},
    {.key = "irqchip", .option = "--irqchip"},
};
constexpr std::string_view kOtherCaseKeys[] = {"cpus",    "arguments",     "steps",   "exit",
                                               "timeout", "launch-digest", "fail-on", "name"};

using Keys = std::vector<std::string_view>;

Keys case_keys() {
  Keys keys;
  for (const RunKey& key : kRunKeys) keys.push_back(key.key);
  keys.insert(keys.end(), std::begin(kOtherCaseKeys), std::end(kOtherCaseKeys));
  return keys;
}

unsigned line_of(const YAML::Node& node) { return static_cast<unsigned>(node.Mark().line + 1); }

class Reader {
 public:
  Reader(std::string path, const Variables& set) : path_(std::move(path)), set_(set) {
    folder_ = std::filesystem::path(path_).parent_path();
  }

  Suite read();

 private:
  [[noreturn]] void refuse(const YAML::Mark& mark, std::string came_back, std::string advice = {}) const {
    throw Error(ExitCode::kBadUsage,
                fmt::format("read the suite '{}', line {}, column {}", path_, mark.line + 1, mark.column + 1),
                std::move(came_back), std::move(advice));
  }

  // A map whose keys are all among `keys`, none of them twice.
  void check_map(const YAML::Node& node, const char* what, const Keys& keys) const;
  [[nodiscard]] std::string text(const YAML::Node& node, std::string_view key) const;
  [[nodiscard]] std::string some_text(const YAML::Node& node, std::string_view key) const;  // not the empty one
  [[nodiscard]] std::string expand(std::string_view text, const YAML::Mark& mark) const;
  [[nodiscard]] std::string variable(const std::string& name, const YAML::Mark& mark) const;
  [[nodiscard]] Milliseconds seconds(const YAML::Node& node, std::string_view key) const;
  [[nodiscard]] long number(const YAML::Node& node, std::string_view key, long least, long most) const;
  [[nodiscard]] std::string pattern(const YAML::Node& node, std::string_view key) const;
  [[nodiscard]] std::vector<std::string> texts(const YAML::Node& node, std::string_view key) const;
  [[nodiscard]] std::vector<YAML::Node> list(const YAML::Node& node, std::string_view key) const;
  [[nodiscard]] sev::Digest digest(const YAML::Node& node, std::string_view key) const;
  [[nodiscard]] Step step(const YAML::Node& node) const;
  void read_variables(const YAML::Node& node);
  void find_variables(const YAML::Node& node, std::set<std::string>& names);
  void check_variables(const YAML::Node& top, Suite& suite);
  void add_cases(const YAML::Node& node, const YAML::Node& defaults, Suite& suite);

  std::string path_;
  std::filesystem::path folder_;
  const Variables& set_;
  Variables own_;
  std::set<std::string> names_;
  std::size_t walked_ = 0;  // values that find_variables() has seen
};

void Reader::check_map(const YAML::Node& node, const char* what, const Keys& keys) const {
  if (!node.IsMap()) refuse(node.Mark(), fmt::format("{} is a map of keys and values, and this is none", what));
  std::set<std::string> seen;
  for (const auto& entry : node) {
    if (!entry.first.IsScalar()) refuse(entry.first.Mark(), "a key is a word");
    const std::string& key = entry.first.Scalar();
    if (std::find(keys.begin(), keys.end(), key) == keys.end()) {
      refuse(entry.first.Mark(), fmt::format("{} has no key '{}'", what, key),
             fmt::format("There are: {}.", fmt::join(keys, ", ")));
    }
    if (!seen.insert(key).second) refuse(entry.first.Mark(), fmt::format("the key '{}' is there twice", key));
  }
}

std::string Reader::variable(const std::string& name, const YAML::Mark& mark) const {
  if (const auto found = set_.find(name); found != set_.end()) return found->second;
  if (const char* value = std::getenv((std::string(kEnvironmentPrefix) + name).c_str())) return value;
  if (const auto found = own_.find(name); found != own_.end()) return found->second;
  if (const char* value = std::getenv(name.c_str())) return value;
  refuse(mark, fmt::format("the variable ${{{}}} has no value", name),
         fmt::format("Give one with --set {0}=VALUE, in the environment as {1}{0}, or under 'variables' in the suite.",
                     name, kEnvironmentPrefix));
}

// All that is named with ${}, whether a case comes to use it or not.
void Reader::find_variables(const YAML::Node& node, std::set<std::string>& names) {
  if (++walked_ > kMaxNodes) refuse(node.Mark(), "the suite has too many values", "Aliases of aliases multiply.");
  if (node.IsScalar()) {
    const std::string& text = node.Scalar();
    for (std::size_t at = text.find("${"); at != std::string::npos; at = text.find("${", at + 2)) {
      const std::size_t end = text.find('}', at);
      if (end == std::string::npos) return;
      if (at == 0 || text[at - 1] != '$') names.insert(text.substr(at + 2, end - at - 2));
    }
  } else if (node.IsMap()) {
    for (const auto& entry : node) find_variables(entry.second, names);
  } else if (node.IsSequence()) {
    for (const auto& item : node) find_variables(item, names);
  }
}

// A misspelt --set would test the default, and pass.
void Reader::check_variables(const YAML::Node& top, Suite& suite) {
  std::set<std::string> names;
  for (const auto& entry : top) {
    if (entry.first.Scalar() != "variables") find_variables(entry.second, names);
  }
  for (const auto& [name, value] : own_) names.insert(name);
  for (const auto& [name, value] : set_) {
    if (names.contains(name)) continue;
    throw Error(ExitCode::kBadUsage, fmt::format("use --set {}=", name),
                fmt::format("the suite '{}' has no variable '{}'", path_, name),
                names.empty() ? "It has none." : fmt::format("There are: {}.", fmt::join(names, ", ")));
  }
  for (const auto& [name, value] : own_) {
    const char* other = std::getenv(name.c_str());
    if (other == nullptr || value == other || set_.contains(name)) continue;
    if (std::getenv((std::string(kEnvironmentPrefix) + name).c_str()) != nullptr) continue;
    suite.notes.push_back(fmt::format("{0} of the environment is not used, as the suite has its own; {1}{0} would be",
                                      name, kEnvironmentPrefix));
  }
}

// ${NAME} is a variable, $${ a literal ${.
std::string Reader::expand(std::string_view text, const YAML::Mark& mark) const {
  std::string result;
  while (!text.empty()) {
    const std::size_t at = text.find("${");
    if (at == std::string_view::npos) break;
    const bool literal = at > 0 && text[at - 1] == '$';
    result += text.substr(0, literal ? at - 1 : at);
    if (literal) {
      result += "${";
      text.remove_prefix(at + 2);
      continue;
    }
    const std::size_t end = text.find('}', at);
    if (end == std::string_view::npos) refuse(mark, "a variable's closing brace is missing", "$${ is a literal ${.");
    result += variable(std::string(text.substr(at + 2, end - at - 2)), mark);
    text.remove_prefix(end + 1);
  }
  result += text;
  return result;
}

std::string Reader::text(const YAML::Node& node, std::string_view key) const {
  if (!node.IsScalar()) refuse(node.Mark(), fmt::format("'{}' takes one value", key));
  std::string value = expand(node.Scalar(), node.Mark());
  if (value.find('\0') != std::string::npos) refuse(node.Mark(), fmt::format("'{}' has a zero byte in it", key));
  return value;
}

std::string Reader::some_text(const YAML::Node& node, std::string_view key) const {
  std::string value = text(node, key);
  if (value.empty()) {
    refuse(node.Mark(), fmt::format("'{}' is empty", key),
           "Give it a value, or leave the key out; a variable may be unset in the environment.");
  }
  return value;
}

long Reader::number(const YAML::Node& node, std::string_view key, long least, long most) const {
  const std::string value = text(node, key);
  long result = 0;
  const auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), result);
  if (error != std::errc{} || end != value.data() + value.size() || result < least || result > most) {
    refuse(node.Mark(), fmt::format("'{}' is '{}', not a whole number from {} to {}", key, value, least, most));
  }
  return result;
}

Milliseconds Reader::seconds(const YAML::Node& node, std::string_view key) const {
  const std::string value = text(node, key);
  const std::optional<Milliseconds> result = vmm::parse_seconds(value, kMaxTime);
  if (!result) {
    refuse(node.Mark(),
           fmt::format("'{}' is '{}', not a number of seconds above 0 and up to {}", key, value, kMaxTime.count()));
  }
  return *result;
}

std::string Reader::pattern(const YAML::Node& node, std::string_view key) const {
  std::string value = some_text(node, key);
  try {
    (void)vmm::ExpectMatcher(value);
  } catch (const Error& error) {
    refuse(node.Mark(), fmt::format("'{}' cannot be matched: {}", key, error.came_back()), error.advice());
  }
  return value;
}

std::vector<YAML::Node> Reader::list(const YAML::Node& node, std::string_view key) const {
  if (!node.IsSequence()) refuse(node.Mark(), fmt::format("'{}' takes a list", key));
  return {node.begin(), node.end()};
}

std::vector<std::string> Reader::texts(const YAML::Node& node, std::string_view key) const {
  std::vector<std::string> result;
  for (const YAML::Node& item : list(node, key)) result.push_back(text(item, key));
  return result;
}

sev::Digest Reader::digest(const YAML::Node& node, std::string_view key) const {
  const auto bytes = sev::from_hex(text(node, key));
  sev::Digest result{};
  if (!bytes || bytes->size() != result.size()) {
    refuse(node.Mark(), fmt::format("'{}' is not {} hexadecimal digits", key, 2 * result.size()),
           "'sevisor measure' prints it.");
  }
  std::copy(bytes->begin(), bytes->end(), result.begin());
  return result;
}

Step Reader::step(const YAML::Node& node) const {
  Step result;
  result.line = line_of(node);
  if (node.IsScalar() && node.Scalar() == "power-off") {
    result.action = PowerOffStep{};
    return result;
  }
  check_map(node, "a step", {"expect", "timeout", "send", "wait"});
  const YAML::Node expect = node["expect"];
  const YAML::Node send = node["send"];
  const YAML::Node wait = node["wait"];
  if ((expect ? 1 : 0) + (send ? 1 : 0) + (wait ? 1 : 0) != 1) {
    refuse(node.Mark(), "a step does one thing", "Choose one of expect, send, wait, or the word power-off.");
  }
  if (node["timeout"] && !expect) refuse(node["timeout"].Mark(), "'timeout' goes with 'expect'");
  if (expect) {
    ExpectStep action{pattern(expect, "expect"), {}};
    if (node["timeout"]) action.timeout = seconds(node["timeout"], "timeout");
    result.action = std::move(action);
  } else if (send) {
    result.action = SendStep{some_text(send, "send")};
  } else {
    result.action = WaitStep{seconds(wait, "wait")};
  }
  return result;
}

void Reader::read_variables(const YAML::Node& node) {
  if (!node.IsMap()) refuse(node.Mark(), "'variables' is a map of names and values");
  for (const auto& entry : node) {
    if (!entry.second.IsScalar()) refuse(entry.second.Mark(), "a variable's value is a text");
    own_[entry.first.Scalar()] = entry.second.Scalar();  // as it is: what it names is expanded nowhere
  }
}

void Reader::add_cases(const YAML::Node& node, const YAML::Node& defaults, Suite& suite) {
  check_map(node, "a case", case_keys());
  const auto find = [&](std::string_view key) {
    const YAML::Node own = node[std::string(key)];
    if (own || !defaults) return own;
    return defaults[std::string(key)];
  };
  if (!node["name"]) refuse(node.Mark(), "a case needs a 'name'");

  Case base;
  base.name = some_text(node["name"], "name");
  base.line = line_of(node);
  base.policy = sev::kDefaultPolicy;
  for (const RunKey& key : kRunKeys) {
    const YAML::Node value = find(key.key);
    if (!value) continue;
    std::string said = key.may_be_empty ? text(value, key.key) : some_text(value, key.key);
    if (key.key == "policy") {
      try {
        base.policy = sev::parse_policy(said);
      } catch (const Error& error) {
        refuse(value.Mark(), fmt::format("'policy' is '{}': {}", said, error.came_back()));
      }
    }
    if (key.is_path) said = (folder_ / said).lexically_normal().string();
    base.arguments.push_back(fmt::format("{}={}", key.option, said));
  }
  const std::size_t keys_end = base.arguments.size();
  if (const YAML::Node value = find("arguments")) {
    for (std::string& argument : texts(value, "arguments")) base.arguments.push_back(std::move(argument));
  }
  bool powers_off = false;
  if (const YAML::Node value = find("steps")) {
    for (const YAML::Node& item : list(value, "steps")) {
      if (powers_off) refuse(item.Mark(), "nothing can come after power-off");
      base.steps.push_back(step(item));
      powers_off = std::holds_alternative<PowerOffStep>(base.steps.back().action);
    }
  }
  if (const YAML::Node value = find("exit")) {
    if (powers_off) refuse(value.Mark(), "after power-off there is no exit code to look at");
    base.exit_code = static_cast<int>(number(value, "exit", 0, 255));
  }
  if (const YAML::Node value = find("launch-digest")) base.launch_digest = digest(value, "launch-digest");
  const YAML::Node timeout = find("timeout");
  base.timeout = timeout ? seconds(timeout, "timeout") : Milliseconds(static_cast<long>(kDefaultTimeout * 1000));
  if (const YAML::Node value = find("fail-on")) {
    for (const YAML::Node& item : list(value, "fail-on")) base.fail_on.push_back(pattern(item, "fail-on"));
  } else {
    base.fail_on.emplace_back(kDefaultFailOn);
  }

  // A list of cpus makes a case of each.
  std::vector<long> cpus = {1};
  const YAML::Node value = find("cpus");
  const bool many = value && value.IsSequence();
  if (value) {
    cpus.clear();
    if (many) {
      for (const YAML::Node& item : value) cpus.push_back(number(item, "cpus", 1, kMaxVcpus));
      if (base.launch_digest && cpus.size() > 1) {
        refuse(value.Mark(), "each number of cpus has a launch digest of its own", "Make a case of each.");
      }
    } else {
      cpus.push_back(number(value, "cpus", 1, kMaxVcpus));
    }
  }
  for (const long count : cpus) {
    Case test = base;
    if (many) test.name += fmt::format(" [{} vCPU{}]", count, count == 1 ? "" : "s");
    if (!names_.insert(test.name).second) refuse(node.Mark(), fmt::format("there are two cases '{}'", test.name));
    // The suite's own arguments come last: one that lacks its value shall take no other.
    const auto own = test.arguments.begin() + static_cast<std::ptrdiff_t>(keys_end);
    test.arguments.insert(own, fmt::format("--cpus={}", count));
    suite.cases.push_back(std::move(test));
    if (suite.cases.size() > kMaxCases) refuse(node.Mark(), fmt::format("there are more than {} cases", kMaxCases));
  }
}

Suite Reader::read() {
  std::error_code error;
  const std::uintmax_t size = std::filesystem::file_size(path_, error);
  std::ifstream file(path_, std::ios::binary);
  const auto refuse_file = [this](std::string came_back) {
    throw Error(ExitCode::kBadUsage, fmt::format("read the suite '{}'", path_), std::move(came_back),
                "Give a YAML or JSON file; docs/boot-tests.md describes it.");
  };
  if (error) refuse_file(error.message());
  if (size > kMaxSuiteSize) refuse_file(fmt::format("it has {} bytes, more than {}", size, kMaxSuiteSize));
  if (!file) refuse_file(errno_text(errno));
  const std::string content{std::istreambuf_iterator<char>(file), {}};

  try {
    const std::vector<YAML::Node> documents = YAML::LoadAll(content);
    if (documents.size() != 1 || documents.front().IsNull()) refuse_file("it is empty, or more than one document");
    const YAML::Node& top = documents.front();
    check_map(top, "a suite", {"name", "variables", "defaults", "cases"});
    Suite suite;
    suite.path = path_;
    if (const YAML::Node variables = top["variables"]) read_variables(variables);
    suite.name = top["name"] ? some_text(top["name"], "name") : std::filesystem::path(path_).stem().string();
    const YAML::Node defaults = top["defaults"];
    if (defaults) {
      Keys keys = case_keys();
      std::erase(keys, "name");
      check_map(defaults, "the map of defaults", keys);
    }
    check_variables(top, suite);
    if (!top["cases"]) refuse(top.Mark(), "a suite needs 'cases'");
    for (const YAML::Node& node : list(top["cases"], "cases")) add_cases(node, defaults, suite);
    if (suite.cases.empty()) refuse(top["cases"].Mark(), "there is no case");
    return suite;
  } catch (const YAML::Exception& exception) {
    refuse(exception.mark, exception.msg, "It must be YAML 1.2 or JSON.");
  }
}

}  // namespace

Suite read_suite(const std::string& path, const Variables& set) { return Reader(path, set).read(); }

std::string step_text(const Case& test, std::size_t index) {
  const Step& step = test.steps[index];
  struct Describe {
    std::string operator()(const ExpectStep& expect) const { return fmt::format("expect /{}/", expect.pattern); }
    std::string operator()(const SendStep&) const { return "send"; }
    std::string operator()(const WaitStep& wait) const {
      return fmt::format("wait {:g} s", static_cast<double>(wait.time.count()) / 1000);
    }
    std::string operator()(const PowerOffStep&) const { return "power-off"; }
  };
  return fmt::format("step {} of {} (line {}: {})", index + 1, test.steps.size(), step.line,
                     std::visit(Describe{}, step.action));
}

}  // namespace sevisor::suite
