#include "vmm/cli/arguments.hpp"

#include <algorithm>
#include <cstddef>
#include <fmt/format.h>
#include <string_view>

#include "base/error.hpp"

namespace sevisor::cli {

namespace {

// Options that mean something without any text.
constexpr std::string_view kMayBeEmpty[] = {"--append", "--cmdline"};

bool is_switch(const CLI::Option& option) { return option.get_items_expected_max() == 0; }
bool needs_value(const CLI::Option& option) { return option.get_items_expected_min() > 0; }

const CLI::App* find_command(const CLI::App& app, const std::string& name) {
  const auto found = app.get_subcommands([&name](const CLI::App* command) { return command->get_name() == name; });
  return found.empty() ? nullptr : found.front();
}

// Of "-k" and "-qk": the option whose value is the next word; null if none wants it.
const CLI::Option* last_of_letters(const CLI::App& command, std::string_view letters) {
  for (std::size_t i = 0; i < letters.size(); ++i) {
    const CLI::Option* option = command.get_option_no_throw(fmt::format("-{}", letters[i]));
    if (option == nullptr) return nullptr;
    if (!is_switch(*option)) return i + 1 == letters.size() ? option : nullptr;  // else the value follows in this word
  }
  return nullptr;
}

// How many letters to put in, take out, replace or exchange with the next to make one of the other.
std::size_t distance(std::string_view a, std::string_view b) {
  std::vector<std::vector<std::size_t>> of(a.size() + 1, std::vector<std::size_t>(b.size() + 1));
  for (std::size_t i = 0; i <= a.size(); ++i) {
    for (std::size_t j = 0; j <= b.size(); ++j) {
      if (i == 0 || j == 0) {
        of[i][j] = i + j;
        continue;
      }
      of[i][j] = std::min({of[i - 1][j] + 1, of[i][j - 1] + 1, of[i - 1][j - 1] + (a[i - 1] == b[j - 1] ? 0 : 1)});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
        of[i][j] = std::min(of[i][j], of[i - 2][j - 2] + 1);
    }
  }
  return of[a.size()][b.size()];
}

std::vector<std::string> names_like(const CLI::App& command, const std::string& word) {
  std::vector<std::string> names;
  if (word.starts_with("-")) {
    for (const CLI::Option* option : command.get_options()) {
      for (const std::string& name : option->get_lnames()) names.push_back("--" + name);
    }
  } else {
    for (const CLI::App* below : command.get_subcommands(nullptr)) names.push_back(below->get_name());
    if (command.get_parent() == nullptr) names.emplace_back("help");
  }
  return names;
}

[[noreturn]] void refuse_unknown(const CLI::App& command, const std::string& word, const char* what) {
  std::string path;
  for (const CLI::App* app = &command; app->get_parent() != nullptr; app = app->get_parent()) {
    path.insert(0, app->get_name() + " ");
  }
  throw Error(ExitCode::kBadUsage, fmt::format("read '{}'", word), fmt::format("there is no such {}", what),
              fmt::format("{}'sevisor {}--help' lists what there is.", did_you_mean(command, word), path));
}

std::size_t places_for_words(const CLI::App& command) {
  return static_cast<std::size_t>(
      std::ranges::count_if(command.get_options(), [](const CLI::Option* option) { return option->get_positional(); }));
}

void refuse_empty_value(const CLI::Option& option) {
  const std::string name = option.get_name();
  if (std::ranges::find(kMayBeEmpty, name) != std::end(kMayBeEmpty)) return;
  if (std::ranges::none_of(option.results(), &std::string::empty)) return;
  throw Error(ExitCode::kBadUsage, fmt::format("read {}", name), "its value is empty",
              fmt::format("Give it a value, or leave {} out; a variable of a script may be unset.", name));
}

}  // namespace

std::vector<std::string> with_empty_values(const CLI::App& app, const std::vector<std::string>& words) {
  const CLI::App* command = &app;
  std::size_t words_given = 0;  // that are no options
  std::vector<std::string> result;
  for (auto word = words.begin(); word != words.end(); ++word) {
    result.push_back(*word);
    const CLI::Option* option = nullptr;
    if (*word == "--") {  // what follows is no option
      result.insert(result.end(), word + 1, words.end());
      break;
    }
    if (word->starts_with("--")) {
      const std::size_t equals = std::min(word->find('='), word->size());
      const std::string name = word->substr(0, equals);
      option = command->get_option_no_throw(name);
      if (option == nullptr) refuse_unknown(*command, name, "option");
      if (equals + 1 == word->size()) {
        if (is_switch(*option)) {
          throw Error(ExitCode::kBadUsage, fmt::format("read {}", name), "it takes no value",
                      "Leave out the equals sign.");
        }
        result.back() = name;
        result.emplace_back();
      }
      if (equals != word->size()) continue;
    } else if (word->size() > 1 && word->front() == '-') {
      if (command->get_option_no_throw(word->substr(0, 2)) == nullptr) refuse_unknown(*command, *word, "option");
      option = last_of_letters(*command, std::string_view(*word).substr(1));
    } else if (const CLI::App* below = find_command(*command, *word)) {
      command = below;
    } else if (++words_given > places_for_words(*command)) {
      const bool wants_command = command->get_subcommands(nullptr).size() > 1;
      refuse_unknown(*command, *word, wants_command ? "command" : "argument");
    }
    // The next word is a value, whatever it looks like; of an option that can do without, unless it looks like one.
    if (option == nullptr || is_switch(*option) || word + 1 == words.end()) continue;
    if (needs_value(*option) || !(word + 1)->starts_with("-")) result.push_back(*++word);
  }
  return result;
}

std::vector<std::string> with_help_as_option(std::vector<std::string> words) {
  if (words.empty() || words.front() != "help") return words;
  words.erase(words.begin());
  words.emplace_back("--help");
  return words;
}

std::string did_you_mean(const CLI::App& command, const std::string& word) {
  std::string best;
  std::size_t least = std::max<std::size_t>(1, word.size() / 3) + 1;
  for (const std::string& name : names_like(command, word)) {
    const std::size_t letters = name.starts_with(word) && word.size() > 3 ? 1 : distance(word, name);
    if (letters >= least) continue;
    least = letters;
    best = name;
  }
  return best.empty() ? "" : fmt::format("Did you mean '{}'? ", best);
}

void refuse_empty_values(const CLI::App& command) {
  for (const CLI::Option* option : command.get_options()) refuse_empty_value(*option);
  for (const CLI::App* below : command.get_subcommands([](const CLI::App* app) { return app->parsed(); })) {
    refuse_empty_values(*below);
  }
}

}  // namespace sevisor::cli
