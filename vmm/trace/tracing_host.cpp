#include "vmm/trace/tracing_host.hpp"

#include <cerrno>
#include <chrono>
#include <cstdint>
#include <map>
#include <mutex>
#include <optional>
#include <string_view>
#include <utility>

#include "base/bytes.hpp"
#include "kvm/abi.hpp"

namespace sevisor::vmm {

namespace {

using Clock = std::chrono::steady_clock;

struct Pending {  // an exit that user space is working on
  kvm::UserExit exit;
  std::uint64_t at_ns = 0;
};

// What a descriptor stands for, as far as the trace needs it.
struct Descriptor {
  enum class Kind { kOther, kVm, kVcpu, kSev } kind = Kind::kOther;
  unsigned vcpu = 0;
  const kvm_run* run = nullptr;
  std::optional<Pending> pending = {};
};

kvm::UserExit exit_of(const kvm_run& run) {
  kvm::UserExit exit{.reason = run.exit_reason};
  if (run.exit_reason == KVM_EXIT_IO) {
    exit.write = run.io.direction == KVM_EXIT_IO_OUT;
    exit.address = run.io.port;
    exit.size = run.io.size;
    exit.count = run.io.count;
  } else if (run.exit_reason == KVM_EXIT_MMIO) {
    exit.write = run.mmio.is_write != 0;
    exit.address = run.mmio.phys_addr;
    exit.size = run.mmio.len;
    exit.count = 1;
  }
  return exit;
}

class TracingHost final : public kvm::Host {
 public:
  TracingHost(std::unique_ptr<kvm::Host> host, kvm::Observer& observer) : host_(std::move(host)), observer_(observer) {}

  ~TracingHost() override {
    for (auto& [fd, descriptor] : descriptors_) tell(descriptor);
  }

  [[nodiscard]] std::string_view name() const noexcept override { return host_->name(); }

  int open(const char* path, int flags) override {
    const int fd = host_->open(path, flags);
    if (std::string_view(path) == "/dev/sev") remember(fd, {.kind = Descriptor::Kind::kSev});
    return fd;
  }

  int ioctl(int fd, unsigned long request, void* argument) override {
    switch (request) {
      case KVM_RUN:
        return run(fd, argument);
      case KVM_CREATE_VM: {
        const int vm = host_->ioctl(fd, request, argument);
        return remember(vm, {.kind = Descriptor::Kind::kVm});
      }
      case KVM_CREATE_VCPU: {
        const int vcpu = host_->ioctl(fd, request, argument);
        const auto id = static_cast<unsigned>(reinterpret_cast<std::uintptr_t>(argument));
        return remember(vcpu, {.kind = Descriptor::Kind::kVcpu, .vcpu = id});
      }
      case KVM_MEMORY_ENCRYPT_OP:
        return sev<kvm_sev_cmd>("vm", fd, request, argument, [](const kvm_sev_cmd& c) { return c.id; });
      case SEV_ISSUE_CMD:
        return sev<sev_issue_cmd>("sev", fd, request, argument, [](const sev_issue_cmd& c) { return c.cmd; });
      default:
        return host_->ioctl(fd, request, argument);
    }
  }

  void* mmap(int fd, std::size_t size) override {
    void* area = host_->mmap(fd, size);
    const std::lock_guard lock(mutex_);
    if (const auto found = descriptors_.find(fd); found != descriptors_.end()) {
      found->second.run = static_cast<const kvm_run*>(area);
    }
    return area;
  }
  int munmap(void* address, std::size_t size) override { return host_->munmap(address, size); }

  int close(int fd) override {
    {
      const std::lock_guard lock(mutex_);
      if (const auto found = descriptors_.find(fd); found != descriptors_.end()) {
        tell(found->second);
        descriptors_.erase(found);
      }
    }
    return host_->close(fd);
  }

 private:
  [[nodiscard]] std::uint64_t now() const {
    return static_cast<std::uint64_t>(std::chrono::nanoseconds(Clock::now() - start_).count());
  }

  int remember(int fd, Descriptor descriptor) {
    if (fd < 0) return fd;
    const std::lock_guard lock(mutex_);
    descriptors_[fd] = descriptor;
    return fd;
  }

  // The exit is over: user space runs the vCPU again, or never will.
  void tell(Descriptor& descriptor) {
    if (!descriptor.pending) return;
    Pending pending = *std::exchange(descriptor.pending, std::nullopt);
    pending.exit.handling_ns = now() - pending.at_ns;
    observer_.observe({.time_ns = pending.at_ns, .vcpu = descriptor.vcpu}, pending.exit);
  }

  int run(int fd, void* argument) {
    {
      const std::lock_guard lock(mutex_);
      if (const auto found = descriptors_.find(fd); found != descriptors_.end()) tell(found->second);
    }
    const int result = host_->ioctl(fd, KVM_RUN, argument);
    const int error_number = result < 0 ? errno : 0;
    {
      const std::lock_guard lock(mutex_);
      const auto found = descriptors_.find(fd);
      if (found != descriptors_.end() && found->second.run != nullptr) {
        kvm::UserExit exit = error_number == 0 ? exit_of(*found->second.run) : kvm::UserExit{};
        exit.error_number = error_number;
        found->second.pending = Pending{exit, now()};
      }
    }
    errno = error_number;
    return result;
  }

  template <class Command, class Id>
  int sev(std::string_view device, int fd, unsigned long request, void* argument, Id id) {
    const std::uint64_t start = now();
    const int result = host_->ioctl(fd, request, argument);
    const int error_number = result < 0 ? errno : 0;
    if (argument != nullptr) {
      const auto command = load<Command>(static_cast<const std::byte*>(argument));
      const std::lock_guard lock(mutex_);
      observer_.observe({.time_ns = start}, kvm::SevCall{.device = device,
                                                         .id = id(command),
                                                         .error_number = error_number,
                                                         .firmware_error = command.error,
                                                         .duration_ns = now() - start});
    }
    errno = error_number;
    return result;
  }

  std::unique_ptr<kvm::Host> host_;
  kvm::Observer& observer_;
  const Clock::time_point start_ = Clock::now();
  std::mutex mutex_;  // guards the descriptors, and lets one event be told at a time
  std::map<int, Descriptor> descriptors_;
};

}  // namespace

std::unique_ptr<kvm::Host> make_tracing_host(std::unique_ptr<kvm::Host> host, kvm::Observer& observer) {
  return std::make_unique<TracingHost>(std::move(host), observer);
}

}  // namespace sevisor::vmm
