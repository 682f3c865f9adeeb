// A descriptor of a Host, closed when it goes.
#pragma once

#include <utility>

#include "kvm/host.hpp"

namespace sevisor::kvm {

class HostFd {
 public:
  HostFd() noexcept = default;
  // The host must outlive this object.
  HostFd(Host& host, int fd) noexcept : host_(&host), fd_(fd) {}
  HostFd(HostFd&& other) noexcept : host_(other.host_), fd_(std::exchange(other.fd_, -1)) {}
  HostFd& operator=(HostFd&& other) noexcept {
    if (this != &other) {
      reset();
      host_ = other.host_;
      fd_ = std::exchange(other.fd_, -1);
    }
    return *this;
  }
  HostFd(const HostFd&) = delete;
  HostFd& operator=(const HostFd&) = delete;
  ~HostFd() { reset(); }

  [[nodiscard]] int get() const noexcept { return fd_; }
  [[nodiscard]] Host& host() const noexcept { return *host_; }
  void reset() noexcept {
    if (fd_ >= 0) host_->close(fd_);
    fd_ = -1;
  }

  // As ioctl(2): -1 with errno set on failure.
  int ioctl(unsigned long request, void* argument = nullptr) const { return host_->ioctl(fd_, request, argument); }
  int ioctl_value(unsigned long request, unsigned long value) const {
    return host_->ioctl(fd_, request, reinterpret_cast<void*>(value));  // NOLINT(performance-no-int-to-ptr)
  }

 private:
  Host* host_ = nullptr;
  int fd_ = -1;
};

}  // namespace sevisor::kvm
