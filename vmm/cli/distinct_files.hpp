// Files of one command line: none may be two things at once.
#pragma once

#include <CLI/CLI.hpp>
#include <initializer_list>
#include <string>
#include <vector>

namespace sevisor::cli {

// Throws Error (kBadUsage) when an output is also an input, another output, or what standard output or standard error
// go to, under whatever name: by name, symbolic or hard link. Each word is an option of the command or the name of a
// positional one; those that are not given, devices and pipes are of no matter.
void require_distinct_files(const CLI::App& command, std::initializer_list<const char*> inputs,
                            std::initializer_list<const char*> outputs);

}  // namespace sevisor::cli
