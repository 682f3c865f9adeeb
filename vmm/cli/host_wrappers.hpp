// Options of `sevisor run` that put something around the host: a record of its calls, a failure among them.
#pragma once

#include <CLI/CLI.hpp>
#include <memory>
#include <string>

#include "kvm/host.hpp"

namespace sevisor::cli {

struct HostWrapperOptions {
  std::string record;          // file
  std::string inject_failure;  // as kvm::parse_fault() has it
};

void add_host_wrapper_options(CLI::App& run, HostWrapperOptions& options);

// Throws Error (kBadUsage) when the file cannot be written or the failure cannot be read.
[[nodiscard]] std::unique_ptr<kvm::Host> wrap_host(std::unique_ptr<kvm::Host> host, const HostWrapperOptions& options);

}  // namespace sevisor::cli
