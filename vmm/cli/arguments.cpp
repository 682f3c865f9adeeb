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
      if (option != nullptr && equals + 1 == word->size()) {
        if (is_switch(*option)) {
          throw Error(ExitCode::kBadUsage, fmt::format("read {}", name), "it takes no value",
                      "Leave out the equals sign.");
        }
        result.back() = name;
        result.emplace_back();
      }
      if (equals != word->size()) continue;
    } else if (word->size() > 1 && word->front() == '-') {
      option = last_of_letters(*command, std::string_view(*word).substr(1));
    } else if (const CLI::App* below = find_command(*command, *word)) {
      command = below;
    }
    // The next word is a value, whatever it looks like.
    if (option != nullptr && needs_value(*option) && word + 1 != words.end()) result.push_back(*++word);
  }
  return result;
}

void refuse_empty_values(const CLI::App& command) {
  for (const CLI::Option* option : command.get_options()) refuse_empty_value(*option);
  for (const CLI::App* below : command.get_subcommands([](const CLI::App* app) { return app->parsed(); })) {
    refuse_empty_values(*below);
  }
}

}  // namespace sevisor::cli
