#include "firmware/processors.hpp"

#include "base/bytes.hpp"
#include "firmware/cpu.hpp"
#include "firmware/exceptions.hpp"
#include "firmware/guest_state.hpp"
#include "firmware/layout.h"
#include "firmware/paging.hpp"
#include "ghcb/exit_code.hpp"
#include "ghcb/page.hpp"

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

// The GHCB page of application processor `index` gets a request that writes the MSR.
void prepare_request(std::uint32_t index, const MsrWrite& write) noexcept {
  auto& page = *reinterpret_cast<ghcb::Page*>(FW_BOUNCE + index % FW_AP_REQUESTS * kPageSize);
  __builtin_memset(&page, 0, sizeof page);
  page.version = static_cast<std::uint16_t>(protocol_version());
  page.usage = ghcb::kUsageStandard;
  page.exit_code = ghcb::kExitMsr;
  page.exit_info_1 = kMsrWrite;
  page.rcx = write.msr;
  page.rax = write.value & 0xffffffff;
  page.rdx = write.value >> 32;
  for (const auto field : {ghcb::Field::kExitCode, ghcb::Field::kExitInfo1, ghcb::Field::kExitInfo2, ghcb::Field::kRcx,
                           ghcb::Field::kRax, ghcb::Field::kRdx}) {
    page.valid.set(field);
  }
}
static_assert(FW_AP_REQUESTS * kPageSize <= FW_BOUNCE_SIZE);
static_assert((FW_AP_REQUESTS & (FW_AP_REQUESTS - 1)) == 0);

// Requests for the processors from `first` on, of `others` in all. Returns how many processors then have had theirs.
std::uint32_t prepare_requests(std::uint32_t first, std::uint32_t others, const MsrWrite& write) noexcept {
  const std::uint32_t left = others - first;
  const std::uint32_t end = first + (left < FW_AP_REQUESTS ? left : FW_AP_REQUESTS);
  for (std::uint32_t i = first; i < end; ++i) prepare_request(i, write);
  asm volatile("" : : : "memory");  // the pages are written before they may be sent
  shared_word(FW_AP_READY) = end;
  return end;
}

extern "C" const std::byte ap_plain[], ap_plain_end[];  // entry.S

// Each writes the MSR at once.
void start_plain(const LocalApic& apic, std::uint32_t others, const MsrWrite& write) noexcept {
  __builtin_memcpy(reinterpret_cast<void*>(FW_AP_JUMP_TABLE), ap_plain,
                   static_cast<std::size_t>(ap_plain_end - ap_plain));
  shared_word(FW_AP_MSR) = write.msr;
  shared_word(FW_AP_MSR + 4) = static_cast<std::uint32_t>(write.value);
  shared_word(FW_AP_MSR + 8) = static_cast<std::uint32_t>(write.value >> 32);
  if (!apic.send_to_others(kIcrInit) || !apic.send_to_others(kIcrStartup | FW_AP_JUMP_TABLE / kPageSize)) return;
  static_cast<void>(wait_for([others] { return shared_word(FW_AP_COUNT) >= others; }));
}

// SEV-ES: each asks for the MSR, then holds.
void start_held(const LocalApic& apic, std::uint32_t others, const std::optional<MsrWrite>& types) noexcept {
  // Most often all requests are there before a processor asks, and none has to wait. What the hypervisor answers is of
  // no matter: the operating system sets the memory types again, and says so if they were wrong.
  std::uint32_t ready = 0;
  if (types) {
    ready = prepare_requests(0, others, *types);
  } else {
    shared_word(FW_AP_READY) = FW_AP_READY_OVER;
  }
  // A started processor keeps its registers, so the SIPI's vector says nothing.
  if (!apic.send_to_others(kIcrInit) || !apic.send_to_others(kIcrStartup)) return;
  // More than there should be do not count: a processor of its own number gets a request, no other.
  if (types) {
    while (wait_for([ready] { return shared_word(FW_AP_DONE) >= ready; }) && ready < others) {
      ready = prepare_requests(ready, others, *types);
    }
    shared_word(FW_AP_READY) = FW_AP_READY_OVER;
  } else {
    static_cast<void>(wait_for([others] { return shared_word(FW_AP_COUNT) >= others; }));
  }
}
}  // namespace

Processors start_processors(FwCfg& fw_cfg, const std::optional<MsrWrite>& types) noexcept {
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
  if (apic && sev_es_active()) start_held(*apic, others, types);
  if (apic && !sev_es_active()) start_plain(*apic, others, *types);
  const std::uint32_t arrived = shared_word(FW_AP_COUNT);
  result.missing = arrived < others ? others - arrived : 0;
  return result;
}

}  // namespace sevisor::firmware
