#include "firmware/processors.hpp"

#include "base/bytes.hpp"
#include "firmware/cpu.hpp"
#include "firmware/exceptions.hpp"
#include "firmware/guest_state.hpp"
#include "firmware/layout.h"
#include "ghcb/exit_code.hpp"

namespace sevisor::firmware {

namespace {
constexpr std::uint64_t kJumpTableSet = 0;

// Local APIC (APM vol. 2 sections 16.3, 16.5, 16.9).
constexpr std::uint32_t kMsrApicBase = 0x1b;
constexpr std::uint64_t kApicBaseX2 = 1 << 10;
constexpr std::uint64_t kApicBaseEnabled = 1 << 11;
constexpr std::uint64_t kApicBaseMask = 0xffffff000;
constexpr std::uint32_t kMsrX2Icr = 0x830;
constexpr std::uint64_t kIcrLow = 0x300;
constexpr std::uint64_t kIcrHigh = 0x310;
constexpr std::uint32_t kIcrInit = 0x000c4500;  // all but self, level assert, INIT
constexpr std::uint32_t kIcrStartup =
    0x000c4600;  // all but self, level assert, STARTUP; the vector is ignored under SEV-ES

// About a second on the fastest processors, more on others; the second limit is for a clock that stands still.
constexpr std::uint64_t kWaitTicks = 5'000'000'000;
constexpr unsigned kWaitRounds = 1 << 26;

bool send_to_others(std::uint32_t command) noexcept {
  std::uint64_t base = 0;
  if (!read_msr_or_fault(kMsrApicBase, &base) || (base & kApicBaseEnabled) == 0) return false;
  if ((base & kApicBaseX2) != 0) return write_msr_or_fault(kMsrX2Icr, command);
  mmio_write32((base & kApicBaseMask) + kIcrHigh, 0);
  mmio_write32((base & kApicBaseMask) + kIcrLow, command);
  return true;
}

std::uint32_t holding() noexcept { return *reinterpret_cast<const volatile std::uint32_t*>(FW_AP_COUNT); }
}  // namespace

Processors start_processors(FwCfg& fw_cfg) noexcept {
  Processors result;
  const auto count = fw_cfg.read32(FwCfgKey::kNumberOfCpus);
  result.expected = count && (*count & 0xffff) != 0 ? *count & 0xffff : 1;
  if (!sev_es_active()) return result;

  __builtin_memset(reinterpret_cast<void*>(FW_AP_JUMP_TABLE), 0, kPageSize);
  const auto reply = request(ghcb::kExitApJumpTable, kJumpTableSet, FW_AP_JUMP_TABLE);
  result.jump_table = reply.status == ghcb::guest::Reply::Status::kSuccess;
  if (result.expected == 1 || !result.jump_table) return result;

  if (!send_to_others(kIcrInit) || !send_to_others(kIcrStartup)) return result;
  const std::uint64_t start = read_tsc();
  for (unsigned i = 0; i < kWaitRounds && read_tsc() - start < kWaitTicks; ++i) {
    if (holding() >= result.expected - 1) break;
    pause();
  }
  result.holding = holding();
  return result;
}

}  // namespace sevisor::firmware
