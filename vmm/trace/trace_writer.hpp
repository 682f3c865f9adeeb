// `sevisor run --trace FILE`: what the host tells goes to a file, one line an event (vmm/trace/trace_line.hpp).
#pragma once

#include <mutex>
#include <string>
#include <string_view>

#include "base/unique_fd.hpp"
#include "kvm/observer.hpp"

namespace sevisor::vmm {

class TraceWriter final : public kvm::Observer {
 public:
  // Opens the file and empties it. Throws Error (kBadUsage).
  explicit TraceWriter(std::string path);
  // What is left is written, if it can be: a launch that fails leaves a trace too.
  ~TraceWriter() override;

  // A line that says which host it is and how many vCPUs the guest has.
  void describe_run(std::string_view host, unsigned vcpus);
  void observe(const kvm::Moment& moment, const kvm::GuestEvent& event) override;
  // Writes what is left. Throws Error (kBadUsage) if any of the trace could not be written.
  void finish();

 private:
  void flush() noexcept;  // with the lock held

  std::string path_;
  UniqueFd fd_;
  std::mutex mutex_;
  std::string lines_;
  int error_number_ = 0;  // of the first write that failed; nothing is written after it
};

}  // namespace sevisor::vmm
