#include "vmm/machine/cpu_model.hpp"

#include <algorithm>
#include <array>
#include <iterator>

namespace sevisor::vmm {

namespace {

template <class... Bits>
constexpr std::uint32_t bits(Bits... numbers) {
  return ((std::uint32_t{1} << numbers) | ...);
}

constexpr FeatureRegister kRegisters[] = {
    {0x1, 0, 2}, {0x1, 0, 3},        {0x6, 0, 0},        {0x7, 0, 1},        {0x7, 0, 2},        {0x7, 0, 3},
    {0xd, 1, 0}, {0x80000001, 0, 2}, {0x80000001, 0, 3}, {0x80000008, 0, 1}, {0x8000000a, 0, 3}, {0x80000021, 0, 0},
};
static_assert(std::size(kRegisters) == kFeatureWords);

// --- EPYC ------------------------------------------------------------------------------------------------------------

constexpr Features make_epyc() {
  Features f{};
  // SSE3, PCLMULQDQ, MONITOR, SSSE3, FMA, CMPXCHG16B, SSE4.1, SSE4.2, MOVBE, POPCNT, AES, XSAVE, AVX, F16C, RDRAND
  f[k1Ecx] = bits(0, 1, 3, 9, 12, 13, 19, 20, 22, 23, 25, 26, 28, 29, 30);
  // FPU, VME, DE, PSE, TSC, MSR, PAE, MCE, CMPXCHG8B, APIC, SYSENTER, MTRR, PGE, MCA, CMOV, PAT, PSE36, CLFLUSH, MMX,
  // FXSR, SSE, SSE2
  f[k1Edx] = bits(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 12, 13, 14, 15, 16, 17, 19, 23, 24, 25, 26);
  f[k6Eax] = bits(2);  // ARAT
  // FSGSBASE, BMI1, AVX2, SMEP, BMI2, RDSEED, ADX, SMAP, CLFLUSHOPT, SHA
  f[k7Ebx] = bits(0, 3, 5, 7, 8, 18, 19, 20, 23, 29);
  f[kXsave1Eax] = bits(0, 1, 2);  // XSAVEOPT, XSAVEC, XGETBV with 1
  // LAHF, SVM, CR8 legacy, LZCNT, SSE4A, misaligned SSE, PREFETCHW, OSVW, topology extensions
  f[k80000001Ecx] = bits(0, 2, 4, 5, 6, 7, 8, 9, 22);
  // The repeated ones of Fn0000_0001_EDX; SYSCALL, NX, AMD's MMX, FFXSR, 1 GiB pages, RDTSCP, long mode
  f[k80000001Edx] = (f[k1Edx] & ~bits(11, 19, 25, 26)) | bits(11, 20, 22, 25, 26, 27, 29);
  f[k8000000aEdx] = bits(0, 3);  // nested paging, NRIP
  return f;
}
constexpr Features kEpyc = make_epyc();

constexpr Features with(Features f, FeatureWord word, std::uint32_t more) {
  f[word] |= more;
  return f;
}
constexpr Features without(Features f, FeatureWord word, std::uint32_t less) {
  f[word] &= ~less;
  return f;
}

// What QEMU 10.1 added to each model as its last version: LBR virtualisation, TSC scaling, clean bits, flush by ASID,
// pause filter and threshold, VMLOAD and VMSAVE, virtual GIF; for guests that run guests. (And two bits about machine
// checks in Fn8000_0007_EBX, which no host offers here.)
constexpr Features with_svm(Features f) {
  f[k8000000aEdx] |= bits(1, 4, 5, 6, 10, 12, 15, 16);
  return f;
}

constexpr Features kEpycV2 = with(kEpyc, k80000008Ebx, bits(12));  // IBPB
// CLZERO, error pointers; performance counters; XSAVES
constexpr Features kEpycV3 =
    with(with(with(kEpycV2, k80000008Ebx, bits(0, 2)), k80000001Ecx, bits(23)), kXsave1Eax, bits(3));

// --- EPYC-Rome -------------------------------------------------------------------------------------------------------

constexpr Features make_rome() {
  Features f = kEpycV3;
  f[k80000008Ebx] |= bits(9, 15);  // WBNOINVD, STIBP
  f[k7Ebx] |= bits(24);            // CLWB
  f[k7Ecx] = bits(2, 22);          // UMIP, RDPID
  return f;
}
constexpr Features kRome = make_rome();
constexpr Features kRomeV2 = with(kRome, k80000008Ebx, bits(14, 24));  // IBRS, SSBD
constexpr Features kRomeV4 = without(kRomeV2, kXsave1Eax, bits(3));    // erratum 1386

// --- EPYC-Milan ------------------------------------------------------------------------------------------------------

constexpr Features make_milan() {
  Features f = kRomeV2;
  f[k1Ecx] |= bits(17);     // PCID
  f[k7Ebx] |= bits(9, 10);  // ERMS, INVPCID
  f[k7Ecx] |= bits(3);      // protection keys
  f[k7Edx] = bits(4);       // FSRM
  f[k8000000aEdx] |= bits(28);
  return f;
}
constexpr Features kMilan = make_milan();
constexpr Features make_milan_v2() {
  Features f = kMilan;
  f[k7Ecx] |= bits(9, 10);          // VAES, VPCLMULQDQ
  f[k80000008Ebx] |= bits(17, 28);  // STIBP always on, PSFD
  f[k80000021Eax] = bits(0, 2, 6);  // no nested data breakpoints, LFENCE serialises, null selectors clear the base
  return f;
}
constexpr Features kMilanV2 = make_milan_v2();

// --- the table -------------------------------------------------------------------------------------------------------

// L1 instruction caches: 64 KiB in 4 ways, 32 KiB in 8; third levels: 8, 16 and 32 MiB in 16 ways.
constexpr std::uint32_t k64K = 0x40040140;
constexpr std::uint32_t k32K = 0x20080140;
constexpr std::uint32_t k8M = 0x00408140;
constexpr std::uint32_t k16M = 0x00808140;
constexpr std::uint32_t k32M = 0x01008140;

// A name without a version means the first one, as on QEMU's machines.
constexpr CpuModel kModels[] = {
    {"EPYC", kEpyc, k64K, k8M, true},
    {"EPYC-v1", kEpyc, k64K, k8M, true},
    {"EPYC-v2", kEpycV2, k64K, k8M, true},
    {"EPYC-IBPB", kEpycV2, k64K, k8M, true},
    {"EPYC-v3", kEpycV3, k64K, k8M, true},
    {"EPYC-v4", kEpycV3, k64K, k8M, false},
    {"EPYC-v5", with_svm(kEpycV3), k64K, k8M, false},
    {"EPYC-Rome", kRome, k32K, k16M, true},
    {"EPYC-Rome-v1", kRome, k32K, k16M, true},
    {"EPYC-Rome-v2", kRomeV2, k32K, k16M, true},
    {"EPYC-Rome-v3", kRomeV2, k32K, k16M, false},
    {"EPYC-Rome-v4", kRomeV4, k32K, k16M, false},
    {"EPYC-Rome-v5", with_svm(kRomeV4), k32K, k16M, false},
    {"EPYC-Milan", kMilan, k32K, k32M, true},
    {"EPYC-Milan-v1", kMilan, k32K, k32M, true},
    {"EPYC-Milan-v2", kMilanV2, k32K, k32M, false},
    {"EPYC-Milan-v3", with_svm(kMilanV2), k32K, k32M, false},
    {"EPYC-Milan-v4", with_svm(kMilanV2), k32K, k32M, false},  // it adds one more of these bits
};

constexpr Features make_additions() {
  Features f{};
  f[k1Ecx] = bits(21, 24, 31);     // x2APIC, TSC deadline, hypervisor
  f[k80000008Ebx] = bits(26, 29);  // SSB_NO, BTC_NO
  f[k80000021Eax] = bits(29);      // SRSO_NO
  return f;
}
constexpr Features kAdditions = make_additions();

// --- names -----------------------------------------------------------------------------------------------------------

struct Name {
  FeatureWord word;
  unsigned bit;
  std::string_view name;
};
// Fn8000_0001_EDX repeats names of Fn0000_0001_EDX, which are told once.
constexpr std::uint32_t kRepeated = 0x0183f3ff;
constexpr Name kNames[] = {
    {k1Ecx, 0, "pni"},
    {k1Ecx, 1, "pclmulqdq"},
    {k1Ecx, 3, "monitor"},
    {k1Ecx, 9, "ssse3"},
    {k1Ecx, 12, "fma"},
    {k1Ecx, 13, "cx16"},
    {k1Ecx, 17, "pcid"},
    {k1Ecx, 19, "sse4.1"},
    {k1Ecx, 20, "sse4.2"},
    {k1Ecx, 21, "x2apic"},
    {k1Ecx, 22, "movbe"},
    {k1Ecx, 23, "popcnt"},
    {k1Ecx, 24, "tsc-deadline"},
    {k1Ecx, 25, "aes"},
    {k1Ecx, 26, "xsave"},
    {k1Ecx, 28, "avx"},
    {k1Ecx, 29, "f16c"},
    {k1Ecx, 30, "rdrand"},
    {k1Ecx, 31, "hypervisor"},
    {k1Edx, 0, "fpu"},
    {k1Edx, 1, "vme"},
    {k1Edx, 2, "de"},
    {k1Edx, 3, "pse"},
    {k1Edx, 4, "tsc"},
    {k1Edx, 5, "msr"},
    {k1Edx, 6, "pae"},
    {k1Edx, 7, "mce"},
    {k1Edx, 8, "cx8"},
    {k1Edx, 9, "apic"},
    {k1Edx, 11, "sep"},
    {k1Edx, 12, "mtrr"},
    {k1Edx, 13, "pge"},
    {k1Edx, 14, "mca"},
    {k1Edx, 15, "cmov"},
    {k1Edx, 16, "pat"},
    {k1Edx, 17, "pse36"},
    {k1Edx, 19, "clflush"},
    {k1Edx, 23, "mmx"},
    {k1Edx, 24, "fxsr"},
    {k1Edx, 25, "sse"},
    {k1Edx, 26, "sse2"},
    {k6Eax, 2, "arat"},
    {k7Ebx, 0, "fsgsbase"},
    {k7Ebx, 3, "bmi1"},
    {k7Ebx, 5, "avx2"},
    {k7Ebx, 7, "smep"},
    {k7Ebx, 8, "bmi2"},
    {k7Ebx, 9, "erms"},
    {k7Ebx, 10, "invpcid"},
    {k7Ebx, 18, "rdseed"},
    {k7Ebx, 19, "adx"},
    {k7Ebx, 20, "smap"},
    {k7Ebx, 23, "clflushopt"},
    {k7Ebx, 24, "clwb"},
    {k7Ebx, 29, "sha-ni"},
    {k7Ecx, 2, "umip"},
    {k7Ecx, 3, "pku"},
    {k7Ecx, 9, "vaes"},
    {k7Ecx, 10, "vpclmulqdq"},
    {k7Ecx, 22, "rdpid"},
    {k7Edx, 4, "fsrm"},
    {kXsave1Eax, 0, "xsaveopt"},
    {kXsave1Eax, 1, "xsavec"},
    {kXsave1Eax, 2, "xgetbv1"},
    {kXsave1Eax, 3, "xsaves"},
    {k80000001Ecx, 0, "lahf-lm"},
    {k80000001Ecx, 2, "svm"},
    {k80000001Ecx, 4, "cr8legacy"},
    {k80000001Ecx, 5, "abm"},
    {k80000001Ecx, 6, "sse4a"},
    {k80000001Ecx, 7, "misalignsse"},
    {k80000001Ecx, 8, "3dnowprefetch"},
    {k80000001Ecx, 9, "osvw"},
    {k80000001Ecx, 22, "topoext"},
    {k80000001Ecx, 23, "perfctr-core"},
    {k80000001Edx, 11, "syscall"},
    {k80000001Edx, 20, "nx"},
    {k80000001Edx, 22, "mmxext"},
    {k80000001Edx, 25, "fxsr-opt"},
    {k80000001Edx, 26, "pdpe1gb"},
    {k80000001Edx, 27, "rdtscp"},
    {k80000001Edx, 29, "lm"},
    {k80000008Ebx, 0, "clzero"},
    {k80000008Ebx, 2, "xsaveerptr"},
    {k80000008Ebx, 9, "wbnoinvd"},
    {k80000008Ebx, 12, "ibpb"},
    {k80000008Ebx, 14, "ibrs"},
    {k80000008Ebx, 15, "amd-stibp"},
    {k80000008Ebx, 17, "stibp-always-on"},
    {k80000008Ebx, 24, "amd-ssbd"},
    {k80000008Ebx, 26, "amd-no-ssb"},
    {k80000008Ebx, 28, "amd-psfd"},
    {k80000008Ebx, 29, "btc-no"},
    {k8000000aEdx, 0, "npt"},
    {k8000000aEdx, 1, "lbrv"},
    {k8000000aEdx, 3, "nrip-save"},
    {k8000000aEdx, 4, "tsc-scale"},
    {k8000000aEdx, 5, "vmcb-clean"},
    {k8000000aEdx, 6, "flushbyasid"},
    {k8000000aEdx, 10, "pause-filter"},
    {k8000000aEdx, 12, "pfthreshold"},
    {k8000000aEdx, 15, "v-vmsave-vmload"},
    {k8000000aEdx, 16, "vgif"},
    {k8000000aEdx, 28, "svme-addr-chk"},
    {k80000021Eax, 0, "no-nested-data-bp"},
    {k80000021Eax, 2, "lfence-always-serializing"},
    {k80000021Eax, 6, "null-sel-clr-base"},
    {k80000021Eax, 29, "srso-no"},
};

}  // namespace

const FeatureRegister& feature_register(FeatureWord word) noexcept { return kRegisters[word]; }

const CpuModel* find_cpu_model(std::string_view cpu_type) noexcept {
  const auto* found = std::ranges::find(kModels, cpu_type, &CpuModel::name);
  return found == std::end(kModels) ? nullptr : found;
}

const Features& host_additions() noexcept { return kAdditions; }

std::vector<std::string> feature_names(const Features& features) {
  Features left = features;
  left[k80000001Edx] &= ~kRepeated | bits(11);
  std::vector<std::string> names;
  for (const Name& name : kNames) {
    if ((left[name.word] & bits(name.bit)) != 0) names.emplace_back(name.name);
    left[name.word] &= ~bits(name.bit);
  }
  for (unsigned word = 0; word < kFeatureWords; ++word) {
    for (unsigned bit = 0; bit < 32; ++bit) {
      if ((left[word] & bits(bit)) == 0) continue;
      names.push_back("leaf " + std::to_string(kRegisters[word].leaf) + " bit " + std::to_string(bit));
    }
  }
  return names;
}

}  // namespace sevisor::vmm
