// LAHF, SAHF, CLC, STC, CMC, CLD, STD, SALC; the NOPs and hints; RDRAND, RDSEED, RDPID.
#include "emulator/cpu/exec/forms.hpp"
#include "emulator/cpu/exec/integer.hpp"

namespace sevisor::emulator {

namespace {

constexpr std::uint64_t kFlagsInAh = kFlagSf | kFlagZf | kFlagAf | kFlagPf | kFlagCf;

const Op* load_flags_to_ah(Core& core, const Op* op) {
  core.set_reg<std::uint8_t>(kOffsetAh, static_cast<std::uint8_t>((core.flags.rflags() & kFlagsInAh) | kFlagOne));
  return next(core, op);
}
const Op* store_ah_to_flags(Core& core, const Op* op) {
  const std::uint64_t ah = core.reg<std::uint8_t>(kOffsetAh);
  core.flags.set_rflags((core.flags.rflags() & kFlagOf) | (ah & kFlagsInAh));
  return next(core, op);
}
template <bool kValue>
const Op* set_carry(Core& core, const Op* op) {
  core.flags.set_cf(kValue);
  return next(core, op);
}
const Op* complement_carry(Core& core, const Op* op) {
  core.flags.set_cf(!core.flags.cf());
  return next(core, op);
}
template <bool kValue>
const Op* set_direction(Core& core, const Op* op) {
  core.system_flags = kValue ? core.system_flags | kFlagDf : core.system_flags & ~kFlagDf;
  return next(core, op);
}
const Op* carry_to_al(Core& core, const Op* op) {
  core.set_reg<std::uint8_t>(kOffsetRax, core.flags.cf() ? 0xff : 0);
  return next(core, op);
}
const Op* no_operation(Core& core, const Op* op) { return next(core, op); }

template <Handler kHandler>
bool select_fixed(Insn& /*insn*/, Op& op) {
  op.fn = kHandler;
  return true;
}

// splitmix64: every seed gives its own sequence, the same in every run.
std::uint64_t next_random(Core& core) noexcept {
  core.random_state += 0x9e3779b97f4a7c15;
  std::uint64_t z = core.random_state;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
  z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
  return z ^ (z >> 31);
}

// Success is CF=1 and a value that is not 0, which software takes for failure; the other flags are cleared.
template <class T>
const Op* random(Core& core, const Op* op) {
  T value{};
  while (value == 0) value = static_cast<T>(next_random(core));
  core.set_reg<T>(op->dst, value);
  core.flags.set_rflags(kFlagCf);
  return next(core, op);
}
bool select_random(Insn& insn, Op& op) {
  op.dst = register_of(insn, 0);
  return with_size_from_16(size_of(insn, 0), [&]<class T>() {
    op.fn = random<T>;
    return true;
  });
}

const Op* read_processor_id(Core& core, const Op* op) {
  core.set_reg<std::uint64_t>(op->dst, core.msr.tsc_aux);
  return next(core, op);
}
bool select_rdpid(Insn& insn, Op& op) {
  op.dst = register_of(insn, 0);
  op.fn = read_processor_id;
  return true;
}

// 0F 0D with a register in place of the line to fetch, which Zydis takes for a NOP.
bool select_nop(Insn& insn, Op& op) {
  constexpr unsigned kPrefetchw = 0x0d;
  const bool undefined = insn.info.opcode_map == ZYDIS_OPCODE_MAP_0F && insn.info.opcode == kPrefetchw;
  if (!undefined) return select_fixed<no_operation>(insn, op);
  insn.ends_block = true;
  op.fn = op_undefined;
  return true;
}

}  // namespace

void add_flag_operations(SelectorTable& table) {
  table[ZYDIS_MNEMONIC_LAHF] = select_fixed<load_flags_to_ah>;
  table[ZYDIS_MNEMONIC_SAHF] = select_fixed<store_ah_to_flags>;
  table[ZYDIS_MNEMONIC_CLC] = select_fixed<set_carry<false>>;
  table[ZYDIS_MNEMONIC_STC] = select_fixed<set_carry<true>>;
  table[ZYDIS_MNEMONIC_CMC] = select_fixed<complement_carry>;
  table[ZYDIS_MNEMONIC_CLD] = select_fixed<set_direction<false>>;
  table[ZYDIS_MNEMONIC_STD] = select_fixed<set_direction<true>>;
  table[ZYDIS_MNEMONIC_SALC] = select_fixed<carry_to_al>;
  // Hints, and what shadow stacks make of NOPs where they exist: here they do not.
  for (const ZydisMnemonic m :
       {ZYDIS_MNEMONIC_ENDBR32, ZYDIS_MNEMONIC_ENDBR64, ZYDIS_MNEMONIC_RDSSPD, ZYDIS_MNEMONIC_RDSSPQ,
        ZYDIS_MNEMONIC_PREFETCH, ZYDIS_MNEMONIC_PREFETCHW, ZYDIS_MNEMONIC_PREFETCHWT1, ZYDIS_MNEMONIC_PREFETCHNTA,
        ZYDIS_MNEMONIC_PREFETCHT0, ZYDIS_MNEMONIC_PREFETCHT1, ZYDIS_MNEMONIC_PREFETCHT2}) {
    table[m] = select_fixed<no_operation>;
  }
  table[ZYDIS_MNEMONIC_NOP] = select_nop;
  table[ZYDIS_MNEMONIC_RDRAND] = select_random;
  table[ZYDIS_MNEMONIC_RDSEED] = select_random;
  table[ZYDIS_MNEMONIC_RDPID] = select_rdpid;
}

}  // namespace sevisor::emulator
