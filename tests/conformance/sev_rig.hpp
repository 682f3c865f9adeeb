// An encrypted VM of each kind that KVM has, for the points of the kernel's own selftests of SEV
// (tools/testing/selftests/kvm/x86/sev_*_test.c). Only on hosts that have SEV.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "rig.hpp"

namespace sevisor::conformance {

enum class Kind : std::uint8_t { kSev, kSevEs, kSevInit2, kSevEsInit2 };
[[nodiscard]] constexpr bool has_es(Kind kind) { return kind == Kind::kSevEs || kind == Kind::kSevEsInit2; }
[[nodiscard]] constexpr bool by_init2(Kind kind) { return kind == Kind::kSevInit2 || kind == Kind::kSevEsInit2; }
[[nodiscard]] std::string name_of(Kind kind);
// Whether the kernel makes such VMs: those of KVM_SEV_INIT2 since Linux 6.10.
[[nodiscard]] bool kernel_has(Kind kind);

// SEV API section 2.5 (guest policy).
inline constexpr std::uint32_t kPolicyNoDebug = 1 << 0;
inline constexpr std::uint32_t kPolicyEs = 1 << 2;

// GUEST_STATUS: kvm_sev_guest_status::state.
inline constexpr std::uint32_t kLaunchUpdate = 1;
inline constexpr std::uint32_t kLaunchSecret = 2;
inline constexpr std::uint32_t kRunning = 3;

// Several VMs of one host.
class SevHost {
 public:
  SevHost();
  SevHost(const SevHost&) = delete;
  SevHost& operator=(const SevHost&) = delete;

  // A VM of the type that this kind wants, before its init command.
  [[nodiscard]] kvm::Vm make_vm(Kind kind) const;
  // KVM_MEMORY_ENCRYPT_OP. What the firmware said goes to firmware_error.
  int command(const kvm::Vm& vm, std::uint32_t id, void* data = nullptr);
  template <class T>
  int command_with(const kvm::Vm& vm, std::uint32_t id, T data) {
    return command(vm, id, &data);
  }
  int init(const kvm::Vm& vm, Kind kind);
  int start(const kvm::Vm& vm, std::uint32_t policy);
  int update(const kvm::Vm& vm, std::span<std::byte> memory);
  [[nodiscard]] kvm_sev_guest_status status(const kvm::Vm& vm);
  int measure(const kvm::Vm& vm);
  // KVM_ENABLE_CAP of the two capabilities that take another VM's context.
  int mirror(const kvm::Vm& to, const kvm::Vm& from) const;
  int move(const kvm::Vm& to, const kvm::Vm& from) const;

  std::unique_ptr<kvm::Host> host;
  kvm::Kvm kvm;
  kvm::SevDevice sev;
  std::uint32_t firmware_error = 0;

 private:
  [[nodiscard]] int take_context(int capability, const kvm::Vm& to, const kvm::Vm& from) const;
};

// One guest with memory, launched step by step.
class SevRig : public SevHost {
 public:
  static constexpr std::size_t kRamBytes = 4 << 20;
  static constexpr std::uint64_t kShared = 2 << 20;  // from here on the guest has its memory with C=0
  static constexpr std::uint64_t kCode = 0x1000;

  SevRig(Kind kind, std::uint32_t policy);

  // In 64-bit mode, all private but what begins at kShared.
  void load(Code code);
  // Everything between LAUNCH_START and KVM_RUN, with the states on the way.
  void launch();
  kvm_run& run_to(std::uint32_t reason);

  Kind kind;
  std::uint32_t policy;
  Mapping ram;
  kvm::Vm vm;
  std::vector<kvm::Vcpu> vcpus;
};

}  // namespace sevisor::conformance
