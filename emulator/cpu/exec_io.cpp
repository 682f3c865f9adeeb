// Port I/O: all of it is a non-automatic exit, once the guest's own permission checks have passed (APM vol. 2, 15.10).
#include "emulator/cpu/intercepts.hpp"
#include "emulator/cpu/system.hpp"

namespace sevisor::emulator {

namespace {

constexpr std::uint32_t kTssIoMapBase = 102;  // u16 in the TSS, both forms (APM vol. 2, 12.2)
constexpr std::uint8_t kPortInDx = 1;         // Op::aux

// #GP(0) unless IOPL or the TSS's bitmap lets this privilege at `size` ports from `port`.
bool port_allowed(Core& core, unsigned port, unsigned size) {
  if (!protected_mode(core) || core.cpl <= io_privilege(core)) return true;
  const unsigned type = core.tr.attributes & kSegType;
  const bool has_map = (type == kTypeTss || type == kTypeTssBusy) && core.tr.limit >= kTssIoMapBase + 1;
  if (!has_map) return core.raise(kVectorGp, 0);
  std::uint16_t map = 0;
  if (!core.read_system(core.tr.base + kTssIoMapBase, &map, sizeof map)) return false;
  const std::uint32_t at = map + port / 8;
  if (at + 1 > core.tr.limit) return core.raise(kVectorGp, 0);
  std::uint16_t bits = 0;
  if (!core.read_system(core.tr.base + at, &bits, sizeof bits)) return false;
  const unsigned wanted = ((1U << size) - 1) << port % 8;
  return (bits & wanted) == 0 ? true : core.raise(kVectorGp, 0);
}

// aux: kPortInDx, or the port in imm; bits: size in bytes.
const Op* op_port(Core& core, const Op* op) {
  const auto port = static_cast<unsigned>(op->aux == kPortInDx ? core.gpr[2] & 0xffff : op->imm);
  if (!port_allowed(core, port, op->bits)) return core.fault();
  return intercept<ghcb::kExitIoio>(core, op);
}

template <unsigned kPortOperand>
bool select_port(Insn& insn, Op& op) {
  if (insn.is_imm(kPortOperand)) {
    op.imm = insn.op(kPortOperand).imm.value.u & 0xff;
  } else {
    op.aux = kPortInDx;
  }
  op.bits = static_cast<std::uint8_t>(insn.op(1 - kPortOperand).size / 8);
  op.fn = op_port;
  insn.ends_block = true;
  return true;
}

template <unsigned kBytes>
bool select_string_port(Insn& insn, Op& op) {
  op.aux = kPortInDx;
  op.bits = kBytes;
  op.fn = op_port;
  insn.ends_block = true;
  return true;
}

}  // namespace

void add_io(SelectorTable& table) {
  table[ZYDIS_MNEMONIC_IN] = select_port<1>;
  table[ZYDIS_MNEMONIC_OUT] = select_port<0>;
  table[ZYDIS_MNEMONIC_INSB] = table[ZYDIS_MNEMONIC_OUTSB] = select_string_port<1>;
  table[ZYDIS_MNEMONIC_INSW] = table[ZYDIS_MNEMONIC_OUTSW] = select_string_port<2>;
  table[ZYDIS_MNEMONIC_INSD] = table[ZYDIS_MNEMONIC_OUTSD] = select_string_port<4>;
}

}  // namespace sevisor::emulator
