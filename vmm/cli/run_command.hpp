// `sevisor run`: one guest, from launch to end.
#pragma once

#include <string>

#include "vmm/cli/command.hpp"
#include "vmm/cli/host_wrappers.hpp"
#include "vmm/cli/run_owner.hpp"

namespace sevisor::cli {

// The options as given; the command makes sense of them.
struct RunOptions {
  std::string kernel;
  std::string initrd;
  std::string append;
  std::string kernel_hashes;  // empty: auto with a session, off without
  OwnerOptions owner;
  std::string firmware;
  std::string vars;
  std::string cpus = "1";
  std::string cpu_type;
  std::string memory = "512M";
  std::string policy;
  std::string kvm;
  std::string host = "auto";
  std::string hugepages = "off";
  std::string pin;
  std::string seccomp = "on";
  std::string confidential = "sev-es";
  std::string init_api = "es-init";
  std::string irqchip = "kernel";
  std::string timeout;
  std::string on_term = "end";
  std::string stop_timeout = "60";
  std::string expect;
  std::string rtc;
  std::string log_level = "info";
  std::string json;
  HostWrapperOptions wrappers;
  std::string trace;
  std::string dump_memory;
  std::string check;  // empty: no
};

[[nodiscard]] Command add_run_command(CLI::App& app);

}  // namespace sevisor::cli
