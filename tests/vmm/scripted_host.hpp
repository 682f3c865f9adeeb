// A host that answers what a test tells it to, and remembers what it was asked.
#pragma once

#include <cerrno>
#include <cstring>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "kvm/abi.hpp"
#include "kvm/host.hpp"

namespace sevisor::test {

class ScriptedHost final : public kvm::Host {
 public:
  static constexpr int kKvmFd = 100;
  static constexpr int kSevFd = 101;
  static constexpr int kVmFd = 102;
  static constexpr int kFirstVcpuFd = 103;

  using Answer = std::function<int(void* argument)>;  // 0 or more, or a negative errno

  std::map<unsigned long, Answer> answers;      // by ioctl number; others succeed with 0
  std::map<std::uint32_t, Answer> sev_answers;  // by SEV command; the argument is kvm_sev_cmd
  std::map<std::string, int> open_errors;       // by path
  std::vector<std::string> calls;               // in order, by name
  std::vector<int> closed;
  int mapped = 0;  // areas that are mapped now
  alignas(4096) unsigned char run_area[kvm::kVcpuMmapSize] = {};

  [[nodiscard]] std::string_view name() const noexcept override { return "scripted"; }

  int open(const char* path, int) override {
    calls.push_back(std::string("open ") + path);
    if (const auto error = open_errors.find(path); error != open_errors.end()) return fail(error->second);
    return std::strcmp(path, "/dev/kvm") == 0 ? kKvmFd : kSevFd;
  }

  int ioctl(int, unsigned long request, void* argument) override {
    calls.push_back(name_of(request, argument));
    if (request == KVM_MEMORY_ENCRYPT_OP && argument != nullptr) {
      const auto* command = static_cast<const kvm_sev_cmd*>(argument);
      const auto answer = sev_answers.find(command->id);
      return answer == sev_answers.end() ? 0 : result(answer->second(argument));
    }
    if (const auto answer = answers.find(request); answer != answers.end()) return result(answer->second(argument));
    switch (request) {
      case KVM_GET_API_VERSION:
        return 12;
      case KVM_CREATE_VM:
        return kVmFd;
      case KVM_CREATE_VCPU:
        return kFirstVcpuFd + static_cast<int>(reinterpret_cast<std::uintptr_t>(argument));
      case KVM_GET_VCPU_MMAP_SIZE:
        return static_cast<int>(sizeof run_area);
      default:
        return 0;
    }
  }

  void* mmap(int, std::size_t) override {
    ++mapped;
    return run_area;
  }
  int munmap(void*, std::size_t) override {
    --mapped;
    return 0;
  }
  int close(int fd) override {
    closed.push_back(fd);
    return 0;
  }

 private:
  static int fail(int error_number) {
    errno = error_number;
    return -1;
  }
  static int result(int answer) { return answer < 0 ? fail(-answer) : answer; }

  static std::string name_of(unsigned long request, const void* argument) {
    static const std::map<unsigned long, std::string> kNames = {
        {KVM_GET_API_VERSION, "GET_API_VERSION"},
        {KVM_CHECK_EXTENSION, "CHECK_EXTENSION"},
        {KVM_GET_SUPPORTED_CPUID, "GET_SUPPORTED_CPUID"},
        {KVM_CREATE_VM, "CREATE_VM"},
        {KVM_GET_VCPU_MMAP_SIZE, "GET_VCPU_MMAP_SIZE"},
        {KVM_CREATE_IRQCHIP, "CREATE_IRQCHIP"},
        {KVM_CREATE_PIT2, "CREATE_PIT2"},
        {KVM_SET_USER_MEMORY_REGION, "SET_USER_MEMORY_REGION"},
        {KVM_MEMORY_ENCRYPT_REG_REGION, "REG_REGION"},
        {KVM_CREATE_VCPU, "CREATE_VCPU"},
        {KVM_SET_CPUID2, "SET_CPUID2"},
        {KVM_GET_SREGS, "GET_SREGS"},
        {KVM_SET_SREGS, "SET_SREGS"},
        {KVM_SET_REGS, "SET_REGS"},
        {SEV_ISSUE_CMD, "SEV_ISSUE_CMD"},
    };
    if (request == KVM_MEMORY_ENCRYPT_OP) {
      return argument == nullptr ? "SEV probe" : "SEV " + std::to_string(static_cast<const kvm_sev_cmd*>(argument)->id);
    }
    const auto found = kNames.find(request);
    return found == kNames.end() ? std::to_string(request) : found->second;
  }
};

// KVM's CPUID on an SEV-ES machine: 48 address bits, C-bit 51.
inline void answer_cpuid_with_sev_es(ScriptedHost& host) {
  host.answers[KVM_GET_SUPPORTED_CPUID] = [](void* argument) {
    auto* table = static_cast<kvm_cpuid2*>(argument);
    table->entries[0].function = 0x80000008;
    table->entries[0].eax = 48;
    table->entries[1].function = 0x8000001f;
    table->entries[1].eax = 0xa;
    table->entries[1].ebx = 51;
    table->nent = 2;
    return 0;
  };
}

}  // namespace sevisor::test
