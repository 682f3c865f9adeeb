// The words of the command line, before and after CLI11 reads them.
#pragma once

#include <CLI/CLI.hpp>
#include <string>
#include <vector>

namespace sevisor::cli {

// The words as CLI11 2.1 takes them for what they say: it reads `--append=` as an option without its value, and would
// give it the next word. `app` has the commands and their options. Throws Error (kBadUsage) for a switch with `=`, and
// for an option or command that there is not, with the one that it is like.
[[nodiscard]] std::vector<std::string> with_empty_values(const CLI::App& app, const std::vector<std::string>& words);

// `help` and `help COMMAND ...` are --help.
[[nodiscard]] std::vector<std::string> with_help_as_option(std::vector<std::string> words);

// "Did you mean '--kernel'? " for a word that no option or command of `command` is, and that is like one; else empty.
[[nodiscard]] std::string did_you_mean(const CLI::App& command, const std::string& word);

// Throws Error (kBadUsage) when an option of the command, or of one below it, was given the empty text and it is none
// that takes it: a script's variable without a value shall not pass for a choice.
void refuse_empty_values(const CLI::App& command);

}  // namespace sevisor::cli
