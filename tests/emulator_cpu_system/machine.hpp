// A small guest on the emulated processor: RAM, tables for each mode, and handlers that report by VMGEXIT.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <span>
#include <vector>

#include "base/bytes.hpp"
#include "base/mapping.hpp"
#include "emulator/cpu/core.hpp"
#include "emulator/cpu/cpu.hpp"
#include "emulator/memory/guest_memory.hpp"
#include "ghcb/exit_code.hpp"

namespace sevisor::emulator::test {

inline constexpr std::uint64_t kRamSize = 4 << 20;
inline constexpr std::uint64_t kCBit = std::uint64_t{1} << 51;

// Where things lie, linear and physical alike.
inline constexpr std::uint64_t kGdt = 0x1000;
inline constexpr std::uint64_t kIdt = 0x2000;
inline constexpr std::uint64_t kTss = 0x3000;
inline constexpr std::uint64_t kPml4 = 0x8000;
inline constexpr std::uint64_t kPdp = 0x9000;
inline constexpr std::uint64_t kPd = 0xa000;
inline constexpr std::uint64_t kPt = 0xb000;
inline constexpr std::uint64_t kPae = 0xc000;  // PDPEs of PAE paging
inline constexpr std::uint64_t kCode = 0x10000;
inline constexpr std::uint64_t kHandlers = 0x18000;  // eight bytes a vector
inline constexpr std::uint64_t kStack = 0x20000;     // tops
inline constexpr std::uint64_t kRing0Stack = 0x24000;
inline constexpr std::uint64_t kIstStack = 0x28000;
inline constexpr std::uint64_t kUserStack = 0x2c000;
inline constexpr std::uint64_t kData = 0x30000;

// Selectors.
inline constexpr std::uint16_t kNullSelector = 0;
inline constexpr std::uint16_t kCode64 = 0x08;
inline constexpr std::uint16_t kData0 = 0x10;
inline constexpr std::uint16_t kCode32 = 0x18;
inline constexpr std::uint16_t kUserCode32 = 0x20;  // STAR[63:48]: SYSRET's base
inline constexpr std::uint16_t kUserData = 0x28;
inline constexpr std::uint16_t kUserCode64 = 0x30;
inline constexpr std::uint16_t kCode16 = 0x38;
inline constexpr std::uint16_t kTssSelector = 0x40;  // two entries
inline constexpr std::uint16_t kCallGate = 0x50;     // two entries
inline constexpr std::uint16_t kSpare = 0x60;        // tests put descriptors here; two entries
inline constexpr std::uint16_t kUserRpl = 3;
inline constexpr std::uint32_t kGdtSize = 0x80;

// Access bytes with P set and DPL 0, flags nibble in bits 11:8, as in the VMCB.
inline constexpr std::uint16_t kAttrCode64 = 0xa9b;
inline constexpr std::uint16_t kAttrCode32 = 0xc9b;
inline constexpr std::uint16_t kAttrCode16 = 0x09b;
inline constexpr std::uint16_t kAttrData = 0xc93;
inline constexpr std::uint16_t kAttrUser = 0x60;

[[nodiscard]] std::uint64_t descriptor(std::uint32_t base, std::uint32_t limit, std::uint16_t attributes);

enum class Mode { kReal, kProtected16, kProtected32, kCompat32, kLong64 };

using Bytes = std::vector<std::uint8_t>;
inline const Bytes kVmgexit = {0xf3, 0x0f, 0x01, 0xd9};

struct Machine {
  Machine();
  Machine(const Machine&) = delete;
  Machine& operator=(const Machine&) = delete;

  // Registers, tables and handlers for the mode; `cpl` 0 or 3. CS:RIP is kCode, RSP kStack (kUserStack).
  void enter(Mode mode, unsigned cpl = 0);
  // The code at kCode, with a VMGEXIT behind it.
  void code(const Bytes& bytes);
  void poke(std::uint64_t gpa, const Bytes& bytes);
  template <class T>
  void put(std::uint64_t gpa, T value) {
    store_private(gpa, std::as_bytes(std::span(&value, 1)));
  }
  template <class T>
  [[nodiscard]] T get(std::uint64_t gpa) {
    T value{};
    load_private(gpa, std::as_writable_bytes(std::span(&value, 1)));
    return value;
  }
  void store_private(std::uint64_t gpa, std::span<const std::byte> bytes);
  void load_private(std::uint64_t gpa, std::span<std::byte> bytes);
  void set_descriptor(std::uint16_t selector, std::uint64_t raw) { put(kGdt + (selector & ~7U), raw); }
  // Gate of the present mode. `type`: 14 interrupt, 15 trap ...
  void set_gate(unsigned vector, unsigned type = 14, unsigned dpl = 0, unsigned ist = 0, bool present = true);

  // VMRUN with `vmsa`, until an exit; the VMSA is saved again.
  CpuExit run();
  // The same, for code that reaches a VMGEXIT through write traps.
  CpuExit run_through_traps();

  // Vector of the handler whose VMGEXIT ended the run; -1 if RIP is not in a handler.
  [[nodiscard]] int vector() const;
  // n-th item of the present stack, each `frame_width` bytes: those of the handler's gate.
  [[nodiscard]] std::uint64_t stacked(unsigned n);

  Mode mode = Mode::kReal;
  unsigned frame_width = 2;
  Mapping ram;
  GuestMemory memory;
  VirtualClock clock;
  std::unique_ptr<CodeCache, void (*)(CodeCache*)> code_cache;
  CpuConfig config;
  Cpu cpu;
  Vmsa vmsa{};
  RunControls controls;
};

}  // namespace sevisor::emulator::test
