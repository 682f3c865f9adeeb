#include "vmm/cli/doctor_command.hpp"

#include <cstdio>
#include <fmt/format.h>
#include <memory>
#include <optional>
#include <string>
#include <unistd.h>

#include "base/error.hpp"
#include "emulator/kvm/emulated_host.hpp"
#include "kvm/kernel_host.hpp"
#include "vmm/cli/distinct_files.hpp"
#include "vmm/cli/guest_description.hpp"
#include "vmm/cli/log.hpp"
#include "vmm/doctor/host_checks.hpp"
#include "vmm/run/report_file.hpp"

namespace sevisor::cli {

namespace {

constexpr const char* kFooter =
    "Changes nothing, and needs no root. Exit codes: 0 SEV-ES guests can run on the host, 38 they cannot, 35 bad "
    "arguments.\n"
    "\n"
    "Examples:\n"
    "  sevisor doctor\n"
    "  sevisor doctor --json doctor.json\n";

struct DoctorOptions {
  std::string host = "kernel";
  std::string json;
};

int examine(const CLI::App& command, const DoctorOptions& options) {
  if (options.host != "kernel" && options.host != "emulated") {
    throw Error(ExitCode::kBadUsage, fmt::format("read --host '{}'", options.host), "no such host",
                "Choose kernel or emulated.");
  }
  require_distinct_files(command, {}, {"--json"});
  std::optional<vmm::ReportFile> report;
  if (command.count("--json") != 0) report.emplace(options.json, "--json");

  const doctor::Machine machine = doctor::this_machine();
  const auto host = options.host == "kernel" ? kvm::make_kernel_host() : emulator::make_emulated_host();
  const doctor::Examination found = doctor::examine(*host, machine, built_in_firmware());
  if (report) report->write(doctor::json_of(options.host, found.can_run, found.verdict, found.checks));
  fmt::print("{}\n{}.\n", doctor::text_of(found.checks, may_colour(STDOUT_FILENO)), found.verdict);
  if (found.can_run) return static_cast<int>(ExitCode::kPoweredOff);
  if (options.host == "kernel") {
    const auto other = emulator::make_emulated_host();
    if (doctor::examine(*other, machine, built_in_firmware()).can_run) {
      fmt::print(
          "The emulated host runs them here, in software and without protection: sevisor run --host emulated ...\n");
    }
  }
  return static_cast<int>(ExitCode::kHostCannot);
}

}  // namespace

Command add_doctor_command(CLI::App& app) {
  const auto options = std::make_shared<DoctorOptions>();
  CLI::App* command =
      app.add_subcommand("doctor", "Tell whether SEV-ES guests can run here, why not, and how to repair it");
  command->footer(kFooter);
  command->add_option("--host", options->host, "the host to examine")
      ->type_name("kernel|emulated")
      ->capture_default_str();
  command->add_option("--json", options->json, "write the findings as JSON")->type_name("FILE");
  return {command, [command, options] { return examine(*command, *options); }};
}

}  // namespace sevisor::cli
