#include "emulator/kvm/msr_store.hpp"

#include <algorithm>
#include <iterator>

namespace sevisor::emulator {

namespace {

constexpr std::uint32_t kMsrTsc = 0x10;

enum class Kind {
  kFixed,    // reads the value; a write of anything is refused
  kIgnored,  // reads the value; writes have no effect
  kStored,   // reads what was last written, the value at first
};

// Ranges by first index. Values: Linux arch/x86/kvm/x86.c kvm_get_msr_common(), svm.c svm_get_msr(); AMD APM vol. 2
// appendix A.
struct Range {
  std::uint32_t first;
  std::uint32_t last;
  Kind kind;
  std::uint64_t value;
};
constexpr std::uint32_t kMceBanks = 10;  // as many as QEMU gives, if it is not said otherwise
constexpr std::uint32_t kMcgCap = 0x179;
constexpr std::uint32_t kMcgCtl = 0x17b;
constexpr std::uint32_t kFirstBank = 0x400;
constexpr std::uint64_t kAllOnes = ~std::uint64_t{0};
constexpr Range kRanges[] = {
    {0x10, 0x10, Kind::kIgnored, 0},           // TSC: the virtual clock cannot be moved
    {0x17, 0x17, Kind::kIgnored, 0},           // PLATFORM_ID
    {0x79, 0x79, Kind::kIgnored, 0},           // microcode update, Intel's
    {0x8b, 0x8b, Kind::kIgnored, 0x01000065},  // PATCH_LEVEL
    {0xfe, 0xfe, Kind::kFixed, 0x508},         // MTRRcap: 8 variable, fixed ones, write combining
    {kMcgCap, kMcgCap, Kind::kFixed, 0},       // MCG_CAP: as KVM_X86_SETUP_MCE left it
    {0x17a, 0x17a, Kind::kStored, 0},          // MCG_STATUS
    {kMcgCtl, kMcgCtl, Kind::kStored, kAllOnes},
    {0x1a0, 0x1a0, Kind::kStored, 1},   // MISC_ENABLE, Intel's: fast strings
    {0x1d9, 0x1d9, Kind::kIgnored, 0},  // DEBUGCTL
    {0x1db, 0x1de, Kind::kIgnored, 0},  // last branch and exception
    {0x200, 0x20f, Kind::kStored, 0},   // variable MTRRs
    {0x250, 0x250, Kind::kStored, 0},   // fixed MTRRs
    {0x258, 0x259, Kind::kStored, 0},
    {0x268, 0x26f, Kind::kStored, 0},
    {0x2ff, 0x2ff, Kind::kStored, 0},  // MTRRdefType
    {kFirstBank, kFirstBank + 4 * kMaxMachineCheckBanks - 1, Kind::kStored,
     0},                                               // the banks: MCi_CTL, STATUS, ADDR, MISC
    {0xc0010000, 0xc0010007, Kind::kIgnored, 0},       // K7 performance counters
    {0xc0010010, 0xc0010010, Kind::kIgnored, 0},       // SYSCFG
    {0xc0010015, 0xc0010015, Kind::kStored, 1 << 24},  // HWCR: the TSC counts at the P0 frequency
    {0xc001001a, 0xc001001a, Kind::kIgnored, 0},       // TOP_MEM
    {0xc001001d, 0xc001001d, Kind::kIgnored, 0},       // TOP_MEM2
    {0xc001001f, 0xc001001f, Kind::kIgnored, 0},       // NB_CFG
    {0xc0010055, 0xc0010055, Kind::kIgnored, 0},       // INT_PENDING_MSG
    {0xc0010114, 0xc0010114, Kind::kIgnored, 0},       // VM_CR
    {0xc0010140, 0xc0010141, Kind::kFixed, 0},         // OSVW: no erratum needs a workaround
    {0xc0011020, 0xc0011020, Kind::kIgnored, 0},       // LS_CFG
    {0xc0011022, 0xc0011022, Kind::kIgnored, 0},       // DC_CFG
    {0xc0011023, 0xc0011023, Kind::kIgnored, 0},       // BU_CFG
    {0xc0011029, 0xc0011029, Kind::kStored, 2},        // DE_CFG: LFENCE serialises
    {0xc001102a, 0xc001102a, Kind::kIgnored, 0},       // BU_CFG2
};
static_assert(std::is_sorted(std::begin(kRanges), std::end(kRanges),
                             [](const Range& a, const Range& b) { return a.last < b.first; }));

const Range* find(std::uint32_t index) {
  const Range* range = std::lower_bound(std::begin(kRanges), std::end(kRanges), index,
                                        [](const Range& r, std::uint32_t i) { return r.last < i; });
  return range != std::end(kRanges) && range->first <= index ? range : nullptr;
}

// Memory types that an MTRR may have: 0, 1, 4, 5, 6 (APM vol. 2 table 7-8).
bool memory_type_valid(std::uint64_t type) { return type < 8 && (0x73 >> type & 1) != 0; }

constexpr std::uint64_t kPhysicalMask = (std::uint64_t{1} << 48) - 1;

bool mtrr_valid(std::uint32_t index, std::uint64_t value) {
  if (index == 0x2ff) return !(value & ~std::uint64_t{0xcff}) && memory_type_valid(value & 0xff);
  if (index >= 0x250 && index <= 0x26f) {
    for (unsigned i = 0; i < 8; ++i) {
      if (!memory_type_valid(value >> 8 * i & 0xff)) return false;
    }
    return true;
  }
  if (index & 1) return !(value & ~(kPhysicalMask & ~std::uint64_t{0x7ff}));
  return !(value & ~(kPhysicalMask & ~std::uint64_t{0xf00})) && memory_type_valid(value & 0xff);
}

bool machine_check(std::uint32_t index) {
  return index == kMcgCtl || (index >= kFirstBank && index < kFirstBank + 4 * kMaxMachineCheckBanks);
}

// Linux arch/x86/kvm/x86.c set_msr_mce(): a control is all ones or none, two bits apart that Linux clears on some
// processors; a status can only be cleared.
bool machine_check_valid(std::uint32_t index, std::uint64_t value) {
  constexpr std::uint64_t kClearedByLinux = 1U << 10 | 1;
  if (index == kMcgCtl) return value == 0 || value == kAllOnes;
  switch (index % 4) {
    case 0:
      return value == 0 || (value | kClearedByLinux) == kAllOnes;
    case 1:
      return value == 0;
    default:
      return true;
  }
}

// Of Linux arch/x86/kvm/x86.c msr_based_features_all_except_vmx[], those of AMD's processors.
constexpr std::uint32_t kFeatures[] = {0x8b, 0xc0011029};

constexpr std::uint32_t kIndices[] = {
    0x10,       0x1b,       0x174,      0x175,      0x176,      0x1a0,      0x277,
    0x6e0,      0xc0000080, 0xc0000081, 0xc0000082, 0xc0000083, 0xc0000084, 0xc0000100,
    0xc0000101, 0xc0000102, 0xc0000103, 0xc0010015, 0xc0011029, 0xfe,       0x2ff,
};

}  // namespace

bool MsrStore::knows(std::uint32_t index) noexcept { return find(index) != nullptr; }

MsrStore::MsrStore() : machine_check_(kMachineCheckFeatures | kMceBanks) {}

// Linux arch/x86/kvm/x86.c kvm_vcpu_ioctl_x86_setup_mce().
bool MsrStore::set_machine_check(std::uint64_t capability) {
  constexpr std::uint64_t kBanks = 0xff;
  constexpr std::uint64_t kUnchecked = 0xff0000;  // extended registers
  const std::uint64_t banks = capability & kBanks;
  if (banks == 0 || banks > kMaxMachineCheckBanks) return false;
  if ((capability & ~(kMachineCheckFeatures | kBanks | kUnchecked)) != 0) return false;
  machine_check_ = capability;
  // Each MCi_CTL is all ones.
  for (std::uint32_t bank = 0; bank < banks; ++bank) values_[kFirstBank + 4 * bank] = kAllOnes;
  if ((capability & kMachineCheckFeatures) != 0) values_[kMcgCtl] = kAllOnes;
  return true;
}

bool MsrStore::has_bank_of(std::uint32_t index) const noexcept {
  return index < kFirstBank || index >= kFirstBank + 4 * kMaxMachineCheckBanks ||
         (index - kFirstBank) / 4 < (machine_check_ & 0xff);
}

std::span<const std::uint32_t> MsrStore::feature_list() noexcept { return kFeatures; }

// KVM lets its user read 0 of any MSR that it lists.
std::optional<std::uint64_t> MsrStore::read_feature(std::uint32_t index) noexcept {
  if (std::ranges::find(kFeatures, index) != std::end(kFeatures)) return find(index)->value;
  return std::ranges::find(kIndices, index) != std::end(kIndices) ? std::optional<std::uint64_t>(0) : std::nullopt;
}

std::optional<std::uint64_t> MsrStore::read(std::uint32_t index, std::uint64_t now) const {
  if (index == kMsrTsc) return now;
  if (index == kMcgCap) return machine_check_;
  if (!has_bank_of(index)) return std::nullopt;
  const Range* range = find(index);
  if (range == nullptr) return std::nullopt;
  const auto written = values_.find(index);
  return written == values_.end() ? range->value : written->second;
}

bool MsrStore::write(std::uint32_t index, std::uint64_t value) {
  const Range* range = find(index);
  if (range == nullptr || !has_bank_of(index)) return false;
  if (index == kMcgCap) return value == machine_check_;
  switch (range->kind) {
    case Kind::kFixed:
      return value == range->value;
    case Kind::kIgnored:
      return true;
    case Kind::kStored:
      if (index >= 0x200 && index <= 0x2ff && !mtrr_valid(index, value)) return false;
      if (machine_check(index) && !machine_check_valid(index, value)) return false;
      values_[index] = value;
      return true;
  }
  return false;
}

std::span<const std::uint32_t> MsrStore::index_list() noexcept { return kIndices; }

}  // namespace sevisor::emulator
