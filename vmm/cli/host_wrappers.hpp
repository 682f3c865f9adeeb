// Options of `sevisor run` that put something around the host: a record of its calls, a failure among them.
#pragma once

#include <CLI/CLI.hpp>
#include <memory>
#include <string>

#include "kvm/host.hpp"
#include "kvm/recording_host.hpp"

namespace sevisor::cli {

struct HostWrapperOptions {
  std::string record;          // file
  std::string inject_failure;  // as kvm::parse_fault() has it
};

void add_host_wrapper_options(CLI::App& run, HostWrapperOptions& options);

// A host with what the options put around it, and what is to be said of that when the run has ended.
class WrappedHost {
 public:
  // Throws Error (kBadUsage) when the record cannot be written or the failure cannot be read.
  WrappedHost(std::unique_ptr<kvm::Host> host, const HostWrapperOptions& options);

  [[nodiscard]] kvm::Host& host() const noexcept { return *host_; }
  // A line when the failure never came: then the run has tested nothing. Throws Error (kBadUsage) when a part of the
  // record could not be written.
  void finish() const;

 private:
  struct Record;

  std::unique_ptr<kvm::Host> host_;
  kvm::Fault fault_;
  kvm::CallCount calls_;  // of fault_.call; null: none shall fail
  std::shared_ptr<Record> record_;
};

}  // namespace sevisor::cli
