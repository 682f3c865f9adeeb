// One emulated x86-64 processor that runs guests: what VMRUN enters and #VMEXIT leaves.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "emulator/cpu/device_bus.hpp"
#include "emulator/cpu/state/vmsa.hpp"
#include "emulator/memory/guest_memory.hpp"

namespace sevisor::emulator {

// What happens inside the guest, where the hypervisor of real hardware cannot look. For tracers.
class CpuObserver {
 public:
  struct Vc {
    std::uint64_t time = 0;  // TSC ticks
    std::uint64_t rip = 0;   // of the instruction, which will be found on the handler's stack
    std::uint64_t rsp = 0;
    std::uint64_t exit_code = 0;  // the error code
    unsigned cpl = 0;
    bool injected = false;  // by EVENTINJ
  };
  struct Use {
    std::uint64_t rip = 0;
    Gpa gpa;
    std::size_t size = 0;  // within the page
    bool shared = false;   // C=0
    bool write = false;
    bool has_memory = true;
  };
  virtual ~CpuObserver() = default;
  // #VC is about to be delivered.
  virtual void vc_raised(const Vc& vc) = 0;
  // IRET has gone to `rip` with `rsp`.
  virtual void returned(std::uint64_t time, std::uint64_t rip, std::uint64_t rsp) = 0;
  // With CpuConfig::watch_memory: an access that the TLB did not answer. False: the page is to stay out of the TLB, so
  // that the next access to it is told too.
  virtual bool memory_used(const Use& use) = 0;
};

// What the guest keeps from its hypervisor.
enum class Protection : std::uint8_t {
  kNone,   // an ordinary guest: one view of memory, no C-bit; what is intercepted leaves with RIP at the instruction
  kSev,    // memory is encrypted as the C-bit says; exits are those of an ordinary guest
  kSevEs,  // registers too: a non-automatic exit is #VC in the guest
};

struct CpuConfig {
  Protection protection = Protection::kSevEs;
  unsigned c_bit = 51;                    // CPUID 0x8000001F EBX[5:0]
  unsigned physical_bits = 48;            // MAXPHYADDR of the guest, C-bit apart
  std::uint64_t tsc_per_instruction = 1;  // TSC ticks (1 ns at 1 GHz) that one retired instruction takes
  std::uint64_t random_seed = 0;          // RDRAND and RDSEED draw from this
  CpuObserver* observer = nullptr;        // null: nobody asks
  bool watch_memory = false;              // needs an observer; slow
};

// Virtual time of one VM in TSC ticks; every vCPU and timer of the VM reads the same.
struct VirtualClock {
  std::uint64_t now = 0;  // at the start of the current run(); run() advances it
};

// The MSR permission map (APM vol. 2, 15.11), as far as it concerns direct_msrs().
struct MsrIntercepts {
  std::vector<std::uint32_t> reads;
  std::vector<std::uint32_t> writes;
};
// MSRs that are the guest's own unless they are intercepted. All others leave, but for SEV_STATUS, which never does.
[[nodiscard]] std::span<const std::uint32_t> direct_msrs() noexcept;

// A debugger of the guest outside of it, whose #DB and #BP leave instead of being delivered: exit kExitException + 1
// with what DR6 would say in EXITINFO1, or + 3, with RIP at INT3.
struct Debugger {
  bool steps = false;
  bool takes_int3 = false;
  bool has_breakpoints = false;  // in the place of the guest's
  std::array<std::uint64_t, 4> addresses{};
  std::uint64_t dr7 = 0;
};

// What the hypervisor gives to VMRUN (VMCB control area, APM vol. 2 appendix B).
struct RunControls {
  std::uint64_t event_injection =
      0;                          // EVENTINJ: vector 7:0, type 10:8, error code valid 11, valid 31, error code 63:32
  bool interrupt_window = false;  // V_IRQ: exit kVintr as soon as an interrupt could be taken
  std::uint64_t instruction_limit = 0;  // exit kIntr once this many instructions have retired (overshoot: one block)
  bool iret_window = false;             // exit kIret once an IRET has been executed: NMIs are masked until then
  const MsrIntercepts* msr_intercepts = nullptr;  // of direct_msrs(); null: none
  const Debugger* debugger = nullptr;
};

// #VMEXIT (APM vol. 2 table 15-33, appendix C); names and values in ghcb/exit_code.hpp.
struct CpuExit {
  std::uint64_t code = 0;               // EXITCODE
  std::uint64_t info1 = 0;              // EXITINFO1
  std::uint64_t info2 = 0;              // EXITINFO2
  std::uint64_t interrupted_event = 0;  // EXITINTINFO, same form as EVENTINJ: must be injected again by the hypervisor
  // Of guests without SEV-ES, and exits with RIP at the instruction: where it ends (nRIP), and its bytes, up to the
  // page's end (decode assist, 15.33.4).
  std::uint64_t next_rip = 0;
  std::array<std::uint8_t, 15> instruction{};
  std::uint8_t instruction_bytes = 0;
  std::string unimplemented;  // not empty: the engine cannot run this instruction; address and bytes named
};

// Cpu::emulate().
enum class Emulated : std::uint8_t {
  kDone,     // the instruction is complete, or one element of a repeated one is
  kWaiting,  // the bus has no answer yet; nothing has happened
  kFaulted,  // it raised an exception, whose handler the guest is in now
  kExited,   // it cannot be done with a bus: `exit` as of run()
};

class CodeCache;  // emulator/cpu/code/code_cache.hpp: decoded instructions, one for all vCPUs of a VM
std::unique_ptr<CodeCache, void (*)(CodeCache*)> make_code_cache();

class Cpu {
 public:
  Cpu(const CpuConfig& config, GuestMemory& memory, CodeCache& code, VirtualClock& clock);
  ~Cpu();
  Cpu(const Cpu&) = delete;
  Cpu& operator=(const Cpu&) = delete;

  // VMRUN and #VMEXIT state. load() ignores what the hardware ignores (EFER.SVME) and returns false when VMRUN would
  // fail (VMEXIT_INVALID): unsupported bits, reserved fields.
  [[nodiscard]] bool load(const Vmsa& vmsa);
  void save(Vmsa& vmsa) const;

  // Runs until an automatic exit. clock.now has moved on by the retired instructions.
  [[nodiscard]] CpuExit run(const RunControls& controls);

  // What a hypervisor does for a guest without SEV-ES: the instruction at RIP, with `bus` in the place of what has no
  // memory, of writes to read-only memory, and of ports in INS and OUTS. Nothing but kExited fills `exit`.
  [[nodiscard]] Emulated emulate(DeviceBus& bus, CpuExit& exit);
  // General registers by their numbers in encodings, and the place in the code, of a guest without SEV-ES.
  [[nodiscard]] std::uint64_t general(unsigned number) const noexcept;
  void set_general(unsigned number, std::uint64_t value) noexcept;
  [[nodiscard]] std::uint64_t linear_rip() const noexcept;
  [[nodiscard]] unsigned cpl() const noexcept;
  [[nodiscard]] unsigned code_bits() const noexcept;  // 16, 32 or 64
  // The hypervisor has done the instruction that ends at `rip`: the guest goes on there. True: it steps (RFLAGS.TF), so
  // #DB is due, and DR6 says why.
  [[nodiscard]] bool complete_instruction(std::uint64_t rip) noexcept;

  // VMCB fields that the hypervisor sees in clear.
  [[nodiscard]] bool interrupts_enabled() const noexcept;  // int_state bit 1: RFLAGS.IF
  [[nodiscard]] bool interrupt_shadow() const noexcept;    // int_state bit 0
  void set_interrupt_shadow(bool on) noexcept;
  void forget_translations() noexcept;                    // INVLPGA of everything
  [[nodiscard]] std::uint64_t ghcb_msr() const noexcept;  // VMCB 0xA0
  void set_ghcb_msr(std::uint64_t value) noexcept;
  // V_TPR/CR8 as the guest last wrote it, for the LAPIC.
  [[nodiscard]] unsigned cr8() const noexcept;
  void set_cr8(unsigned value) noexcept;

  // For error reports and the tracer of the emulator only: real hardware hides these.
  [[nodiscard]] std::uint64_t rip() const noexcept;
  [[nodiscard]] std::uint64_t retired() const noexcept;  // instructions since creation
  [[nodiscard]] std::string describe() const;            // registers, several lines

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace sevisor::emulator
