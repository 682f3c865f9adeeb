#include "emulator/kvm/emulated_host.hpp"

#include <cerrno>
#include <fcntl.h>
#include <map>
#include <mutex>
#include <string_view>

#include "base/bytes.hpp"
#include "emulator/kvm/kvm_device.hpp"
#include "emulator/kvm/platform.hpp"
#include "emulator/kvm/sev_device.hpp"

namespace sevisor::emulator {

namespace {

int answer(int result) {
  if (result >= 0) return result;
  errno = -result;
  return -1;
}

class EmulatedHost final : public kvm::Host {
 public:
  explicit EmulatedHost(const EmulatedHostOptions& options) : platform_(std::make_shared<Platform>(options)) {}

  ~EmulatedHost() override { platform_->descriptors().clear(); }

  [[nodiscard]] std::string_view name() const noexcept override { return "emulated"; }

  int open(const char* path, int flags) override {
    const std::string_view device(path);
    if (device == "/dev/kvm") return platform_->descriptors().add(std::make_shared<KvmDevice>(platform_));
    if (device == "/dev/sev") {
      const bool writable = (flags & O_ACCMODE) != O_RDONLY;
      return platform_->descriptors().add(std::make_shared<SevDevice>(platform_, writable));
    }
    return answer(-ENOENT);
  }

  int ioctl(int fd, unsigned long request, void* argument) override {
    const auto file = platform_->descriptors().find(fd);
    return answer(file == nullptr ? -EBADF : file->ioctl(request, argument));
  }

  void* mmap(int fd, std::size_t size) override {
    const auto file = platform_->descriptors().find(fd);
    const auto area = file == nullptr ? nullptr : file->shared_area();
    if (area == nullptr || size == 0 || align_up(size, kPageSize) > area->size()) {
      (void)answer(file == nullptr ? -EBADF : area == nullptr ? -ENODEV : -EINVAL);
      return nullptr;
    }
    const std::lock_guard lock(mutex_);
    mapped_.emplace(area->data(), area);
    return area->data();
  }

  int munmap(void* address, std::size_t) override {
    const std::lock_guard lock(mutex_);
    const auto found = mapped_.find(address);
    if (found == mapped_.end()) return answer(-EINVAL);
    mapped_.erase(found);
    return 0;
  }

  int close(int fd) override { return platform_->descriptors().remove(fd) == nullptr ? answer(-EBADF) : 0; }

 private:
  std::shared_ptr<Platform> platform_;
  std::mutex mutex_;
  std::multimap<void*, std::shared_ptr<Mapping>> mapped_;
};

}  // namespace

std::unique_ptr<kvm::Host> make_emulated_host(const EmulatedHostOptions& options) {
  return std::make_unique<EmulatedHost>(options);
}

}  // namespace sevisor::emulator
