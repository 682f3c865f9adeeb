#include "vmm/trace/trace_writer.hpp"

#include <cerrno>
#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>
#include <utility>

#include "base/error.hpp"
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

TraceWriter::TraceWriter(std::string path)
    : path_(std::move(path)), fd_(::open(path_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, kMode)) {
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
  std::string_view left = lines_;
  while (!left.empty() && error_number_ == 0) {
    const ssize_t written = ::write(fd_.get(), left.data(), left.size());
    if (written >= 0) {
      left.remove_prefix(static_cast<std::size_t>(written));
    } else if (errno != EINTR) {
      error_number_ = errno;
    }
  }
  lines_.clear();
}

}  // namespace sevisor::vmm
