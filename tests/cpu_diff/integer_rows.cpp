#include <algorithm>

#include "tests/cpu_diff/difference_rows.hpp"

namespace sevisor::cpu_diff {

namespace {

constexpr unsigned kRepne = 0xf2;
constexpr unsigned kRep = 0xf3;
constexpr std::size_t kRcx = 1;
constexpr std::size_t kRsi = 6;
constexpr std::size_t kRdi = 7;

// Has `m` stopped because the byte at [rSI] or [rDI] cannot be read?
bool faults_at(const Encoding& e, const Machine& m, std::size_t index_register) {
  const std::uint64_t address = m.regs.gpr[index_register] & (~std::uint64_t{0} >> (64U - e.info.address_width));
  if (m.exception == kPageFault) return m.cr2 == address;
  return (m.exception == kGeneralProtection || m.exception == kStackFault) &&
         address != extended_from(kSignOf48, address);
}

}  // namespace

void prefetch_of_register(const Ran& ran, const Machine& native, Machine& engine) {
  constexpr unsigned kOpcode = 0x0d;
  constexpr unsigned kRegister = 3;
  const auto& info = ran.e.info;
  const bool form = info.opcode_map == ZYDIS_OPCODE_MAP_0F && info.opcode == kOpcode && info.raw.modrm.mod == kRegister;
  if (form && engine.exception == kInvalidOpcode && native.exception == kNoException) engine = native;
}

void repeated_loop(const Ran& ran, const Machine& native, Machine& engine) {
  if (!is_one_of(ran.e, {ZYDIS_MNEMONIC_LOOPE, ZYDIS_MNEMONIC_LOOPNE})) return;
  const auto* prefixes = ran.e.info.raw.prefixes;
  const bool repeats = std::any_of(prefixes, prefixes + ran.e.info.raw.prefix_count,
                                   [](const auto& p) { return p.value == kRepne || p.value == kRep; });
  if (repeats) engine.rip = native.rip;
}

void call_to_nowhere(const Ran& ran, const Machine& native, Machine& engine) {
  if (ran.e.info.mnemonic != ZYDIS_MNEMONIC_CALL) return;
  if (engine.exception == kGeneralProtection && native.exception == kGeneralProtection) engine.data = native.data;
}

void bound_order(const Ran& ran, const Machine& native, Machine& engine) {
  if (ran.e.info.mnemonic != ZYDIS_MNEMONIC_BOUND) return;
  if (native.exception == kBoundRange && engine.exception == kPageFault) engine = native;
}

void short_movsxd(const Ran& ran, const Machine& native, Machine& engine) {
  if (ran.e.info.mnemonic != ZYDIS_MNEMONIC_MOVSXD || ran.e.operands[0].size != 16) return;
  if (native.exception == kNoException && engine.exception == kPageFault) engine = native;
}

void short_strings(const Ran& ran, const Machine& native, Machine& engine) {
  if (ran.mode != Mode::k64 || ran.e.info.meta.category != ZYDIS_CATEGORY_STRINGOP) return;
  if (ran.e.info.address_width != 32) return;
  constexpr std::uint64_t kLow = 0xffffffff;
  const bool none = (ran.before.regs.gpr[kRcx] & kLow) == 0;
  if (!none && native.exception == kNoException) return;
  for (const std::size_t r : {kRcx, kRsi, kRdi}) {
    if (((native.regs.gpr[r] ^ engine.regs.gpr[r]) & kLow) == 0) engine.regs.gpr[r] = native.regs.gpr[r];
  }
}

void fast_cmpsb(const Ran& ran, const Machine& native, Machine& engine) {
  const bool repe = (ran.e.info.attributes & ZYDIS_ATTRIB_HAS_REPE) != 0;
  if (ran.e.info.mnemonic != ZYDIS_MNEMONIC_CMPSB || !repe) return;
  if (!faults_at(ran.e, native, kRsi) || !faults_at(ran.e, engine, kRdi)) return;
  engine.exception = native.exception;
  engine.error = native.error;
  engine.cr2 = native.cr2;
}

bool short_near_branch(const Encoding& e) {
  const auto type = e.info.meta.branch_type;
  const bool branch =
      type == ZYDIS_BRANCH_TYPE_NEAR || type == ZYDIS_BRANCH_TYPE_SHORT || e.info.mnemonic == ZYDIS_MNEMONIC_RET;
  return branch && (e.info.attributes & ZYDIS_ATTRIB_HAS_OPERANDSIZE) != 0;
}

}  // namespace sevisor::cpu_diff
