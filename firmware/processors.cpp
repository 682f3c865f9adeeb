#include "firmware/processors.hpp"

#include "base/bytes.hpp"
#include "firmware/ap_memory.hpp"
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
constexpr std::uint64_t kApicBaseMask = 0xffffffffff000;
constexpr std::uint64_t kApicAddress = 0xfee00000;  // as after reset
constexpr std::uint32_t kMsrX2Icr = 0x830;
constexpr std::uint64_t kIcrLow = 0x300;
constexpr std::uint64_t kIcrHigh = 0x310;
constexpr std::uint32_t kIcrInit = 0x000c4500;      // all but self, level assert, INIT
constexpr std::uint32_t kIcrStartup = 0x000c4600;   // all but self, level assert, STARTUP; plus the page of its code
constexpr std::uint32_t kCpuidEcxX2Apic = 1 << 21;  // leaf 1
constexpr unsigned kXApicIds = 255;                 // 8 bits, of which one value means all

// About a second on the fastest processors, more on others; the second limit is for a clock that stands still.
constexpr std::uint64_t kWaitTicks = 5'000'000'000;
constexpr unsigned kWaitRounds = 1 << 26;

// The local APIC of the processor that this runs on.
class LocalApic {
 public:
  // Nothing when it is off, or where it cannot be reached. `ids`: how many have to be told apart.
  [[nodiscard]] static std::optional<LocalApic> open(unsigned ids) noexcept {
    std::uint64_t base = 0;
    if (!read_msr_or_fault(kMsrApicBase, &base) || (base & kApicBaseEnabled) == 0) return std::nullopt;
    bool x2 = (base & kApicBaseX2) != 0;
    if (!x2 && ids > kXApicIds && (cpuid(1).ecx & kCpuidEcxX2Apic) != 0) {
      x2 = write_msr_or_fault(kMsrApicBase, base | kApicBaseX2);
    }
    // The MSR is the hypervisor's word: anywhere else the writes might go to private memory.
    if (!x2 && (base & kApicBaseMask) != kApicAddress) return std::nullopt;
    return LocalApic(x2);
  }

  [[nodiscard]] bool send_to_others(std::uint32_t command) const noexcept {
    if (x2_) return write_msr_or_fault(kMsrX2Icr, command);
    mmio_write32(kApicAddress + kIcrHigh, 0);
    mmio_write32(kApicAddress + kIcrLow, command);
    return true;
  }

 private:
  explicit LocalApic(bool x2) noexcept : x2_(x2) {}
  bool x2_;
};

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

void set_ap_msr(const MsrWrite& write) noexcept {
  shared_word(FW_AP_MSR) = write.msr;
  shared_word(FW_AP_MSR + 4) = static_cast<std::uint32_t>(write.value);
  shared_word(FW_AP_MSR + 8) = static_cast<std::uint32_t>(write.value >> 32);
}

extern "C" const std::byte ap_plain[], ap_plain_end[];  // entry.S

// Each writes the MSR at once.
void start_plain(const LocalApic& apic, std::uint32_t others, const MsrWrite& write) noexcept {
  __builtin_memcpy(reinterpret_cast<void*>(FW_AP_JUMP_TABLE), ap_plain,
                   static_cast<std::size_t>(ap_plain_end - ap_plain));
  set_ap_msr(write);
  if (!apic.send_to_others(kIcrInit) || !apic.send_to_others(kIcrStartup | FW_AP_JUMP_TABLE / kPageSize)) return;
  static_cast<void>(wait_for([others] { return shared_word(FW_AP_COUNT) >= others; }));
}

// SEV-ES: each fills a GHCB of its own, asks for the MSR, then holds (ap_hold.S).
void start_held(const LocalApic& apic, const ApMemory& memory, std::uint32_t others,
                const std::optional<MsrWrite>& types) noexcept {
  if (types) set_ap_msr(*types);
  shared_word(FW_AP_VERSION) = protocol_version();
  shared_word(FW_AP_TABLES) = memory.tables;
  shared_word(FW_AP_STACKS) = memory.stacks;
  shared_word(FW_AP_GHCBS) = memory.ghcbs;
  shared_word(FW_AP_LIMIT) = others;
  // A started processor keeps its registers, so the SIPI's vector says nothing.
  if (!apic.send_to_others(kIcrInit) || !apic.send_to_others(kIcrStartup)) return;
  static_cast<void>(wait_for([others] { return shared_word(FW_AP_DONE) >= others; }));
}
}  // namespace

Processors start_processors(FwCfg& fw_cfg, MemoryMap& map, const std::optional<MsrWrite>& types) noexcept {
  const auto count = fw_cfg.read32(FwCfgKey::kNumberOfCpus);
  const std::uint32_t others = count && (*count & 0xffff) != 0 ? (*count & 0xffff) - 1 : 0;
  Processors result{.others = others};
  __builtin_memset(reinterpret_cast<void*>(FW_AP_JUMP_TABLE), 0, kPageSize);
  if (sev_es_active()) {
    const auto reply = request(ghcb::kExitApJumpTable, kJumpTableSet, FW_AP_JUMP_TABLE);
    result.jump_table = reply.status == ghcb::guest::Reply::Status::kSuccess;
  }
  const bool needed = others != 0 && (sev_es_active() || types);
  if (!needed) return result;
  const auto apic = result.jump_table ? LocalApic::open(others + 1) : std::nullopt;
  if (apic && sev_es_active()) {
    const auto memory = make_ap_memory(map, others, early_state().c_bit_mask);
    if (memory) start_held(*apic, *memory, others, types);
  }
  if (apic && !sev_es_active()) start_plain(*apic, others, *types);
  const std::uint32_t arrived = shared_word(sev_es_active() ? FW_AP_DONE : FW_AP_COUNT);
  result.missing = arrived < others ? others - arrived : 0;
  return result;
}

}  // namespace sevisor::firmware
