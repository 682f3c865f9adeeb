// Completes the instructions of a guest whose registers KVM can see, where they touch devices: IN, OUT, INS, OUTS, and
// whatever reads and writes memory that has no slot or is read-only. Each access is offered to the devices in the
// kernel first; the others go to user space one by one, in program order. As in Linux (arch/x86/kvm/x86.c
// emulator_read_write(), kvm_fast_pio()) an instruction that reads is done when its last value is there, and one that
// writes before user space hears of it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <variant>
#include <vector>

#include "emulator/cpu/cpu.hpp"
#include "ghcb/hypervisor/service.hpp"

namespace sevisor::emulator {

// The hypervisor around it.
class EmulatorClient {
 public:
  virtual ~EmulatorClient() = default;
  // As ghcb::Environment has them.
  [[nodiscard]] virtual bool port(const ghcb::PortAccess& access) = 0;
  [[nodiscard]] virtual bool mmio(const ghcb::MmioAccess& access) = 0;
  virtual void inject_exception(std::uint8_t vector, std::optional<std::uint32_t> error_code) = 0;
};

class InstructionEmulator final : private DeviceBus {
 public:
  explicit InstructionEmulator(EmulatorClient& client) : client_(client) {}

  // The guest goes on; user space does an access and then complete() is called; the instruction cannot be emulated, and
  // ended with this exit instead.
  using Outcome = std::variant<ghcb::Resume, ghcb::PortExit, ghcb::MmioExit, CpuExit>;
  // IN or OUT, which `exit` is of.
  [[nodiscard]] Outcome port(Cpu& cpu, const CpuExit& exit);
  // The instruction at RIP.
  [[nodiscard]] Outcome emulate(Cpu& cpu);
  // User space has done the access; what it read is in access.data.
  [[nodiscard]] Outcome complete(Cpu& cpu);
  // What is under way is dropped: the vCPU is reset.
  void forget();

 private:
  enum class Waiting : std::uint8_t { kNone, kPort, kRead, kWrite };
  struct Access {
    bool port = false;
    bool write = false;
    std::uint64_t address = 0;
    unsigned size = 0;  // of an element
    std::vector<std::byte> data;
  };

  bool read(Gpa gpa, std::span<std::byte> data) override;
  void write(Gpa gpa, std::span<const std::byte> data) override;
  bool input(std::uint16_t port, unsigned size, std::span<std::byte> data) override;
  void output(std::uint16_t port, unsigned size, std::span<const std::byte> data) override;

  bool answer(const Access& wanted, std::span<std::byte> data);
  [[nodiscard]] static ghcb::MmioAccess mmio_access(Access& access);
  [[nodiscard]] static ghcb::PortAccess port_access(Access& access);
  [[nodiscard]] bool offer(Access& access);
  [[nodiscard]] static Outcome ask(Access& access);
  Outcome perform_writes();
  void finish_port(Cpu& cpu);
  void step_over(Cpu& cpu, std::uint64_t next_rip);

  EmulatorClient& client_;
  Waiting waiting_ = Waiting::kNone;
  std::vector<Access> answers_;  // to what the instruction has read so far
  std::size_t used_answers_ = 0;
  Access pending_;
  std::vector<Access> writes_;
  std::size_t next_write_ = 0;
  // Of IN and OUT: RIP is still at the instruction; user space may have moved it away.
  std::uint64_t linear_rip_ = 0;
  std::uint64_t next_rip_ = 0;
};

}  // namespace sevisor::emulator
