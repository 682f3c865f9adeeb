// Port I/O: all of it is a non-automatic exit, once the guest's own permission checks have passed (APM vol. 2, 15.10).
#include <algorithm>
#include <array>
#include <span>
#include <utility>

#include "emulator/cpu/exec/forms.hpp"
#include "emulator/cpu/intercepts.hpp"
#include "emulator/cpu/system.hpp"
#include "ghcb/ioio.hpp"

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

std::uint16_t port_of(const Core& core, const Op* op) {
  return static_cast<std::uint16_t>(op->aux == kPortInDx ? core.gpr[2] : op->imm);
}

// aux: kPortInDx, or the port in imm; bits: size in bytes.
template <bool kIn>
const Op* op_port(Core& core, const Op* op) {
  const std::uint16_t port = port_of(core, op);
  if (!port_allowed(core, port, op->bits)) return core.fault();
  return intercept<ghcb::kExitIoio>(core, op, ghcb::encode({.port = port, .in = kIn, .size = op->bits}));
}

template <unsigned kPortOperand>
bool select_port(Insn& insn, Op& op) {
  if (insn.is_imm(kPortOperand)) {
    op.imm = insn.op(kPortOperand).imm.value.u & 0xff;
  } else {
    op.aux = kPortInDx;
  }
  op.bits = static_cast<std::uint8_t>(insn.op(1 - kPortOperand).size / 8);
  op.fn = op_port<kPortOperand == 1>;
  insn.ends_block = true;
  return true;
}

// --- INS, OUTS: the hypervisor emulates them ---

// KVM asks for as many elements of a repeated INS at once as the rest of the destination's page could have bytes, but
// for no more than this (Linux arch/x86/kvm/emulate.c pio_in_emulated(), struct read_cache).
constexpr std::uint64_t kInputBytes = 1024;

// The memory operand: rDI and ES of INS, rSI of OUTS; `A`: address size.
template <class A, bool kIn>
std::uint64_t string_address(Core& core, const Op* op, A offset) {
  return offset + core.gpr[kIn ? op->index : op->segment];
}

template <class A, bool kIn>
void finish_string(Core& core, const Op* op, std::uint64_t elements) {
  constexpr std::uint8_t kPointer = kIn ? kOffsetRdi : kOffsetRsi;
  const std::uint64_t bytes = elements * op->bits;
  const bool down = (core.system_flags & kFlagDf) != 0;
  const auto at = core.reg<A>(kPointer);
  core.set_reg<A>(kPointer, static_cast<A>(down ? at - bytes : at + bytes));
  if (op->rep != 0) core.set_reg<A>(kOffsetRcx, static_cast<A>(core.reg<A>(kOffsetRcx) - elements));
}

template <class A>
const Op* output_string(Core& core, const Op* op, std::uint16_t port) {
  std::array<std::byte, 4> element{};
  if (!core.read_slow(string_address<A, false>(core, op, core.reg<A>(kOffsetRsi)), element.data(), op->bits)) {
    return core.fault();
  }
  core.string_room = Core::kMuchRoom;
  core.bus->output(port, op->bits, std::span(element).first(op->bits));
  finish_string<A, false>(core, op, 1);
  return core.leave_at(op->rep != 0 && core.reg<A>(kOffsetRcx) != 0 ? core.rip_of(op) : core.rip_after(op));
}

template <class A>
const Op* input_string(Core& core, const Op* op, std::uint16_t port) {
  const bool down = (core.system_flags & kFlagDf) != 0;
  const std::size_t size = op->bits;
  const auto at = core.reg<A>(kOffsetRdi);
  std::uint64_t elements = 1;
  if (op->rep != 0) {
    const std::uint64_t in_page = down ? at % kPageSize : kPageSize - at % kPageSize;
    elements = std::min({std::uint64_t{core.reg<A>(kOffsetRcx)}, kInputBytes / size, in_page,
                         std::exchange(core.string_room, Core::kMuchRoom)});
    elements = std::max<std::uint64_t>(elements, 1);
  }
  const auto element_at = [&](std::uint64_t n) {
    const std::uint64_t distance = n * size;
    return string_address<A, true>(core, op, static_cast<A>(down ? at - distance : at + distance));
  };
  // What a device has given up must find a place.
  for (std::uint64_t n = 0; n < elements; ++n) {
    if (!core.probe_write(element_at(n), size)) return core.fault();
  }
  std::array<std::byte, kInputBytes> data{};
  if (!core.bus->input(port, op->bits, std::span(data).first(elements * size))) {
    core.fault_info = Fault{.waiting = true};
    return core.fault();
  }
  for (std::uint64_t n = 0; n < elements; ++n) {
    if (!core.write_slow(element_at(n), &data[n * size], size)) return core.fault();
  }
  finish_string<A, true>(core, op, elements);
  return core.leave_at(op->rep != 0 && core.reg<A>(kOffsetRcx) != 0 ? core.rip_of(op) : core.rip_after(op));
}

template <class A, bool kIn>
const Op* op_string_port(Core& core, const Op* op) {
  const std::uint16_t port = port_of(core, op);
  if (!port_allowed(core, port, op->bits)) return core.fault();
  if (core.bus == nullptr) {
    const unsigned segment = kIn ? unsigned{kEs} : unsigned{op->segment_register};
    return intercept<ghcb::kExitIoio>(core, op,
                                      ghcb::encode({.port = port,
                                                    .in = kIn,
                                                    .string = true,
                                                    .rep = op->rep != 0,
                                                    .size = op->bits,
                                                    .address_size = sizeof(A),
                                                    .segment = static_cast<ghcb::IoSegment>(segment)}));
  }
  if (op->rep != 0 && core.reg<A>(kOffsetRcx) == 0) return core.leave_at(core.rip_after(op));
  return kIn ? input_string<A>(core, op, port) : output_string<A>(core, op, port);
}

template <unsigned kBytes, bool kIn>
bool select_string_port(Insn& insn, Op& op) {
  for (unsigned n = 0; n < insn.info.operand_count; ++n) {
    if (insn.is_mem(n)) set_memory(insn, insn.op(n), op);
  }
  op.index = insn.code64() ? kRegZero : static_cast<std::uint8_t>(kRegSegmentBase + kEs);
  op.rep = insn.has_prefix(ZYDIS_ATTRIB_HAS_REP | ZYDIS_ATTRIB_HAS_REPE | ZYDIS_ATTRIB_HAS_REPNE) ? 1 : 0;
  op.aux = kPortInDx;
  op.bits = kBytes;
  insn.ends_block = true;
  return with_size_from_16(insn.info.address_width, [&]<class A>() {
    op.fn = op_string_port<A, kIn>;
    return true;
  });
}

}  // namespace

void add_io(SelectorTable& table) {
  table[ZYDIS_MNEMONIC_IN] = select_port<1>;
  table[ZYDIS_MNEMONIC_OUT] = select_port<0>;
  table[ZYDIS_MNEMONIC_INSB] = select_string_port<1, true>;
  table[ZYDIS_MNEMONIC_INSW] = select_string_port<2, true>;
  table[ZYDIS_MNEMONIC_INSD] = select_string_port<4, true>;
  table[ZYDIS_MNEMONIC_OUTSB] = select_string_port<1, false>;
  table[ZYDIS_MNEMONIC_OUTSW] = select_string_port<2, false>;
  table[ZYDIS_MNEMONIC_OUTSD] = select_string_port<4, false>;
}

}  // namespace sevisor::emulator
