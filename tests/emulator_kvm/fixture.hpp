#pragma once

#include <catch2/catch.hpp>
#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <sys/mman.h>
#include <vector>

#include "base/mapping.hpp"
#include "emulator/kvm/emulated_host.hpp"
#include "kvm/abi.hpp"

namespace sevisor::test {

// An emulated host with a VM, to be called as a program calls the kernel.
struct HostFixture {
  std::unique_ptr<kvm::Host> host = emulator::make_emulated_host({.slice = 1000});
  int kvm_fd = host->open("/dev/kvm", O_RDWR);
  int sev_fd = host->open("/dev/sev", O_RDWR);
  Mapping ram = Mapping::anonymous(1 << 20, PROT_READ | PROT_WRITE);

  // The result, or a negative errno.
  int call(int fd, unsigned long request, void* argument = nullptr) {
    const int result = host->ioctl(fd, request, argument);
    return result < 0 ? -errno : result;
  }
  int call(int fd, unsigned long request, unsigned long argument) {
    return call(fd, request, reinterpret_cast<void*>(argument));
  }
  template <class T>
  int call_with(int fd, unsigned long request, T value) {
    return call(fd, request, &value);
  }

  int vm = call(kvm_fd, KVM_CREATE_VM, 0ul);
  std::uint32_t firmware_error = 0;

  int sev(std::uint32_t id, void* data = nullptr) {
    kvm_sev_cmd command{};
    command.id = id;
    command.data = reinterpret_cast<std::uintptr_t>(data);
    command.sev_fd = static_cast<std::uint32_t>(sev_fd);
    const int result = call(vm, KVM_MEMORY_ENCRYPT_OP, &command);
    firmware_error = command.error;
    return result;
  }
  int start(std::uint32_t policy = 5) {
    kvm_sev_launch_start params{};
    params.policy = policy;
    return sev(KVM_SEV_LAUNCH_START, &params);
  }
  int update(void* at, std::uint32_t size) {
    kvm_sev_launch_update_data params{};
    params.uaddr = reinterpret_cast<std::uintptr_t>(at);
    params.len = size;
    return sev(KVM_SEV_LAUNCH_UPDATE_DATA, &params);
  }
  int slot(std::uint32_t id, std::uint64_t gpa, std::uint64_t size, std::byte* at, std::uint32_t flags = 0) {
    return call_with(vm, KVM_SET_USER_MEMORY_REGION,
                     kvm_userspace_memory_region{.slot = id,
                                                 .flags = flags,
                                                 .guest_phys_addr = gpa,
                                                 .memory_size = size,
                                                 .userspace_addr = reinterpret_cast<std::uintptr_t>(at)});
  }
};

}  // namespace sevisor::test
