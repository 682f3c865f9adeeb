#include "vmm/cli/host_wrappers.hpp"

#include <cerrno>
#include <fcntl.h>
#include <fmt/format.h>
#include <spdlog/spdlog.h>
#include <string_view>
#include <unistd.h>
#include <utility>

#include "base/error.hpp"
#include "base/output_file.hpp"

namespace sevisor::cli {

namespace {

UniqueFd open_record(const std::string& path) {
  UniqueFd fd = open_output(path, O_TRUNC | O_APPEND, 0666);
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

struct WrappedHost::Record {
  std::string path;
  UniqueFd fd;
  int error_number = 0;  // of the first line that was not written whole
};

WrappedHost::WrappedHost(std::unique_ptr<kvm::Host> host, const HostWrapperOptions& options) : host_(std::move(host)) {
  if (!options.inject_failure.empty()) {
    fault_ = kvm::parse_fault(options.inject_failure);
    calls_ = std::make_shared<std::atomic<std::uint64_t>>(0);
    host_ = kvm::make_failing_host(std::move(host_), fault_, calls_);
  }
  if (!options.record.empty()) {
    // Each line by one write(2): what was recorded before a crash is there. A full disk ends no guest, but is told.
    record_ = std::make_shared<Record>(Record{options.record, open_record(options.record)});
    host_ = kvm::make_recording_host(std::move(host_), [record = record_](std::string_view line) {
      const std::string whole = fmt::format("{}\n", line);
      const ssize_t written = ::write(record->fd.get(), whole.data(), whole.size());
      if (written == static_cast<ssize_t>(whole.size()) || record->error_number != 0) return;
      record->error_number = written < 0 ? errno : ENOSPC;
    });
  }
}

void WrappedHost::finish() const {
  if (calls_ != nullptr && *calls_ < fault_.number) {
    spdlog::warn("--inject-failure: {} was called {} times, so the failure that was asked for never came", fault_.call,
                 calls_->load());
  }
  if (record_ != nullptr && record_->error_number != 0) {
    throw Error(ExitCode::kBadUsage, fmt::format("write the record '{}'", record_->path),
                errno_text(record_->error_number), "Give a path with room for it with --record.");
  }
}

}  // namespace sevisor::cli
