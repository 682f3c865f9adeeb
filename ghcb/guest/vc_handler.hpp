// The core of a #VC handler in 64-bit mode at CPL 0: finds out what the interrupted instruction wants, asks the
// hypervisor for just that, checks the answer and applies it. It holds no lock, prints nothing and touches no memory
// but through Platform. GHCB specification (AMD 56421) section 4; APM vol. 2 section 15.35.5. Freestanding.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "ghcb/guest/exchange.hpp"
#include "ghcb/guest/instruction.hpp"

namespace sevisor::ghcb::guest {

// Where a linear address leads, by the page tables.
struct Translation {
  bool mapped = false;
  bool shared = false;    // the leaf has the C-bit clear
  std::uint64_t gpa = 0;  // without the C-bit
};

// The processor and memory that the handler works for.
class Platform : public Channel {
 public:
  // Copies up to bytes.size() code bytes from `linear` and returns how many there are.
  [[nodiscard]] virtual std::size_t fetch(std::uint64_t linear, std::span<std::uint8_t> bytes) noexcept = 0;
  // Plain memory, for the operands of string I/O and of MOVS. False when it is not mapped.
  [[nodiscard]] virtual bool read(std::uint64_t linear, std::span<std::uint8_t> bytes) noexcept = 0;
  [[nodiscard]] virtual bool write(std::uint64_t linear, std::span<const std::uint8_t> bytes) noexcept = 0;
  [[nodiscard]] virtual Translation translate(std::uint64_t linear) noexcept = 0;
  [[nodiscard]] virtual std::uint64_t segment_base(SegmentOverride segment) noexcept = 0;  // 0 for kNone
  [[nodiscard]] virtual std::uint64_t xcr0() noexcept = 0;                                 // 1 unless CR4.OSXSAVE

 protected:
  ~Platform() = default;
};

struct VcResult {
  enum class Outcome : std::uint8_t {
    kResume,     // registers are updated; go on at their RIP
    kException,  // raise `event` at the unchanged registers
    kRefused,    // not an event or instruction that is emulated, or not the one the error code names
    kViolation,  // the hypervisor's reply breaks the protocol
  };
  Outcome outcome = Outcome::kRefused;
  Event event{};

  static constexpr VcResult resume() noexcept { return {.outcome = Outcome::kResume}; }
  static constexpr VcResult refused() noexcept { return {.outcome = Outcome::kRefused}; }
  static constexpr VcResult violation() noexcept { return {.outcome = Outcome::kViolation}; }
  static constexpr VcResult exception(Event event) noexcept { return {.outcome = Outcome::kException, .event = event}; }
};

class VcHandler {
 public:
  // `version`: the negotiated protocol version. The platform outlives the handler.
  VcHandler(Platform& platform, std::uint16_t version) noexcept : platform_(platform), version_(version) {}

  // `error_code` as #VC pushed it: the exit code. Registers change only when the outcome is kResume.
  [[nodiscard]] VcResult handle(Registers& registers, std::uint64_t error_code) noexcept;

 private:
  VcResult cpuid(Registers& registers) noexcept;
  VcResult msr(const Instruction& instruction, Registers& registers) noexcept;
  VcResult counter(ExitCode code, Registers& registers) noexcept;
  VcResult vmmcall(Registers& registers) noexcept;
  VcResult plain(ExitCode code) noexcept;
  VcResult unsupported(ExitCode code) noexcept;
  VcResult read_dr7(const Instruction& instruction, Registers& registers) noexcept;
  VcResult write_dr7(const Instruction& instruction, const Registers& registers) noexcept;
  VcResult port(const Instruction& instruction, Registers& registers) noexcept;
  VcResult string_port(const Instruction& instruction, Registers& registers) noexcept;
  VcResult mmio(const Instruction& instruction, Registers& registers) noexcept;
  VcResult mmio_store_string(const Instruction& instruction, Registers& registers) noexcept;
  VcResult mmio_move_string(const Instruction& instruction, Registers& registers) noexcept;
  VcResult mmio_read(std::uint64_t linear, unsigned size, std::uint64_t& value) noexcept;
  VcResult mmio_write(std::uint64_t linear, unsigned size, std::uint64_t value) noexcept;

  Platform& platform_;
  std::uint16_t version_;
  std::uint64_t dr7_ = 0x400;  // as the guest last wrote it; its value at reset
};

}  // namespace sevisor::ghcb::guest
