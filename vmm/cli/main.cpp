// The command line: one file a subcommand.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <exception>
#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <string>
#include <string_view>
#include <system_error>
#include <unistd.h>
#include <utility>
#include <vector>

#include "base/error.hpp"
#include "vmm/cli/arguments.hpp"
#include "vmm/cli/certs_command.hpp"
#include "vmm/cli/command.hpp"
#include "vmm/cli/doctor_command.hpp"
#include "vmm/cli/firmware_command.hpp"
#include "vmm/cli/log.hpp"
#include "vmm/cli/measure_command.hpp"
#include "vmm/cli/run_command.hpp"
#include "vmm/cli/secret_command.hpp"
#include "vmm/cli/session_command.hpp"
#include "vmm/cli/test_command.hpp"
#include "vmm/cli/trace_command.hpp"
#include "vmm/cli/verify_command.hpp"

namespace {

using sevisor::ExitCode;

constexpr const char* kFooter =
    "'sevisor help COMMAND' tells a command's options and examples.\n"
    "\n"
    "Examples:\n"
    "  sevisor run --kernel vmlinuz --initrd initrd.img --append console=ttyS0\n"
    "  sevisor doctor\n"
    "  sevisor test debian-boot.yaml --set KERNEL=vmlinuz\n";

constexpr int kSignalExitBase = 128;  // as shells report a death by signal

// An error is one line, whatever the user's text in it holds.
std::string one_line(std::string text) {
  for (char& c : text) {
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) c = ' ';
  }
  while (!text.empty() && text.back() == ' ') text.pop_back();
  return text;
}

int fail(ExitCode code, const std::string& text) {
  fmt::print(stderr, "{}{}\n", sevisor::cli::error_prefix(), one_line(text));
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

struct NamedCommand {
  std::string_view name;
  sevisor::cli::Command (*add)(CLI::App&);
};

constexpr NamedCommand kCommands[] = {
    {"run", sevisor::cli::add_run_command},           {"measure", sevisor::cli::add_measure_command},
    {"verify", sevisor::cli::add_verify_command},     {"secret", sevisor::cli::add_secret_command},
    {"session", sevisor::cli::add_session_command},   {"certs", sevisor::cli::add_certs_command},
    {"firmware", sevisor::cli::add_firmware_command}, {"test", sevisor::cli::add_test_command},
    {"doctor", sevisor::cli::add_doctor_command},     {"trace", sevisor::cli::add_trace_command},
};

// The command that is asked for, or all of them if none is: describing the options of ten commands to CLI11 takes
// longer than making a VM (docs/performance.md).
std::vector<sevisor::cli::Command> add_commands(CLI::App& app, std::string_view asked) {
  const bool known = std::ranges::any_of(kCommands, [asked](const auto& command) { return command.name == asked; });
  std::vector<sevisor::cli::Command> commands;
  for (const NamedCommand& command : kCommands) {
    if (!known || command.name == asked) commands.push_back(command.add(app));
  }
  return commands;
}

int main_or_throw(int argc, char** argv) {
  CLI::App app("sevisor runs AMD SEV-ES guests: on an EPYC machine's KVM, or on an emulated SEV-ES host anywhere.",
               "sevisor");
  app.set_version_flag("--version", "sevisor " SEVISOR_VERSION);
  app.footer(kFooter);
  app.require_subcommand(0, 1);  // that there is one is checked below: then an unknown one is named
  const std::vector<std::string> words = sevisor::cli::with_help_as_option({argv + std::min(argc, 1), argv + argc});
  const std::vector<sevisor::cli::Command> commands = add_commands(app, words.empty() ? "" : words.front());
  for (const sevisor::cli::Command& command : commands) {
    command.app->set_version_flag("--version", "sevisor " SEVISOR_VERSION, "Display the program's version and exit");
  }
  const auto given = [&commands] {
    return std::ranges::find_if(commands, [](const auto& command) { return command.app->parsed(); });
  };
  try {
    std::vector<std::string> arguments = sevisor::cli::with_empty_values(app, words);
    std::ranges::reverse(arguments);  // as CLI11 takes them
    app.parse(std::move(arguments));
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
  sevisor::cli::refuse_empty_values(*given()->app);
  return given()->run();
}

// What was said must have arrived: a digest or a verdict that a full disk swallowed is none.
int fail_to_say(int error_number) {
  // A reader that went away, as head(1) does, is no error of this program: it ends as by SIGPIPE, which some commands
  // ignore.
  pollfd output{STDOUT_FILENO, POLLOUT, 0};
  if (::poll(&output, 1, 0) > 0 && (output.revents & (POLLERR | POLLHUP)) != 0) return kSignalExitBase + SIGPIPE;
  return fail(ExitCode::kBadUsage,
              fmt::format("write to standard output: {}",
                          error_number != 0 ? sevisor::errno_text(error_number) : "not all of it was taken"));
}

int run(int argc, char** argv) {
  try {
    return main_or_throw(argc, argv);
  } catch (const std::system_error& error) {
    // fmt::print() throws when standard output takes no more.
    return std::ferror(stdout) != 0 ? fail_to_say(error.code().value()) : fail(ExitCode::kCrash, error.what());
  } catch (const sevisor::Error& error) {
    return fail(error.exit_code(), error.what());
  } catch (const std::exception& error) {
    return fail(ExitCode::kCrash, error.what());
  }
}

}  // namespace

int main(int argc, char** argv) {
  open_standard_descriptors();
  const int exit_code = run(argc, argv);
  errno = 0;
  const bool all_said = std::fflush(stdout) == 0 && std::ferror(stdout) == 0;
  return all_said || exit_code != 0 ? exit_code : fail_to_say(errno);
}
