#include "tests/cpu_diff/integer.hpp"

#include <algorithm>
#include <set>
#include <string>
#include <vector>

#include "tests/cpu_diff/cpuid.hpp"
#include "tests/cpu_diff/differences.hpp"

namespace sevisor::cpu_diff {

namespace {

// The instructions of exec_integer*, exec_shift, exec_bits*, exec_multiply*, exec_string and exec_control, but for
// RDRAND, RDSEED and RDPID.
const std::set<std::string> kMnemonics = {
    "aaa",       "aad",     "aam",    "aas",    "adc",      "adcx",        "add",        "adox",       "and",
    "andn",      "bextr",   "blsi",   "blsmsk", "blsr",     "bound",       "bsf",        "bsr",        "bswap",
    "bt",        "btc",     "btr",    "bts",    "bzhi",     "call",        "cbw",        "cdq",        "cdqe",
    "clc",       "cld",     "cmc",    "cmovb",  "cmovbe",   "cmovl",       "cmovle",     "cmovnb",     "cmovnbe",
    "cmovnl",    "cmovnle", "cmovno", "cmovnp", "cmovns",   "cmovnz",      "cmovo",      "cmovp",      "cmovs",
    "cmovz",     "cmp",     "cmpsb",  "cmpsd",  "cmpsq",    "cmpsw",       "cmpxchg",    "cmpxchg16b", "cmpxchg8b",
    "cqo",       "crc32",   "cwd",    "cwde",   "daa",      "das",         "dec",        "div",        "endbr32",
    "endbr64",   "enter",   "idiv",   "imul",   "inc",      "jb",          "jbe",        "jcxz",       "jecxz",
    "jl",        "jle",     "jmp",    "jnb",    "jnbe",     "jnl",         "jnle",       "jno",        "jnp",
    "jns",       "jnz",     "jo",     "jp",     "jrcxz",    "js",          "jz",         "lahf",       "lea",
    "leave",     "lodsb",   "lodsd",  "lodsq",  "lodsw",    "loop",        "loope",      "loopne",     "lzcnt",
    "mov",       "movbe",   "movnti", "movsb",  "movsd",    "movsq",       "movsw",      "movsx",      "movsxd",
    "movzx",     "mul",     "mulx",   "neg",    "nop",      "not",         "or",         "pdep",       "pext",
    "pop",       "popa",    "popad",  "popcnt", "prefetch", "prefetchnta", "prefetcht0", "prefetcht1", "prefetcht2",
    "prefetchw", "push",    "pusha",  "pushad", "rcl",      "rcr",         "ret",        "rol",        "ror",
    "rorx",      "sahf",    "salc",   "sar",    "sarx",     "sbb",         "scasb",      "scasd",      "scasq",
    "scasw",     "setb",    "setbe",  "setl",   "setle",    "setnb",       "setnbe",     "setnl",      "setnle",
    "setno",     "setnp",   "setns",  "setnz",  "seto",     "setp",        "sets",       "setz",       "shl",
    "shld",      "shlx",    "shr",    "shrd",   "shrx",     "stc",         "std",        "stosb",      "stosd",
    "stosq",     "stosw",   "sub",    "test",   "tzcnt",    "ud0",         "ud1",        "ud2",        "xadd",
    "xchg",      "xlat",    "xor",
};

// Extensions that the host may lack; LZCNT and TZCNT would silently be BSR and BSF.
bool host_has(ZydisMnemonic m) {
  switch (m) {
    case ZYDIS_MNEMONIC_ADCX:
    case ZYDIS_MNEMONIC_ADOX:
      return cpuid_bit(7, kEbx, 19);
    case ZYDIS_MNEMONIC_ANDN:
    case ZYDIS_MNEMONIC_BEXTR:
    case ZYDIS_MNEMONIC_BLSI:
    case ZYDIS_MNEMONIC_BLSMSK:
    case ZYDIS_MNEMONIC_BLSR:
    case ZYDIS_MNEMONIC_TZCNT:
      return __builtin_cpu_supports("bmi") != 0;
    case ZYDIS_MNEMONIC_BZHI:
    case ZYDIS_MNEMONIC_MULX:
    case ZYDIS_MNEMONIC_PDEP:
    case ZYDIS_MNEMONIC_PEXT:
    case ZYDIS_MNEMONIC_RORX:
    case ZYDIS_MNEMONIC_SARX:
    case ZYDIS_MNEMONIC_SHLX:
    case ZYDIS_MNEMONIC_SHRX:
      return __builtin_cpu_supports("bmi2") != 0;
    case ZYDIS_MNEMONIC_CRC32:
      return __builtin_cpu_supports("sse4.2") != 0;
    case ZYDIS_MNEMONIC_LZCNT:
      return cpuid_bit(0x80000001, kEcx, 5);
    case ZYDIS_MNEMONIC_MOVBE:
      return cpuid_bit(1, kEcx, 22);
    case ZYDIS_MNEMONIC_POPCNT:
      return __builtin_cpu_supports("popcnt") != 0;
    default:
      return true;
  }
}

}  // namespace

bool integer_wanted(const Encoding& e) {
  static const std::vector<bool> known = [] {
    std::vector<bool> v(ZYDIS_MNEMONIC_MAX_VALUE + 1);
    for (std::size_t n = 0; n < v.size(); ++n) {
      const char* name = ZydisMnemonicGetString(static_cast<ZydisMnemonic>(n));
      v[n] = name != nullptr && kMnemonics.contains(name) && host_has(static_cast<ZydisMnemonic>(n));
    }
    return v;
  }();
  if (!known[e.info.mnemonic] || e.info.meta.branch_type == ZYDIS_BRANCH_TYPE_FAR) return false;
  // Their bases differ from the host's.
  if ((e.info.attributes & (ZYDIS_ATTRIB_HAS_SEGMENT_FS | ZYDIS_ATTRIB_HAS_SEGMENT_GS)) != 0) return false;
  // The engine of this test has flat segments without checks, and CS may not be written.
  if ((e.info.attributes & ZYDIS_ATTRIB_HAS_SEGMENT_CS) != 0) return false;
  if (left_out(host_processor(), e)) return false;
  for (unsigned n = 0; n < e.info.operand_count_visible; ++n) {
    if (e.operands[n].type != ZYDIS_OPERAND_TYPE_REGISTER) continue;
    switch (ZydisRegisterGetClass(e.operands[n].reg.value)) {
      case ZYDIS_REGCLASS_GPR8:
      case ZYDIS_REGCLASS_GPR16:
      case ZYDIS_REGCLASS_GPR32:
      case ZYDIS_REGCLASS_GPR64:
        break;
      default:
        return false;
    }
  }
  return true;
}

bool integer_result_undefined(const Encoding& e, const Machine& before) {
  switch (e.info.mnemonic) {
    case ZYDIS_MNEMONIC_BSWAP:
      return e.operands[0].size == 16;
    case ZYDIS_MNEMONIC_SHLD:
    case ZYDIS_MNEMONIC_SHRD: {
      const ZydisDecodedOperand& c = e.operands[2];
      const std::uint64_t count = c.type == ZYDIS_OPERAND_TYPE_IMMEDIATE ? c.imm.value.u : before.regs.gpr[1];
      return e.operands[0].size == 16 && (count & 31) > 16;
    }
    default:
      return false;
  }
}

void forgive_integer(const Encoding& e, const Machine& native, Machine& engine) {
  if (native.exception == kNoException) return;
  // How much ENTER, PUSHA and their like have written.
  if (e.info.mnemonic == ZYDIS_MNEMONIC_ENTER || e.info.mnemonic == ZYDIS_MNEMONIC_PUSHA ||
      e.info.mnemonic == ZYDIS_MNEMONIC_PUSHAD) {
    engine.data = native.data;
  }
  // How much POPA has read; not ESP.
  if (e.info.mnemonic == ZYDIS_MNEMONIC_POPA || e.info.mnemonic == ZYDIS_MNEMONIC_POPAD) {
    constexpr std::size_t kRsp = 4;
    const std::uint64_t rsp = engine.regs.gpr[kRsp];
    engine.regs.gpr = native.regs.gpr;
    engine.regs.gpr[kRsp] = rsp;
  }
  // The host's kernel is mapped.
  constexpr int kPageFault = 14;
  constexpr std::uint32_t kPresent = 1;
  if (native.exception == kPageFault && (native.cr2 >> 63) != 0) engine.error |= native.error & kPresent;
}

void narrow(Mode mode, Machine& m) {
  if (mode == Mode::k64) return;
  for (std::size_t r = 0; r < m.regs.gpr.size(); ++r) m.regs.gpr[r] &= r < 8 ? 0xffffffff : 0;
}

}  // namespace sevisor::cpu_diff
