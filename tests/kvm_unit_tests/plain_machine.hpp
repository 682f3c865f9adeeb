// A PC with as much in it as kvm-unit-tests look at, whose processors are the emulated host's without SEV-ES, and a
// hypervisor that answers what they exit with. Devices: QEMU's isa-debug-exit at 0xF4 and pc-testdev (ports 0xE0,
// interrupt lines at 0x2000, memory at 0xFF000000), a serial port's transmitter, fw_cfg's oldest entries.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/mapping.hpp"
#include "emulator/cpu/cpu.hpp"
#include "emulator/irqchip/irqchip.hpp"
#include "emulator/kvm/cpuid_table.hpp"
#include "emulator/kvm/instruction_emulator.hpp"
#include "emulator/kvm/msr_store.hpp"
#include "emulator/memory/guest_memory.hpp"

namespace sevisor::kvm_unit_tests {

inline constexpr std::uint64_t kRamSize = 512U << 20;

struct Ending {
  enum class Why { kExit, kShutdown, kStuck, kLimit, kUnsupported } why;
  unsigned code = 0;   // kExit: what the guest wrote to 0xF4
  std::string detail;  // of the others
};

class PlainMachine {
 public:
  // `image`: a multiboot ELF of 32 bits. Throws Error if it is none.
  PlainMachine(std::span<const std::byte> image, const std::string& command_line, unsigned vcpus);
  ~PlainMachine();
  PlainMachine(const PlainMachine&) = delete;
  PlainMachine& operator=(const PlainMachine&) = delete;

  // Until the guest ends, or all vCPUs together have retired `instructions`. The serial port goes to standard output.
  Ending run(std::uint64_t instructions);

 private:
  enum class State { kRunning, kHalted, kWaitsForSipi };
  // What a vCPU's accesses lead to.
  struct Devices final : emulator::EmulatorClient {
    Devices(PlainMachine& of, unsigned vcpu) : machine(of), index(vcpu) {}
    bool port(const ghcb::PortAccess& access) override;
    bool mmio(const ghcb::MmioAccess& access) override;
    void inject_exception(std::uint8_t vector, std::optional<std::uint32_t> error_code) override;
    PlainMachine& machine;
    unsigned index;
  };
  struct Vcpu {
    std::unique_ptr<emulator::Cpu> cpu;
    std::unique_ptr<Devices> devices;
    std::unique_ptr<emulator::InstructionEmulator> instructions;
    std::vector<kvm_cpuid_entry2> cpuid;
    emulator::MsrStore msrs;
    State state = State::kRunning;
    std::uint64_t injection = 0;  // EVENTINJ for the next entry
    bool nmi_masked = false;      // until IRET
  };

  void load(std::span<const std::byte> image, const std::string& command_line);
  void put(std::uint64_t gpa, std::span<const std::byte> bytes);
  bool ready(unsigned index);
  void take_init_and_sipi(unsigned index);
  emulator::RunControls controls_of(unsigned index);
  void slice(unsigned index);
  bool handle(unsigned index, const emulator::CpuExit& exit);  // false: the slice is over
  void emulate(unsigned index, const emulator::CpuExit& exit);
  void cannot_emulate(const Vcpu& vcpu, const emulator::CpuExit& exit);
  bool msr(unsigned index, bool write);  // false: #GP
  void write_port(std::uint16_t number, unsigned size, std::uint64_t value);
  std::uint64_t read_port(std::uint16_t number, unsigned size);
  void trap_if_stepping(Vcpu& vcpu);
  void inject(Vcpu& vcpu, unsigned vector, std::optional<std::uint32_t> error = std::nullopt);

  Mapping ram_;
  Mapping device_ram_;
  emulator::GuestMemory memory_;
  emulator::VirtualClock clock_;
  std::unique_ptr<emulator::CodeCache, void (*)(emulator::CodeCache*)> code_;
  emulator::Irqchip chip_;
  std::vector<Vcpu> vcpus_;
  std::optional<Ending> ending_;
  std::uint32_t test_port_ = 0;
  std::uint16_t config_entry_ = 0;
  unsigned config_offset_ = 0;
  std::uint8_t cmos_index_ = 0;
};

}  // namespace sevisor::kvm_unit_tests
