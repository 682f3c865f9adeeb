// One guest from launch to end.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>

#include "kvm/host.hpp"
#include "vmm/boot/input_file.hpp"
#include "vmm/boot/kernel_image.hpp"
#include "vmm/boot/variable_store.hpp"
#include "vmm/end/end_wait.hpp"
#include "vmm/end/outcome.hpp"
#include "vmm/launch/launch.hpp"
#include "vmm/machine/guest_ram.hpp"
#include "vmm/machine/memory_dump.hpp"
#include "vmm/trace/guest_checker.hpp"

namespace sevisor::vmm {

struct RunConfig {
  std::uint64_t memory = 0;  // bytes
  unsigned vcpus = 1;
  std::uint32_t cpu_signature = 0;
  const CpuModel* cpu_model = nullptr;  // nullptr: all that the host has
  std::uint32_t policy = 0;

  sev::FirmwareImage firmware;
  BootedBy booted_by = BootedBy::kOwnFirmware;  // what `firmware` is
  VariableStore* variables = nullptr;           // the firmware's, in a flash below it; null: it has none
  FileBytes kernel;                             // null: none is handed to the firmware
  std::string kernel_name;                      // for messages
  FileBytes initrd;                             // null: none
  std::string cmdline;
  bool kernel_hashes = false;  // the hashes of the three are measured, and the firmware checks them

  std::vector<std::byte> owner_certificate;  // of the guest owner, as is the session; both or none
  std::vector<std::byte> session;
  SecretSource secret;  // empty: none is injected
  InitApi init_api = InitApi::kEsInit;
  IrqchipKind irqchip = IrqchipKind::kKernel;
  Confidential confidential = Confidential::kSevEs;
  HugePages huge_pages = HugePages::kOff;
  bool confine = true;        // takes system calls from the threads that serve the guest
  std::vector<unsigned> pin;  // CPUs of the host for the vCPUs, in turn; empty: any

  std::int64_t rtc_time = 0;  // seconds since 1970
  EndPolicy end;
  std::optional<std::string> expect;        // regular expression
  const MemoryDump* memory_dump = nullptr;  // where RAM goes when the run has ended; null: nowhere
  GuestChecker* checker = nullptr;          // told what devices do; may be null
};

// Throws Error (kBadUsage) for what is wrong with the configuration itself, before any host is touched.
void check_run_config(const RunConfig& config);

// Throws Error (kBadUsage) when it is no regular expression.
void check_expect(const std::string& pattern);

// Launches the guest, connects it to standard input and output and runs it to its end. `launched` is called once it is
// measured, before it runs. SIGINT, SIGHUP and SIGQUIT end the run with 128 + their number, and
// SIGTERM as `end` says; a service manager that started this program is told. Throws Error when the launch fails.
[[nodiscard]] Outcome run_guest(kvm::Host& host, const RunConfig& config,
                                const std::function<void(const LaunchReport&)>& launched);

}  // namespace sevisor::vmm
