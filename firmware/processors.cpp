#include "firmware/processors.hpp"

#include "base/bytes.hpp"
#include "firmware/cpu.hpp"
#include "firmware/exceptions.hpp"
#include "firmware/guest_state.hpp"
#include "firmware/layout.h"
#include "firmware/paging.hpp"
#include "ghcb/exit_code.hpp"

namespace sevisor::firmware {

namespace {
constexpr std::uint64_t kJumpTableSet = 0;
constexpr std::uint64_t kMsrWrite = 1;

// Local APIC (APM vol. 2 sections 16.3, 16.5, 16.9).
constexpr std::uint32_t kMsrApicBase = 0x1b;
constexpr std::uint64_t kApicBaseX2 = 1 << 10;
constexpr std::uint64_t kApicBaseEnabled = 1 << 11;
constexpr std::uint64_t kApicBaseMask = 0xffffffffff000;
constexpr std::uint64_t kApicAddress = 0xfee00000;  // as after reset
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
  // The MSR is the hypervisor's word: anywhere else the writes might go to private memory.
  if ((base & kApicBaseMask) != kApicAddress) return false;
  mmio_write32(kApicAddress + kIcrHigh, 0);
  mmio_write32(kApicAddress + kIcrLow, command);
  return true;
}

volatile std::uint32_t& shared_word(std::uint64_t address) noexcept {
  return *reinterpret_cast<volatile std::uint32_t*>(address);
}

template <class Condition>
bool wait_for(const Condition& condition) noexcept {
  const std::uint64_t start = read_tsc();
  for (unsigned i = 0; i < kWaitRounds && read_tsc() - start < kWaitTicks; ++i) {
    if (condition()) return true;
    pause();
  }
  return condition();
}

// The GHCB of an application processor: this processor fills it and reads the reply, the other one only executes
// VMGEXIT.
class RemoteChannel final : public ghcb::guest::Channel {
 public:
  explicit RemoteChannel(std::uint32_t processor) noexcept : processor_(processor) {}

  ghcb::Page& page() noexcept override { return *reinterpret_cast<ghcb::Page*>(FW_AP_REQUEST); }
  std::uint64_t page_address() const noexcept override { return FW_AP_REQUEST; }
  void vmgexit() noexcept override {
    asm volatile("" : : : "memory");  // the page is written before the turn is given
    shared_word(FW_AP_TURN) = processor_;
    const bool done = wait_for([] { return shared_word(FW_AP_TURN) == FW_AP_TURN_NONE; });
    if (!done) page().valid.clear();  // then there is no reply
    asm volatile("" : : : "memory");
  }

 private:
  std::uint32_t processor_;
};

bool set_memory_types_of(std::uint32_t processor, const MemoryTypes& types) noexcept {
  RemoteChannel channel(processor);
  for (std::size_t i = 0; i < types.count; ++i) {
    const std::uint64_t value = types.writes[i].value;
    ghcb::guest::Exchange exchange(channel, static_cast<std::uint16_t>(protocol_version()));
    exchange.set(ghcb::Field::kRcx, types.writes[i].msr);
    exchange.set(ghcb::Field::kRax, value & 0xffffffff);
    exchange.set(ghcb::Field::kRdx, value >> 32);
    const auto reply = exchange.call(ghcb::kExitMsr, kMsrWrite, 0);
    if (reply.status != ghcb::guest::Reply::Status::kSuccess) return false;
  }
  return true;
}
}  // namespace

Processors start_processors(FwCfg& fw_cfg, const MemoryTypes& types) noexcept {
  Processors result;
  const auto count = fw_cfg.read32(FwCfgKey::kNumberOfCpus);
  result.expected = count && (*count & 0xffff) != 0 ? *count & 0xffff : 1;
  if (!sev_es_active()) return result;

  __builtin_memset(reinterpret_cast<void*>(FW_AP_JUMP_TABLE), 0, kPageSize);
  shared_word(FW_AP_TURN) = FW_AP_TURN_NONE;
  const auto reply = request(ghcb::kExitApJumpTable, kJumpTableSet, FW_AP_JUMP_TABLE);
  result.jump_table = reply.status == ghcb::guest::Reply::Status::kSuccess;
  const std::uint32_t others = result.expected - 1;
  if (others == 0 || !result.jump_table) return result;

  share_pages(FW_AP_REQUEST, FW_AP_REQUEST + kPageSize, early_state().c_bit_mask);
  __builtin_memset(reinterpret_cast<void*>(FW_AP_REQUEST), 0, kPageSize);
  if (!send_to_others(kIcrInit) || !send_to_others(kIcrStartup)) return result;
  static_cast<void>(wait_for([others] { return shared_word(FW_AP_COUNT) >= others; }));
  // More than there should be do not count: a processor of its own number gets a turn, no other.
  const std::uint32_t arrived = shared_word(FW_AP_COUNT);
  result.started = arrived < others ? arrived : others;
  for (std::uint32_t i = 0; i < result.started; ++i) {
    if (!set_memory_types_of(i, types)) break;  // the operating system will say so and correct it
  }
  shared_word(FW_AP_TURN) = FW_AP_TURN_OVER;
  return result;
}

}  // namespace sevisor::firmware
