// The guest owner's part in `sevisor run`: session, measurement handed out, secret taken in.
#pragma once

#include <CLI/CLI.hpp>
#include <chrono>
#include <functional>
#include <optional>
#include <string>

#include "vmm/run/guest_run.hpp"
#include "vmm/run/json_report.hpp"

namespace sevisor::cli {

struct OwnerOptions {
  std::string dh_cert;
  std::string session;
  std::string secret;         // NAME
  std::string secret_header;  // or both files
  std::string secret_payload;
  std::string launch_report;

  [[nodiscard]] bool has_session() const noexcept { return !dh_cert.empty() || !session.empty(); }
};

void add_owner_options(CLI::App& run, OwnerOptions& options);

// Reads the session's files into `config`. Throws Error (kBadUsage).
void read_session(const OwnerOptions& options, vmm::RunConfig& config);

// What waits for the secret that belongs to a launch, and hands out the launch's report before; empty when no secret is
// asked for. It ends with an Error when a signal asks the program to end, or after `timeout`. `launched` is called with
// the report first.
[[nodiscard]] vmm::SecretSource make_secret_source(const OwnerOptions& options,
                                                   std::optional<std::chrono::milliseconds> timeout,
                                                   std::function<void(const vmm::LaunchReport&)> launched);

}  // namespace sevisor::cli
