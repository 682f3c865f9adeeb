#include "vmm/machine/cpuid_table.hpp"

#include <algorithm>
#include <bit>
#include <linux/kvm_para.h>

namespace sevisor::vmm {

namespace {

constexpr std::uint32_t kLeafFeatures = 0x1;
constexpr std::uint32_t kLeafStructured = 0x7;
constexpr std::uint32_t kLeafTopology = 0xb;
constexpr std::uint32_t kLeafXsave = 0xd;
constexpr std::uint32_t kLeafKvm = 0x40000000;
constexpr std::uint32_t kLeafKvmFeatures = 0x40000001;
constexpr std::uint32_t kLeafExtended = 0x80000000;
constexpr std::uint32_t kLeafExtendedFeatures = 0x80000001;
constexpr std::uint32_t kLeafL1Caches = 0x80000005;
constexpr std::uint32_t kLeafL2Caches = 0x80000006;
constexpr std::uint32_t kLeafSizes = 0x80000008;
constexpr std::uint32_t kLeafCaches = 0x8000001d;
constexpr std::uint32_t kLeafExtendedApicId = 0x8000001e;
constexpr std::uint32_t kLeafEncryption = 0x8000001f;
constexpr std::uint32_t kLeafLastExtended = 0x80000021;  // of the models' feature words

constexpr std::uint32_t kHtt = 1U << 28;       // Fn1 EDX
constexpr std::uint32_t kCmpLegacy = 1U << 1;  // Fn8000_0001 ECX

constexpr std::uint32_t kTopologySmt = 1U << 8;  // Fn0000_000B ECX[15:8]
constexpr std::uint32_t kTopologyCore = 2U << 8;

void set_field(std::uint32_t& word, unsigned shift, unsigned width, std::uint32_t value) {
  const std::uint32_t mask = ((1U << width) - 1) << shift;
  word = (word & ~mask) | (value << shift & mask);
}

constexpr std::uint32_t kOsxsave = 1U << 27;  // Fn1 ECX: follows the guest's CR4

std::uint32_t& register_of(kvm_cpuid_entry2& entry, unsigned reg) {
  std::uint32_t* const registers[] = {&entry.eax, &entry.ebx, &entry.ecx, &entry.edx};
  return *registers[reg];
}

Features features_of(const kvm::CpuidTable& table) {
  Features features{};
  for (unsigned word = 0; word < kFeatureWords; ++word) {
    const FeatureRegister& at = feature_register(static_cast<FeatureWord>(word));
    if (const kvm_cpuid_entry2* entry = find_leaf(table, at.leaf, at.subleaf)) {
      kvm_cpuid_entry2 copy = *entry;
      features[word] = register_of(copy, at.reg);
    }
  }
  return features;
}

// Takes what the model does not have.
void reduce(kvm::CpuidTable& table, const CpuModel& model) {
  for (unsigned word = 0; word < kFeatureWords; ++word) {
    const FeatureRegister& at = feature_register(static_cast<FeatureWord>(word));
    const std::uint32_t kept = model.features[word] | host_additions()[word] | (word == k1Ecx ? kOsxsave : 0);
    for (kvm_cpuid_entry2& entry : table) {
      if (entry.function == at.leaf && entry.index == at.subleaf) register_of(entry, at.reg) &= kept;
    }
  }
}

// The caches, and TLBs, of the model (QEMU target/i386/cpu.c, encode_cache_cpuid8000001d() and its neighbours).
// Fn8000_001D: how many cores share one is filled in later.
void set_caches(kvm_cpuid_entry2& entry, const CpuModel& model) {
  constexpr std::uint32_t kL1Data = 0x20080140;  // 32 KiB in 8 ways
  constexpr std::uint32_t kL2 = 0x02006140;      // 512 KiB in 8 ways
  constexpr std::uint32_t kL1Tlbs = 0x01ff01ff;  // 255 entries each
  constexpr std::uint32_t kL2Tlbs = 0x42004200;  // 512 entries in 4 ways
  constexpr std::uint32_t kLineSize = 64;
  constexpr std::uint32_t kPrivate = 1;  // invalidating it leaves those below alone
  constexpr std::uint32_t kInclusive = 2;
  constexpr std::uint32_t kComplexIndexing = 4;
  // `type`: 1 data, 2 instructions, 3 both. Sizes in KiB.
  const auto set = [&](std::uint32_t type, std::uint32_t level, bool self_init, std::uint32_t size, std::uint32_t ways,
                       std::uint32_t flags) {
    entry.eax = type | level << 5 | (self_init ? 1U << 8 : 0);
    entry.ebx = (ways - 1) << 22 | (kLineSize - 1);
    entry.ecx = size * 1024 / kLineSize / ways - 1;
    entry.edx = flags;
  };
  switch (entry.function) {
    case kLeafL1Caches:
      entry.eax = entry.ebx = kL1Tlbs;
      entry.ecx = kL1Data;
      entry.edx = model.l1_instruction;
      break;
    case kLeafL2Caches:
      entry.eax = 0;
      entry.ebx = kL2Tlbs;
      entry.ecx = kL2;
      entry.edx = model.l3;
      break;
    case kLeafCaches:
      if (entry.index == 0) set(1, 1, true, 32, 8, kPrivate);
      if (entry.index == 1) set(2, 1, true, model.l1_instruction >> 24, model.l1_instruction >> 16 & 0xff, kPrivate);
      if (entry.index == 2) set(3, 2, false, 512, 8, 0);
      if (entry.index == 3) {  // Fn8000_0006_EDX[31:18]: in units of 512 KiB
        set(3, 3, true, (model.l3 >> 18) * 512, 16, kInclusive | (model.l3_complex_indexing ? kComplexIndexing : 0));
      }
      break;
    default:
      break;
  }
}

// KVM leaves these to its user: kernels up to 6.12 at least do not list them. Linux Documentation/virt/kvm/api.rst,
// KVM_GET_SUPPORTED_CPUID; QEMU target/i386/kvm/kvm.c, kvm_arch_get_supported_cpuid().
constexpr std::uint32_t kHypervisor = 1U << 31;   // Fn1 ECX
constexpr std::uint32_t kTscDeadline = 1U << 24;  // Fn1 ECX

// Shadow stacks and indirect branch tracking have their state in XSS. KVM does not see an SEV-ES guest's XSS unless the
// guest tells it in each GHCB, which Linux does from 7.0 on: an older one finds sizes that do not fit and does without
// XSAVE.
constexpr std::uint32_t kShadowStacks = 1U << 7;     // Fn7 ECX
constexpr std::uint32_t kBranchTracking = 1U << 20;  // Fn7 EDX
constexpr std::uint32_t kSupervisorComponent = 1;    // Fn0000_000D ECX_x2 and on

void take_supervisor_state(kvm::CpuidTable& table) {
  std::erase_if(table, [](const kvm_cpuid_entry2& entry) {
    return entry.function == kLeafXsave && entry.index >= 2 && (entry.ecx & kSupervisorComponent) != 0;
  });
  for (kvm_cpuid_entry2& entry : table) {
    if (entry.function == kLeafStructured && entry.index == 0) {
      entry.ecx &= ~kShadowStacks;
      entry.edx &= ~kBranchTracking;
    }
    if (entry.function == kLeafXsave && entry.index == 1) entry.ecx = entry.edx = 0;
  }
}

// The paravirtual features that QEMU turns on by itself (target/i386/kvm/kvm-cpu.c, kvm_default_props;
// linux/kvm_para.h): kvmclock and its second form, ports without delay, page faults told by interrupt or not, stolen
// time, EOI by memory, a clock that is the same on all vCPUs. Each that writes to memory does so to pages that Linux
// shares for it.
constexpr std::uint32_t kParavirtual = 1U << KVM_FEATURE_CLOCKSOURCE | 1U << KVM_FEATURE_CLOCKSOURCE2 |
                                       1U << KVM_FEATURE_NOP_IO_DELAY | 1U << KVM_FEATURE_ASYNC_PF |
                                       1U << KVM_FEATURE_STEAL_TIME | 1U << KVM_FEATURE_PV_EOI |
                                       1U << KVM_FEATURE_CLOCKSOURCE_STABLE_BIT;

// What a model of QEMU's has no leaf for: QEMU fills CPUID from the model alone.
void take_foreign_leaves(kvm::CpuidTable& table) {
  std::erase_if(table, [](const kvm_cpuid_entry2& entry) {
    const bool basic = entry.function > kLeafXsave && entry.function < kLeafKvm;
    const bool extended = entry.function > kLeafLastExtended;
    return basic || extended || (entry.function == kLeafStructured && entry.index != 0);
  });
  for (kvm_cpuid_entry2& entry : table) {
    if (entry.function == 0) entry.eax = std::min(entry.eax, kLeafXsave);
    if (entry.function == kLeafExtended) entry.eax = std::min(entry.eax, kLeafLastExtended);
    if (entry.function == kLeafStructured) entry.eax = 0;  // no sub-leaf but 0
  }
}

// The components of XSAVE's area that a model has instructions for, and how large the area then is.
void fit_xsave_area(kvm::CpuidTable& table) {
  const kvm_cpuid_entry2* structured = find_leaf(table, kLeafStructured);
  const kvm_cpuid_entry2* features = find_leaf(table, kLeafFeatures);
  if (structured == nullptr || features == nullptr) return;
  constexpr std::uint32_t kAvx = 1U << 28, kAvx512 = 1U << 16, kProtectionKeys = 1U << 3;
  constexpr std::uint32_t kLegacy = 3, kAvxState = 4, kAvx512State = 7U << 5, kKeysState = 1U << 9;
  constexpr std::uint32_t kLegacyArea = 512 + 64;  // x87, SSE and the header, bytes
  const std::uint32_t kept = kLegacy | ((features->ecx & kAvx) != 0 ? kAvxState : 0) |
                             ((structured->ebx & kAvx512) != 0 ? kAvx512State : 0) |
                             ((structured->ecx & kProtectionKeys) != 0 ? kKeysState : 0);
  std::uint32_t size = kLegacyArea;
  std::erase_if(table, [&](const kvm_cpuid_entry2& entry) {
    if (entry.function != kLeafXsave || entry.index < 2 || (entry.ecx & kSupervisorComponent) != 0) return false;
    if (entry.index >= 32 || (kept >> entry.index & 1) == 0) return true;
    size = std::max(size, entry.ebx + entry.eax);
    return false;
  });
  for (kvm_cpuid_entry2& entry : table) {
    if (entry.function != kLeafXsave || entry.index != 0) continue;
    entry.eax &= kept;
    entry.edx = 0;
    entry.ecx = std::min(entry.ecx, size);
  }
}

}  // namespace

Features lacking_features(const kvm::CpuidTable& supported, const CpuModel& model) {
  Features lacking = model.features;
  const Features there = features_of(supported);
  for (unsigned word = 0; word < kFeatureWords; ++word) lacking[word] &= ~there[word];
  return lacking;
}

kvm::CpuidTable make_cpuid_table(const kvm::CpuidTable& supported, const CpuidOptions& options) {
  kvm::CpuidTable table = supported;
  const auto apic_id_bits = static_cast<std::uint32_t>(std::bit_width(options.vcpus - 1));
  const bool many = options.vcpus > 1;

  std::erase_if(table, [](const kvm_cpuid_entry2& entry) { return entry.function == kLeafTopology; });
  if (options.model != nullptr) {
    reduce(table, *options.model);
    for (kvm_cpuid_entry2& entry : table) set_caches(entry, *options.model);
    take_foreign_leaves(table);
    fit_xsave_area(table);
  }
  if (options.encrypted) take_supervisor_state(table);
  for (kvm_cpuid_entry2& entry : table) {
    switch (entry.function) {
      case kLeafFeatures:
        if (options.signature != 0) entry.eax = options.signature;
        set_field(entry.ebx, 16, 8, options.vcpus);
        set_field(entry.ebx, 24, 8, options.apic_id);
        entry.edx = many ? entry.edx | kHtt : entry.edx & ~kHtt;
        entry.ecx |= kHypervisor;
        entry.ecx = options.tsc_deadline ? entry.ecx | kTscDeadline : entry.ecx & ~kTscDeadline;
        break;
      case kLeafKvmFeatures:
        entry.eax &= kParavirtual;
        break;
      case kLeafEncryption:  // as QEMU's reduced-phys-bits, which has to be 1; KVM leaves it 0
        if (options.encrypted) set_field(entry.ebx, 6, 6, 1);
        break;
      case kLeafExtendedFeatures:
        if (options.signature != 0) entry.eax = options.signature;
        entry.ecx = many ? entry.ecx | kCmpLegacy : entry.ecx & ~kCmpLegacy;
        break;
      case kLeafSizes:
        set_field(entry.ecx, 0, 8, options.vcpus - 1);
        set_field(entry.ecx, 12, 4, apic_id_bits);
        break;
      case kLeafCaches:  // the third level is shared by all cores, the others by none
        if ((entry.eax & 0x1f) != 0) set_field(entry.eax, 14, 12, (entry.eax >> 5 & 7) >= 3 ? options.vcpus - 1 : 0);
        break;
      case kLeafExtendedApicId:
        entry.eax = options.apic_id;
        entry.ebx = options.apic_id & 0xff;  // core id, one thread a core
        entry.ecx = 0;                       // one node
        entry.edx = 0;
        break;
      default:
        break;
    }
  }

  kvm_cpuid_entry2 level{};
  level.function = kLeafTopology;
  level.flags = KVM_CPUID_FLAG_SIGNIFCANT_INDEX;
  level.edx = options.apic_id;
  level.ebx = 1;
  level.ecx = kTopologySmt;
  table.push_back(level);
  level.index = 1;
  level.eax = apic_id_bits;
  level.ebx = options.vcpus;
  level.ecx = kTopologyCore | level.index;
  table.push_back(level);
  level.index = 2;  // the level that ends the list
  level.eax = level.ebx = 0;
  level.ecx = level.index;
  table.push_back(level);
  return table;
}

const kvm_cpuid_entry2* find_leaf(const kvm::CpuidTable& table, std::uint32_t leaf, std::uint32_t subleaf) {
  const auto found = std::find_if(table.begin(), table.end(), [leaf, subleaf](const kvm_cpuid_entry2& entry) {
    return entry.function == leaf && entry.index == subleaf;
  });
  return found == table.end() ? nullptr : &*found;
}

}  // namespace sevisor::vmm
