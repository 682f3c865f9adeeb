#include "emulator/kvm/cpuid_table.hpp"

#include <algorithm>
#include <cstring>
#include <string_view>

#include "base/bytes.hpp"
#include "emulator/cpu/state/features.hpp"
#include "emulator/kvm/platform.hpp"

namespace sevisor::emulator {

namespace {

// Bit numbers: AMD APM vol. 3 appendix E.
template <class... Bits>
constexpr std::uint32_t bits(Bits... numbers) {
  return ((std::uint32_t{1} << numbers) | ...);
}

constexpr std::uint32_t kSignature = 0x00a00f11;  // family 25 model 1 stepping 1: EPYC of the third generation

// Fn0000_0001_ECX: CMPXCHG16B, PCID, x2APIC, MOVBE, POPCNT, TSC deadline, XSAVE, RDRAND, hypervisor (so that Linux
// looks for no performance counters; it costs a scan of a thousand CPUID leaves, some 20 ms)
constexpr std::uint32_t kFeatures1Ecx = bits(13, 17, 21, 22, 23, 24, 26, 30, 31);
constexpr std::uint32_t kOsxsave = bits(27);
constexpr std::uint32_t kApic = bits(9);  // of Fn0000_0001_EDX and Fn8000_0001_EDX
// Fn0000_0001_EDX: FPU, DE, PSE, TSC, MSR, PAE, MCE, CMPXCHG8B, APIC, SYSENTER, MTRR, PGE, MCA, CMOV, PAT, PSE36,
// CLFLUSH, MMX, FXSR, SSE, SSE2
constexpr std::uint32_t kFeatures1Edx = bits(0, 2, 3, 4, 5, 6, 7, 8, 9, 11, 12, 13, 14, 15, 16, 17, 19, 23, 24, 25, 26);
// Those of them that Fn8000_0001_EDX repeats (SYSENTER, SSE and SSE2 it does not)
constexpr std::uint32_t kRepeated = kFeatures1Edx & ~bits(11, 19, 25, 26);
// Fn0000_0007_EBX: FSGSBASE, BMI1, SMEP, BMI2, ERMS, INVPCID, RDSEED, ADX, SMAP, CLFLUSHOPT, CLWB
constexpr std::uint32_t kFeatures7Ebx = bits(0, 3, 7, 8, 9, 10, 18, 19, 20, 23, 24);
constexpr std::uint32_t kFeatures7Ecx = bits(2, 22);  // UMIP, RDPID
constexpr std::uint32_t kFeatures7Edx = bits(4);      // FSRM
// Fn8000_0001_ECX: LAHF in 64-bit mode, MOV CR8 by LOCK MOV CR0, LZCNT, SSE4A, misaligned SSE, PREFETCHW, OSVW,
// topology extensions
constexpr std::uint32_t kExtendedEcx = bits(0, 4, 5, 6, 7, 8, 9, 22);
// Fn8000_0001_EDX: SYSCALL, NX, AMD's MMX extensions, fast FXSAVE, 1 GiB pages, RDTSCP, long mode
constexpr std::uint32_t kExtendedEdx = kRepeated | bits(11, 20, 22, 25, 26, 27, 29);
// Fn8000_0008_EBX: CLZERO, FXSAVE and XSAVE always save x87's pointers, WBNOINVD; and the controls of speculation, of
// which there is none: IBPB, IBRS, STIBP, STIBP always on, SSBD, PSFD
constexpr std::uint32_t kSizesEbx = bits(0, 2, 9, 12, 14, 15, 17, 24, 28);
// Fn8000_0021_EAX: breakpoints on data do not hit while an exception is delivered, LFENCE serialises, null selectors
// clear the base
constexpr std::uint32_t kFeatures21Eax = bits(0, 2, 6);
// The engine does not speculate, and says so: Linux then leaves out mitigations that would cost the guest a tenth of
// its instructions. Names and bits as in Linux arch/x86/include/asm/cpufeatures.h.
constexpr std::uint32_t kNotSpeculating = 1U << 26 | 1U << 29;  // SSB_NO, BTC_NO
constexpr std::uint32_t kNotOverflowing = 1U << 29;             // SRSO_NO
constexpr std::uint32_t kNotLeaking = bits(1, 2);               // Fn8000_0021_ECX: TSA_SQ_NO, TSA_L1_NO
constexpr std::uint32_t kInvariantTsc = bits(8);                // Fn8000_0007_EDX
constexpr std::uint32_t kAlwaysRunningApic = bits(2);           // Fn0000_0006_EAX
constexpr std::uint32_t kSev = bits(1, 3);                      // Fn8000_001F_EAX: SEV, SEV-ES
constexpr std::uint32_t kReducedBits = 1;                       // Fn8000_001F_EBX[11:6]: the C-bit

constexpr std::uint32_t kXsaveLeaf = 0xd;
constexpr std::uint32_t kTopologyLeaf = 0xb;
constexpr std::uint32_t kXsaveForms = bits(0, 1, 2, 3);  // Fn0000_000D_EAX_x1: XSAVEOPT, XSAVEC, XGETBV with 1, XSAVES
constexpr std::uint32_t kXcr0Avx = 2;                    // number of the component
constexpr std::uint32_t kLegacyArea = 512 + 64;          // x87, SSE and the header, bytes
constexpr std::uint32_t kAvxArea = 256;                  // behind it, in the compacted format too

constexpr std::string_view kBrand = "sevisor emulated SEV-ES processor";

kvm_cpuid_entry2 entry(std::uint32_t leaf, std::uint32_t eax, std::uint32_t ebx, std::uint32_t ecx, std::uint32_t edx) {
  return {.function = leaf, .index = 0, .flags = 0, .eax = eax, .ebx = ebx, .ecx = ecx, .edx = edx, .padding = {}};
}
kvm_cpuid_entry2 indexed(std::uint32_t leaf, std::uint32_t index, std::uint32_t eax, std::uint32_t ebx,
                         std::uint32_t ecx, std::uint32_t edx) {
  kvm_cpuid_entry2 e = entry(leaf, eax, ebx, ecx, edx);
  e.index = index;
  e.flags = KVM_CPUID_FLAG_SIGNIFCANT_INDEX;
  return e;
}
// "AuthenticAMD" in EBX, EDX, ECX.
kvm_cpuid_entry2 vendor(std::uint32_t leaf, std::uint32_t last) {
  return entry(leaf, last, 0x68747541, 0x444d4163, 0x69746e65);
}

// The features that the host's processor must have: their bits in three registers.
struct HostFeatures {
  std::uint32_t leaf1_ecx = 0;
  std::uint32_t leaf7_ebx = 0;
  std::uint32_t leaf7_ecx = 0;
};
HostFeatures host_features(const HostExtensions& host) {
  struct Row {
    bool there;
    std::uint32_t HostFeatures::*reg;
    unsigned bit;
  };
  const Row rows[] = {
      {host.sse3, &HostFeatures::leaf1_ecx, 0},        {host.pclmulqdq, &HostFeatures::leaf1_ecx, 1},
      {host.ssse3, &HostFeatures::leaf1_ecx, 9},       {host.fma, &HostFeatures::leaf1_ecx, 12},
      {host.sse41, &HostFeatures::leaf1_ecx, 19},      {host.sse42, &HostFeatures::leaf1_ecx, 20},
      {host.aes, &HostFeatures::leaf1_ecx, 25},        {host.avx, &HostFeatures::leaf1_ecx, 28},
      {host.f16c, &HostFeatures::leaf1_ecx, 29},       {host.avx2, &HostFeatures::leaf7_ebx, 5},
      {host.sha, &HostFeatures::leaf7_ebx, 29},        {host.vaes, &HostFeatures::leaf7_ecx, 9},
      {host.vpclmulqdq, &HostFeatures::leaf7_ecx, 10},
  };
  HostFeatures features;
  for (const Row& row : rows) {
    if (row.there) features.*row.reg |= bits(row.bit);
  }
  return features;
}

}  // namespace

std::vector<kvm_cpuid_entry2> supported_cpuid(unsigned c_bit, const Personality& personality) {
  const bool avx = host_extensions().avx;
  const HostFeatures host = host_features(host_extensions());
  const auto xcr0 = static_cast<std::uint32_t>(supported_xcr0());
  const std::uint32_t area = kLegacyArea + (avx ? kAvxArea : 0);
  const std::uint32_t hidden = personality.lists_hypervisor ? 0 : bits(24, 31);
  std::vector<kvm_cpuid_entry2> table{
      vendor(0, kXsaveLeaf),
      entry(1, kSignature, 8 << 8, (kFeatures1Ecx & ~hidden) | host.leaf1_ecx,
            kFeatures1Edx),  // CLFLUSH line: 8 quadwords
      entry(6, kAlwaysRunningApic, 0, 0, 0),
      indexed(7, 0, 0, kFeatures7Ebx | host.leaf7_ebx, kFeatures7Ecx | host.leaf7_ecx, kFeatures7Edx),
      indexed(kTopologyLeaf, 0, 0, 1, 0x100, 0),  // one thread a core
      indexed(kTopologyLeaf, 1, 0, 1, 0x201, 0),  // one core
      indexed(kXsaveLeaf, 0, xcr0, area, area, 0),
      indexed(kXsaveLeaf, 1, kXsaveForms, area, 0, 0),
      indexed(kXsaveLeaf, kXcr0Avx, avx ? kAvxArea : 0, avx ? kLegacyArea : 0, 0, 0),
      vendor(0x80000000, 0x80000021),
      entry(0x80000001, kSignature, 0, kExtendedEcx, kExtendedEdx),
      entry(0x80000002, 0, 0, 0, 0),
      entry(0x80000003, 0, 0, 0, 0),
      entry(0x80000004, 0, 0, 0, 0),
      // L1: 32 KiB each, L2: 512 KiB, 8 ways; L3: 32 MiB, 16 ways; lines of 64 bytes
      entry(0x80000005, 0x01ff01ff, 0x01ff01ff, 0x20080140, 0x20080140),
      entry(0x80000006, 0, 0x42004200, 0x02006140, 0x01008140),
      entry(0x80000007, 0, 0, 0, kInvariantTsc),
      entry(0x80000008, 48 << 8 | 48, kSizesEbx | kNotSpeculating, 0, 0),
      indexed(0x8000001d, 0, 0x121, 0x01c0003f, 0x3f, 1),
      indexed(0x8000001d, 1, 0x122, 0x01c0003f, 0x3f, 1),
      indexed(0x8000001d, 2, 0x043, 0x01c0003f, 0x3ff, 0),
      indexed(0x8000001d, 3, 0x163, 0x03c0003f, 0x7fff, 2),
      indexed(0x8000001d, 4, 0, 0, 0, 0),
      entry(0x8000001e, 0, 0, 0, 0),
      entry(0x8000001f, kSev, kReducedBits << 6 | c_bit, Platform::kLimits.max_asid,
            Platform::kLimits.min_plain_sev_asid),
      entry(0x80000020, 0, 0, 0, 0),
      entry(0x80000021, kFeatures21Eax | kNotOverflowing, 0, kNotLeaking, 0),
  };
  char brand[48] = {};
  std::memcpy(brand, kBrand.data(), kBrand.size());
  for (unsigned part = 0; part < 3; ++part) {
    const auto e = std::find_if(table.begin(), table.end(),
                                [&](const kvm_cpuid_entry2& x) { return x.function == 0x80000002 + part; });
    const char* text = brand + 16 * part;
    e->eax = load<std::uint32_t>(text);
    e->ebx = load<std::uint32_t>(text + 4);
    e->ecx = load<std::uint32_t>(text + 8);
    e->edx = load<std::uint32_t>(text + 12);
  }
  return table;
}

const kvm_cpuid_entry2* find_cpuid(std::span<const kvm_cpuid_entry2> table, std::uint32_t leaf,
                                   std::uint32_t sub_leaf) {
  for (const kvm_cpuid_entry2& e : table) {
    if (e.function != leaf) continue;
    if (!(e.flags & KVM_CPUID_FLAG_SIGNIFCANT_INDEX) || e.index == sub_leaf) return &e;
  }
  return nullptr;
}

ghcb::CpuidValues answer_cpuid(std::span<const kvm_cpuid_entry2> table, std::uint32_t leaf, std::uint32_t sub_leaf,
                               const CpuidContext& context) {
  const kvm_cpuid_entry2* e = find_cpuid(table, leaf, sub_leaf);
  if (e == nullptr) {
    // A level beyond the last: its number and the APIC ID (APM vol. 3 E.3.9).
    if (leaf == kTopologyLeaf) {
      if (const auto* level = find_cpuid(table, leaf, 1)) return {0, 0, sub_leaf & 0xff, level->edx};
    }
    return {};
  }
  ghcb::CpuidValues values{e->eax, e->ebx, e->ecx, e->edx};
  if (leaf == 1) {
    values.ecx = context.osxsave ? values.ecx | kOsxsave : values.ecx & ~kOsxsave;
    if (!context.apic) values.edx &= ~kApic;
  }
  if (leaf == 0x80000001 && !context.apic) values.edx &= ~kApic;
  // EBX: size of the area for what XCR0 enables, of the standard format and of the compacted one.
  if (leaf == kXsaveLeaf && sub_leaf <= 1) {
    values.ebx = kLegacyArea + ((context.xcr0 & bits(kXcr0Avx)) != 0 ? kAvxArea : 0);
  }
  return values;
}

}  // namespace sevisor::emulator
