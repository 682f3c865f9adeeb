// The command line: one file a subcommand.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <exception>
#include <fcntl.h>
#include <fmt/format.h>
#include <string>
#include <unistd.h>
#include <vector>

#include "base/error.hpp"
#include "vmm/cli/certs_command.hpp"
#include "vmm/cli/command.hpp"
#include "vmm/cli/doctor_command.hpp"
#include "vmm/cli/firmware_command.hpp"
#include "vmm/cli/measure_command.hpp"
#include "vmm/cli/run_command.hpp"
#include "vmm/cli/secret_command.hpp"
#include "vmm/cli/session_command.hpp"
#include "vmm/cli/test_command.hpp"
#include "vmm/cli/trace_command.hpp"
#include "vmm/cli/verify_command.hpp"

namespace {

using sevisor::ExitCode;

// An error is one line, whatever the user's text in it holds.
std::string one_line(std::string text) {
  for (char& c : text) {
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) c = ' ';
  }
  while (!text.empty() && text.back() == ' ') text.pop_back();
  return text;
}

int fail(ExitCode code, const std::string& text) {
  fmt::print(stderr, "sevisor: {}\n", one_line(text));
  return static_cast<int>(code);
}

// A closed standard descriptor would go to the next file that is opened, and the guest would talk to that.
void open_standard_descriptors() {
  int fd = 0;
  do {
    fd = ::open("/dev/null", O_RDWR);
  } while (fd >= 0 && fd <= STDERR_FILENO);
  if (fd > STDERR_FILENO) ::close(fd);
}

int main_or_throw(int argc, char** argv) {
  CLI::App app("sevisor runs AMD SEV-ES guests: on an EPYC machine's KVM, or on an emulated SEV-ES host anywhere.",
               "sevisor");
  app.set_version_flag("--version", "sevisor " SEVISOR_VERSION);
  app.require_subcommand(0, 1);  // that there is one is checked below: then an unknown one is named
  sevisor::cli::RunOptions run_options;
  const CLI::App* run = sevisor::cli::add_run_command(app, run_options);
  const std::vector<sevisor::cli::Command> commands = {
      {app.get_subcommand("run"), [&] { return sevisor::cli::run_command(*run, run_options); }},
      sevisor::cli::add_measure_command(app),
      sevisor::cli::add_verify_command(app),
      sevisor::cli::add_secret_command(app),
      sevisor::cli::add_session_command(app),
      sevisor::cli::add_certs_command(app),
      sevisor::cli::add_firmware_command(app),
      sevisor::cli::add_test_command(app),
      sevisor::cli::add_doctor_command(app),
      sevisor::cli::add_trace_command(app),
  };
  const auto given = [&commands] {
    return std::ranges::find_if(commands, [](const auto& command) { return command.app->parsed(); });
  };
  try {
    app.parse(argc, argv);
  } catch (const CLI::Success& success) {  // --help, --version
    return app.exit(success);
  } catch (const CLI::ParseError& error) {
    const std::string name = given() == commands.end() ? "" : given()->app->get_name() + " ";
    return fail(ExitCode::kBadUsage,
                fmt::format("{}. 'sevisor {}--help' lists what there is.", one_line(error.what()), name));
  }
  if (given() == commands.end()) {
    return fail(ExitCode::kBadUsage, "no command is given. 'sevisor --help' lists what there is.");
  }
  return given()->run();
}

}  // namespace

int main(int argc, char** argv) {
  open_standard_descriptors();
  try {
    return main_or_throw(argc, argv);
  } catch (const sevisor::Error& error) {
    return fail(error.exit_code(), error.what());
  } catch (const std::exception& error) {
    return fail(ExitCode::kCrash, error.what());
  }
}
