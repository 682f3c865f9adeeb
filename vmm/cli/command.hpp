// What main() needs to know of a subcommand.
#pragma once

#include <CLI/CLI.hpp>
#include <functional>

namespace sevisor::cli {

struct Command {
  CLI::App* app;             // of CLI11; it is the one when parsed()
  std::function<int()> run;  // returns the program's exit code; throws Error
};

}  // namespace sevisor::cli
