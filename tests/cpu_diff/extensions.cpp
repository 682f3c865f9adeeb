#include "tests/cpu_diff/extensions.hpp"

#include <algorithm>
#include <array>

namespace sevisor::cpu_diff {

namespace {

// SDM: Intel 64 and IA-32 Architectures Software Developer's Manual, instructions by name in vol. 2. ISE: Intel
// Architecture Instruction Set Extensions Programming Reference, instructions by name in its chapter 2 and those of AMX
// in chapter 3. APM: AMD64 Architecture Programmer's Manual. Their encodings agree with the tables of Intel's XED.
constexpr Extension kMasks{"AVX-512 mask instructions", "SDM vol. 2, KADDW to KXORQ", {7, 0, kEbx, 16}};
constexpr Extension kGfni{"GFNI", "SDM vol. 2, GF2P8AFFINEINVQB to GF2P8MULB", {7, 0, kEcx, 8}};
constexpr Extension kVnni{"AVX-VNNI", "SDM vol. 2, VPDPBUSD to VPDPWSSDS", {7, 1, kEax, 4}};
constexpr Extension kVnniInt8{"AVX-VNNI-INT8", "ISE, VPDPB[SU,UU,SS]D[,S]", {7, 1, kEdx, 4}};
constexpr Extension kVnniInt16{"AVX-VNNI-INT16", "ISE, VPDPW[SU,US,UU]D[,S]", {7, 1, kEdx, 10}};
constexpr Extension kIfma{"AVX-IFMA", "ISE, VPMADD52HUQ and VPMADD52LUQ", {7, 1, kEax, 23}};
constexpr Extension kNeConvert{"AVX-NE-CONVERT", "ISE, VBCSTNEBF162PS to VCVTNEPS2BF16", {7, 1, kEdx, 5}};
constexpr Extension kCmpccxadd{"CMPCCXADD", "ISE, CMPccXADD", {7, 1, kEax, 7}};
constexpr Extension kSha512{"SHA512", "ISE, VSHA512MSG1 to VSHA512RNDS2", {7, 1, kEax, 0}};
constexpr Extension kSm3{"SM3", "ISE, VSM3MSG1 to VSM3RNDS2", {7, 1, kEax, 1}};
constexpr Extension kSm4{"SM4", "ISE, VSM4KEY4 and VSM4RNDS4", {7, 1, kEax, 2}};
// AMX-INT8, -BF16, -FP16, -COMPLEX, -FP8, -TF32, -MOVRS and -TRANSPOSE have bits of their own; all need tiles.
constexpr Extension kAmx{"AMX", "SDM vol. 2, LDTILECFG to TILEZERO; ISE, AMX", {7, 0, kEdx, 24}};
constexpr Extension kUserMsr{"USER_MSR", "ISE, URDMSR and UWRMSR", {7, 1, kEdx, 15}};
constexpr Extension kMsrImm{"MSR_IMM", "ISE, RDMSR and WRMSRNS with an immediate", {7, 1, kEcx, 5}};
constexpr Extension kFma4{"FMA4", "APM vol. 6, VFMADDPD to VFNMSUBSS", {0x80000001, 0, kEcx, 16}};
constexpr Extension kXop{"XOP", "APM vol. 6, VPERMIL2PD and VPERMIL2PS", {0x80000001, 0, kEcx, 11}};
// Not every host has these, which the guest has.
constexpr Extension kVaes{"VAES", "SDM vol. 2, AESDEC to AESENCLAST", {7, 0, kEcx, 9}, true};
constexpr Extension kVpclmulqdq{"VPCLMULQDQ", "SDM vol. 2, PCLMULQDQ", {7, 0, kEcx, 10}, true};

constexpr unsigned kMap0F = 1;
constexpr unsigned kMap0F38 = 2;
constexpr unsigned kMap0F3A = 3;
constexpr unsigned kMap5 = 5;
constexpr unsigned kMap7 = 7;

constexpr std::array kOpcodes = std::to_array<OpcodeRange>({
    {&kMasks, kMap0F, 0x41, 0x42, kNoPrefix | k66},        // KAND, KANDN
    {&kMasks, kMap0F, 0x44, 0x47, kNoPrefix | k66},        // KNOT, KOR, KXNOR, KXOR
    {&kMasks, kMap0F, 0x4a, 0x4b, kNoPrefix | k66},        // KADD, KUNPCK
    {&kMasks, kMap0F, 0x90, 0x91, kNoPrefix | k66},        // KMOV with memory
    {&kMasks, kMap0F, 0x92, 0x93, kNoPrefix | k66 | kF2},  // KMOV with a register
    {&kMasks, kMap0F, 0x98, 0x99, kNoPrefix | k66},        // KORTEST, KTEST
    {&kMasks, kMap0F3A, 0x30, 0x33, k66},                  // KSHIFTR, KSHIFTL
    {&kGfni, kMap0F38, 0xcf, 0xcf, k66},                   // VGF2P8MULB
    {&kGfni, kMap0F3A, 0xce, 0xcf, k66},                   // VGF2P8AFFINEQB, VGF2P8AFFINEINVQB
    {&kVnni, kMap0F38, 0x50, 0x53, k66},                   // VPDPBUSD, VPDPBUSDS, VPDPWSSD, VPDPWSSDS
    {&kVnniInt8, kMap0F38, 0x50, 0x51, kNoPrefix | kF3 | kF2},
    {&kVnniInt16, kMap0F38, 0xd2, 0xd3, kNoPrefix | k66 | kF3},
    {&kIfma, kMap0F38, 0xb4, 0xb5, k66},
    {&kNeConvert, kMap0F38, 0x72, 0x72, kF3},         // VCVTNEPS2BF16
    {&kNeConvert, kMap0F38, 0xb0, 0xb0, kAnyPrefix},  // VCVTNEEBF162PS, VCVTNEEPH2PS, VCVTNEOBF162PS, ..
    {&kNeConvert, kMap0F38, 0xb1, 0xb1, k66 | kF3},   // VBCSTNESH2PS, VBCSTNEBF162PS
    {&kCmpccxadd, kMap0F38, 0xe0, 0xef, k66},
    {&kSha512, kMap0F38, 0xcb, 0xcd, kF2},
    {&kSm3, kMap0F38, 0xda, 0xda, kNoPrefix | k66},  // VSM3MSG1, VSM3MSG2
    {&kSm3, kMap0F3A, 0xde, 0xde, k66},              // VSM3RNDS2
    {&kSm4, kMap0F38, 0xda, 0xda, kF3 | kF2},        // VSM4KEY4, VSM4RNDS4
    {&kAmx, kMap0F38, 0x48, 0x48, kNoPrefix | k66},  // TTMMULTF32PS, TMMULTF32PS
    {&kAmx, kMap0F38, 0x49, 0x49, kAnyPrefix},       // LDTILECFG, STTILECFG, TILERELEASE, TILEZERO
    {&kAmx, kMap0F38, 0x4a, 0x4a, k66 | kF2},        // TILELOADDRST1, TILELOADDRS
    {&kAmx, kMap0F38, 0x4b, 0x4b, k66 | kF3 | kF2},  // TILELOADDT1, TILESTORED, TILELOADD
    {&kAmx, kMap0F38, 0x5c, 0x5c, kF3 | kF2},        // TDPBF16PS, TDPFP16PS
    {&kAmx, kMap0F38, 0x5e, 0x5e, kAnyPrefix},       // TDPBUUD, TDPBUSD, TDPBSUD, TDPBSSD
    {&kAmx, kMap0F38, 0x5f, 0x5f, kF3},              // TTRANSPOSED
    {&kAmx, kMap0F38, 0x6b, 0x6c, kAnyPrefix},       // TCMMIMFP16PS, TCMMRLFP16PS and their transposing forms
    {&kAmx, kMap0F38, 0x6e, 0x6f, kNoPrefix | k66},  // T2RPNTLVWZ0, T2RPNTLVWZ1
    {&kAmx, kMap5, 0xf8, 0xf9, kNoPrefix | k66},     // T2RPNTLVWZ0RS, T2RPNTLVWZ1RS
    {&kAmx, kMap5, 0xfd, 0xfd, kAnyPrefix},          // TDPBF8PS, TDPHF8PS, TDPHBF8PS, TDPBHF8PS
    {&kUserMsr, kMap7, 0xf8, 0xf8, kF3 | kF2},
    {&kMsrImm, kMap7, 0xf6, 0xf6, kF3 | kF2},
    {&kXop, kMap0F3A, 0x48, 0x49, k66},
    {&kFma4, kMap0F3A, 0x5c, 0x5f, k66},
    {&kFma4, kMap0F3A, 0x68, 0x6f, k66},
    {&kFma4, kMap0F3A, 0x78, 0x7f, k66},
    {&kVaes, kMap0F38, 0xdc, 0xdf, k66, true},
    {&kVpclmulqdq, kMap0F3A, 0x44, 0x44, k66, true},
});

struct Vex {
  unsigned map, prefix, opcode;  // prefix: a bit of OpcodeRange::prefixes
  bool is_256;
};

bool is_legacy_prefix(std::uint8_t byte) {
  constexpr std::array<std::uint8_t, 11> kPrefixes = {0x26, 0x2e, 0x36, 0x3e, 0x64, 0x65, 0x66, 0x67, 0xf0, 0xf2, 0xf3};
  return std::find(kPrefixes.begin(), kPrefixes.end(), byte) != kPrefixes.end();
}

// False: no VEX prefix, or not all of it with an opcode.
bool parse(std::span<const std::uint8_t> code, Vex& vex) {
  constexpr std::uint8_t kVex2 = 0xc5;
  constexpr std::uint8_t kVex3 = 0xc4;
  constexpr std::uint8_t kMapBits = 0x1f;
  while (!code.empty() && is_legacy_prefix(code.front())) code = code.subspan(1);
  if (code.empty() || (code.front() != kVex2 && code.front() != kVex3)) return false;
  const bool three = code.front() == kVex3;
  if (code.size() < (three ? 4U : 3U)) return false;
  const std::uint8_t last = code[three ? 2 : 1];
  vex = {.map = three ? code[1] & kMapBits : kMap0F,
         .prefix = 1U << (last & 3),
         .opcode = code[three ? 3 : 2],
         .is_256 = (last & 4) != 0};
  return true;
}

}  // namespace

std::span<const OpcodeRange> vex_opcodes() { return kOpcodes; }

const Extension* vex_extension(std::span<const std::uint8_t> code) {
  Vex vex{};
  if (!parse(code, vex)) return nullptr;
  const auto* row = std::find_if(kOpcodes.begin(), kOpcodes.end(), [&](const OpcodeRange& r) {
    return r.map == vex.map && r.first <= vex.opcode && vex.opcode <= r.last && (r.prefixes & vex.prefix) != 0 &&
           (vex.is_256 || !r.only_256);
  });
  return row == kOpcodes.end() ? nullptr : row->extension;
}

Authority authority(const Processor& host, std::span<const std::uint8_t> code) {
  const Extension* extension = vex_extension(code);
  if (extension == nullptr) return Authority::kHost;
  const bool on_host = host.has(extension->bit);
  if (extension->in_engine) return on_host ? Authority::kHost : Authority::kNobody;
  // A hypervisor may hide the bit, but cannot keep the instruction from running if it needs no state of its own.
  return on_host || host.has(kHypervisor) ? Authority::kManual : Authority::kHost;
}

bool rightly_undefined(Authority authority, bool on_host, bool in_engine) {
  switch (authority) {
    case Authority::kManual:
      return in_engine;
    case Authority::kNobody:
      return true;
    case Authority::kHost:
      break;
  }
  return on_host == in_engine;
}

}  // namespace sevisor::cpu_diff
