// Breakpoints and single steps: when #DB comes and what DR6 then says (APM vol. 2, 13.1). An SEV-ES guest has no way to
// arm a breakpoint unless its debug registers are swapped, since its accesses to DR7 are intercepted. Breakpoints on
// ports do not hit: every access to a port is intercepted before it happens.
#include <bit>

#include "emulator/cpu/core.hpp"
#include "emulator/cpu/system.hpp"

namespace sevisor::emulator {

namespace {

constexpr unsigned kBreakpoints = 4;
constexpr std::uint64_t kEnables = 0xff;  // L0 G0 ... L3 G3

enum Kind : unsigned { kInstruction = 0, kWrites = 1, kPorts = 2, kReadsAndWrites = 3 };

struct Breakpoint {
  std::uint64_t dr7;
  unsigned number;

  [[nodiscard]] bool enabled() const noexcept { return (dr7 >> 2 * number & 3) != 0; }
  [[nodiscard]] unsigned kind() const noexcept { return dr7 >> (16 + 4 * number) & 3; }
  // Bytes. LEN 2 means eight of them.
  [[nodiscard]] std::uint64_t size() const noexcept {
    constexpr std::uint64_t kSizes[] = {1, 2, 8, 4};
    return kSizes[dr7 >> (18 + 4 * number) & 3];
  }
};

}  // namespace

bool Core::owns_debug_registers() const noexcept {
  return config.protection != Protection::kSevEs || (sev_features & kFeatureDebugSwap) != 0;
}

void Core::look_at_breakpoints() noexcept {
  breakpoints_armed = (armed_dr7() & kEnables) != 0 && owns_debug_registers();
  watching = false;
  if (!breakpoints_armed) return;
  for (unsigned i = 0; i < kBreakpoints; ++i) {
    const Breakpoint b{armed_dr7(), i};
    watching = watching || (b.enabled() && (b.kind() == kWrites || b.kind() == kReadsAndWrites));
  }
}

void Core::note_access(std::uint64_t va, std::size_t size, bool write) noexcept {
  if (!code64) va &= 0xffff'ffff;
  for (unsigned i = 0; i < kBreakpoints; ++i) {
    const Breakpoint b{armed_dr7(), i};
    const bool watched = b.kind() == kReadsAndWrites || (write && b.kind() == kWrites);
    if (!b.enabled() || !watched) continue;
    const std::uint64_t from = armed_address(i) & ~(b.size() - 1);
    if (va < from + b.size() && from < va + size) data_hits |= static_cast<std::uint8_t>(1U << i);
  }
}

bool Core::hits_instruction_breakpoint() noexcept {
  if ((system_flags & kFlagRf) != 0) return false;
  const std::uint64_t va = code64 ? rip : (segment_base(kCs) + rip) & 0xffff'ffff;
  std::uint64_t hits = 0;
  for (unsigned i = 0; i < kBreakpoints; ++i) {
    const Breakpoint b{armed_dr7(), i};
    if (b.enabled() && b.kind() == kInstruction && armed_address(i) == va) hits |= std::uint64_t{1} << i;
  }
  if (hits == 0) return false;
  if (debugger_armed) {
    exit.info1 = hits;
  } else {
    dr6 = (dr6 & ~kDr6Hits) | hits;
  }
  fault_info = Fault{.vector = kVectorDb};
  return true;
}

void Core::note_debug_trap(bool stepped) noexcept {
  if (stepped_by_debugger() || (debugger_armed && data_hits != 0)) {
    exit.info1 = data_hits | (stepped_by_debugger() ? kDr6SingleStep : 0);
  } else {
    if (stepped) dr6 |= kDr6SingleStep;
    if (data_hits != 0) dr6 = (dr6 & ~kDr6Hits) | data_hits;
  }
  data_hits = 0;
  fault_info = Fault{.vector = kVectorDb, .trap = true};
}

}  // namespace sevisor::emulator
