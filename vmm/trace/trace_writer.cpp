#include "vmm/trace/trace_writer.hpp"

#include <cerrno>
#include <fcntl.h>
#include <fmt/format.h>
#include <span>
#include <utility>

#include "base/error.hpp"
#include "base/output_file.hpp"
#include "vmm/trace/trace_line.hpp"

namespace sevisor::vmm {

namespace {
constexpr std::size_t kBufferBytes = 256 * 1024;
constexpr mode_t kMode = 0644;  // less the user's mask

[[noreturn]] void refuse(const std::string& path, int error_number) {
  throw Error(ExitCode::kBadUsage, fmt::format("write the trace '{}'", path), errno_text(error_number),
              "Give a path that can be written with --trace.");
}
}  // namespace

TraceWriter::TraceWriter(std::string path) : path_(std::move(path)), fd_(open_output(path_, O_TRUNC, kMode)) {
  if (!fd_) refuse(path_, errno);
  lines_.reserve(kBufferBytes + kBufferBytes / 8);
  lines_ = fmt::format("{{\"trace\":\"sevisor\",\"version\":{}}}\n", kTraceVersion);
}

TraceWriter::~TraceWriter() {
  const std::lock_guard lock(mutex_);
  flush();
}

void TraceWriter::describe_run(std::string_view host, unsigned vcpus) {
  const std::lock_guard lock(mutex_);
  lines_ += fmt::format("{{\"t\":0,\"ev\":\"host\",\"name\":\"{}\",\"cpus\":{}}}\n", host, vcpus);
}

void TraceWriter::observe(const kvm::Moment& moment, const kvm::GuestEvent& event) {
  const std::lock_guard lock(mutex_);
  append_trace_line(lines_, moment, event);
  if (lines_.size() >= kBufferBytes) flush();
}

void TraceWriter::finish() {
  const std::lock_guard lock(mutex_);
  flush();
  if (error_number_ != 0) refuse(path_, error_number_);
}

void TraceWriter::flush() noexcept {
  if (error_number_ == 0) error_number_ = write_whole(fd_.get(), std::as_bytes(std::span(lines_)));
  lines_.clear();
}

}  // namespace sevisor::vmm
