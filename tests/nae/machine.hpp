// A VM on the emulated host whose guest is one of the programs of cases.hpp, driven as the VMM drives it: through the
// typed handles. The guest starts in 64-bit mode, with its tables made here.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/mapping.hpp"
#include "emulator/kvm/emulated_host.hpp"
#include "kvm/handles.hpp"
#include "tests/nae/cases.hpp"

namespace sevisor::nae {

enum class InitApi { kEsInit, kInit2 };  // GHCB version 1 and 2

struct Setting {
  InitApi init_api = InitApi::kEsInit;
  unsigned vcpus = 1;
  std::vector<std::uint64_t> parameters = {};
  kvm::Observer* observer = nullptr;
  bool watch_memory = false;
  kvm::Host* host = nullptr;  // null: one of its own; outlives the machine
};

// How KVM_RUN of vCPU 0 ended for good.
struct End {
  int error_number = 0;  // of KVM_RUN
  std::uint32_t reason = 0;
  std::uint64_t data = 0;  // of a system event or internal error
  Result result;
  std::vector<std::uint8_t> port_bytes;  // written to the device's ports
  std::uint64_t exits = 0;               // to user space

  // The guest has found everything as it must be.
  [[nodiscard]] bool passed() const;
  // For a test's message: which check failed and with what.
  [[nodiscard]] std::string text() const;
};

class Machine {
 public:
  explicit Machine(Program program, const Setting& setting = {});
  ~Machine();
  Machine(const Machine&) = delete;
  Machine& operator=(const Machine&) = delete;

  [[nodiscard]] End run();
  [[nodiscard]] const kvm::CpuidTable& cpuid() const noexcept { return cpuid_; }
  [[nodiscard]] const kvm::Vm& vm() const noexcept { return vm_; }
  [[nodiscard]] const kvm::Vcpu& vcpu(unsigned index) const { return vcpus_[index]; }
  void set_parameters(const std::vector<std::uint64_t>& values);
  // The raw view, as the VMM has it.
  [[nodiscard]] std::span<std::byte> ram() const noexcept { return ram_.bytes(); }

 private:
  void put_tables();
  void set_registers(const kvm::Vcpu& vcpu, Program program) const;
  void serve(kvm_run& run, End& end);

  Mapping ram_;
  Mapping read_only_;
  std::unique_ptr<kvm::Host> own_host_;
  kvm::Host& host_;
  kvm::Kvm kvm_;
  kvm::SevDevice sev_;
  kvm::Vm vm_;
  kvm::CpuidTable cpuid_;
  std::vector<kvm::Vcpu> vcpus_;
  std::uint8_t next_byte_ = 0;     // that the port device gave
  std::vector<std::byte> device_;  // registers of the MMIO device
};

}  // namespace sevisor::nae
