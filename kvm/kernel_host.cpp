#include "kvm/kernel_host.hpp"

#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

namespace sevisor::kvm {

namespace {

class KernelHost final : public Host {
 public:
  [[nodiscard]] std::string_view name() const noexcept override { return "kernel"; }
  int open(const char* path, int flags) override { return ::open(path, flags | O_CLOEXEC); }
  int ioctl(int fd, unsigned long request, void* argument) override { return ::ioctl(fd, request, argument); }
  void* mmap(int fd, std::size_t size) override {
    void* area = ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    return area == MAP_FAILED ? nullptr : area;
  }
  int munmap(void* address, std::size_t size) override { return ::munmap(address, size); }
  int close(int fd) override { return ::close(fd); }
};

}  // namespace

std::unique_ptr<Host> make_kernel_host() { return std::make_unique<KernelHost>(); }

}  // namespace sevisor::kvm
