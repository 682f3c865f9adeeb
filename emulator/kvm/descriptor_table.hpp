// The descriptors of one emulated host.
#pragma once

#include <map>
#include <memory>
#include <mutex>

#include "emulator/kvm/file.hpp"

namespace sevisor::emulator {

class DescriptorTable {
 public:
  // Above what the operating system gives out (its limit is 1 << 20 by default).
  static constexpr int kFirst = 1 << 20;

  int add(std::shared_ptr<File> file) {
    const std::lock_guard lock(mutex_);
    int fd = kFirst;
    for (const auto& [used, unused] : files_) {
      if (used != fd) break;
      ++fd;
    }
    files_.emplace(fd, std::move(file));
    return fd;
  }
  // Null: no such descriptor.
  [[nodiscard]] std::shared_ptr<File> find(int fd) const {
    const std::lock_guard lock(mutex_);
    const auto found = files_.find(fd);
    return found == files_.end() ? nullptr : found->second;
  }
  // The file is destroyed when nobody uses it any more. Null: no such descriptor.
  std::shared_ptr<File> remove(int fd) {
    const std::lock_guard lock(mutex_);
    const auto found = files_.find(fd);
    if (found == files_.end()) return nullptr;
    std::shared_ptr<File> file = std::move(found->second);
    files_.erase(found);
    return file;
  }
  // All files hold the platform that holds this table: whoever ends the host ends that circle.
  void clear() {
    std::map<int, std::shared_ptr<File>> files;
    const std::lock_guard lock(mutex_);
    files.swap(files_);
  }

 private:
  mutable std::mutex mutex_;
  std::map<int, std::shared_ptr<File>> files_;
};

}  // namespace sevisor::emulator
