#include "vmm/cli/host_wrappers.hpp"

#include <cerrno>
#include <fcntl.h>
#include <fmt/format.h>
#include <string_view>
#include <unistd.h>

#include "base/error.hpp"
#include "base/unique_fd.hpp"
#include "kvm/recording_host.hpp"

namespace sevisor::cli {

namespace {

UniqueFd open_record(const std::string& path) {
  UniqueFd fd(::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0666));
  if (!fd) {
    throw Error(ExitCode::kBadUsage, fmt::format("write the record '{}'", path), errno_text(errno),
                "Give a path that can be written with --record.");
  }
  return fd;
}

}  // namespace

void add_host_wrapper_options(CLI::App& run, HostWrapperOptions& options) {
  run.add_option("--record", options.record, "write every call to the host, a JSON object a line (docs/epyc.md)")
      ->type_name("FILE");
  run.add_option("--inject-failure", options.inject_failure,
                 "let one call to the host fail, as LAUNCH_START:1:EIO:7 (name in a record, which of that name,\n"
                 "errno, the firmware's status); to test what comes of it")
      ->type_name("CALL");
}

std::unique_ptr<kvm::Host> wrap_host(std::unique_ptr<kvm::Host> host, const HostWrapperOptions& options) {
  if (!options.inject_failure.empty()) {
    host = kvm::make_failing_host(std::move(host), kvm::parse_fault(options.inject_failure));
  }
  if (!options.record.empty()) {
    // Each line by one write(2): what was recorded before a crash is there. A full disk ends no guest.
    const auto file = std::make_shared<UniqueFd>(open_record(options.record));
    host = kvm::make_recording_host(std::move(host), [file](std::string_view line) {
      const std::string whole = fmt::format("{}\n", line);
      [[maybe_unused]] const ssize_t written = ::write(file->get(), whole.data(), whole.size());
    });
  }
  return host;
}

}  // namespace sevisor::cli
