// What each test of this suite stands on: one host, and a VM without SEV with memory and vCPUs in real mode. The host
// is the kernel's or the emulated one, and no test asks which.
#pragma once

#include <catch2/catch.hpp>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/mapping.hpp"
#include "kvm/handles.hpp"

namespace sevisor::conformance {

// The one that the command line names (main.cpp).
[[nodiscard]] std::unique_ptr<kvm::Host> make_host();

// What a call to the host answers: its result, or a negative errno.
[[nodiscard]] int answer(const kvm::HostFd& of, unsigned long request, void* argument = nullptr);
[[nodiscard]] int answer_value(const kvm::HostFd& of, unsigned long request, unsigned long argument);
template <class T>
[[nodiscard]] int answer_to(const kvm::HostFd& of, unsigned long request, T argument) {
  return answer(of, request, &argument);
}

// A line of what this host does, for the comparison of two hosts (agree.sh).
void note(const std::string& what, std::uint64_t value);

// A piece of guest code (guests.S).
struct Code {
  const std::byte* begin;
  const std::byte* end;
  [[nodiscard]] std::span<const std::byte> bytes() const { return {begin, end}; }
};

// How KVM_RUN came back.
struct Exit {
  int error_number = 0;
  std::uint32_t reason = 0;  // KVM_EXIT_*
};

class Rig {
 public:
  static constexpr std::size_t kRamBytes = 1 << 20;
  static constexpr std::uint64_t kCode = 0x1000;       // where run_code() puts the code, and IP starts
  static constexpr std::uint64_t kStack = 0x8000;      // SP
  static constexpr std::uint64_t kHole = 0xd000'0000;  // no slot is here

  enum class Chips : std::uint8_t { kNone, kInKernel };
  explicit Rig(Chips chips = Chips::kNone);
  Rig(const Rig&) = delete;
  Rig& operator=(const Rig&) = delete;

  [[nodiscard]] const kvm::HostFd& system() const { return kvm.descriptor(); }
  [[nodiscard]] const kvm::HostFd& of_vm() const { return vm.descriptor(); }
  [[nodiscard]] const kvm::HostFd& of_vcpu(unsigned index = 0) const { return vcpus.at(index).descriptor(); }
  [[nodiscard]] int slot(std::uint32_t id, std::uint64_t gpa, std::uint64_t size, std::byte* at,
                         std::uint32_t flags = 0) const;
  kvm::Vcpu& add_vcpu();

  // RAM at 0, and code in it that vCPU 0 (made if need be) will run in real mode with flat segments at 0.
  void load(Code code);
  // The same in 64-bit mode, the first GiB mapped as it is and the one from kHole on too.
  void load_long_mode(Code code);
  // KVM_RUN under a timer that ends a run which takes too long: the test fails then.
  Exit run(unsigned index = 0);
  // Runs until an exit of this kind; any other fails the test.
  kvm_run& run_to(std::uint32_t reason, unsigned index = 0);
  // A port write of this many bytes, which guests report with. Its value.
  std::uint32_t next_report(std::uint16_t port = 0x10);
  kvm_regs regs(unsigned index = 0) const;
  void set_regs(const kvm_regs& regs, unsigned index = 0) const;

  std::unique_ptr<kvm::Host> host;
  kvm::Kvm kvm;
  Mapping ram;
  kvm::Vm vm;
  std::vector<kvm::Vcpu> vcpus;
};

}  // namespace sevisor::conformance
