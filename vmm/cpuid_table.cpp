#include "vmm/cpuid_table.hpp"

#include <algorithm>
#include <bit>

namespace sevisor::vmm {

namespace {

constexpr std::uint32_t kLeafFeatures = 0x1;
constexpr std::uint32_t kLeafTopology = 0xb;
constexpr std::uint32_t kLeafExtendedFeatures = 0x80000001;
constexpr std::uint32_t kLeafSizes = 0x80000008;
constexpr std::uint32_t kLeafCaches = 0x8000001d;
constexpr std::uint32_t kLeafExtendedApicId = 0x8000001e;

constexpr std::uint32_t kHtt = 1U << 28;       // Fn1 EDX
constexpr std::uint32_t kCmpLegacy = 1U << 1;  // Fn8000_0001 ECX

constexpr std::uint32_t kTopologySmt = 1U << 8;  // Fn0000_000B ECX[15:8]
constexpr std::uint32_t kTopologyCore = 2U << 8;

void set_field(std::uint32_t& word, unsigned shift, unsigned width, std::uint32_t value) {
  const std::uint32_t mask = ((1U << width) - 1) << shift;
  word = (word & ~mask) | (value << shift & mask);
}

}  // namespace

kvm::CpuidTable make_cpuid_table(const kvm::CpuidTable& supported, const CpuidOptions& options) {
  kvm::CpuidTable table = supported;
  const auto apic_id_bits = static_cast<std::uint32_t>(std::bit_width(options.vcpus - 1));
  const bool many = options.vcpus > 1;

  std::erase_if(table, [](const kvm_cpuid_entry2& entry) { return entry.function == kLeafTopology; });
  for (kvm_cpuid_entry2& entry : table) {
    switch (entry.function) {
      case kLeafFeatures:
        entry.eax = options.signature;
        set_field(entry.ebx, 16, 8, options.vcpus);
        set_field(entry.ebx, 24, 8, options.apic_id);
        entry.edx = many ? entry.edx | kHtt : entry.edx & ~kHtt;
        break;
      case kLeafExtendedFeatures:
        entry.eax = options.signature;
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
