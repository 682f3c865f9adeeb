// x87 control: FINIT, FCLEX, the control and status words, and the environment (APM vol. 1, 6.2; vol. 2, 11.5.1 to
// 11.5.4). The control word in the image is always the guest's; what changes more than it works on the image.
#include <algorithm>
#include <array>
#include <cstring>

#include "emulator/cpu/exec/vector.hpp"

namespace sevisor::emulator {

namespace {

constexpr unsigned kFcwReset = 0x037f;
constexpr unsigned kFcwWritable = 0x1f3f;
constexpr unsigned kFcwFixed = 0x0040;
constexpr unsigned kFswFlags = 0x00ff;    // exceptions, SF and ES
constexpr unsigned kFswSummary = 0x8080;  // ES and B
constexpr unsigned kTopShift = 11;
constexpr unsigned kRegisters = 8;
constexpr std::size_t kSlot = 16;  // bytes of a register in the FXSAVE image
constexpr std::size_t kRegisterSize = 10;
constexpr unsigned kFopMask = 0x7ff;

// Op::aux.
constexpr std::uint8_t kMemory = 1;
constexpr std::uint8_t kRegistersToo = 2;  // FNSAVE, FRSTOR

bool available(Core& core) { return (core.cr0 & (kCr0Em | kCr0Ts)) == 0 || core.raise(kVectorNm); }
bool available_and_quiet(Core& core) { return available(core) && (!x87_pending(core) || core.raise(kVectorMf)); }

unsigned top(const Core& core) { return x87_field(core, kFxFsw) >> kTopShift & 7U; }

// ES and B follow from flags and masks.
void summarise(Core& core) {
  const unsigned fsw = x87_field(core, kFxFsw) & ~kFswSummary;
  set_x87_field(core, kFxFsw, fsw | (x87_pending(core) ? kFswSummary : 0));
}

// The image has the registers in stack order: they move when TOP changes and their contents stay.
void set_fsw(Core& core, unsigned value) {
  const unsigned shift = (value >> kTopShift & 7U) - top(core);
  std::array<std::byte, kRegisters * kSlot> old;
  std::byte* registers = core.vec.x87.data() + kFxSt;
  std::memcpy(old.data(), registers, old.size());
  for (unsigned i = 0; i < kRegisters; ++i) {
    std::memcpy(registers + i * kSlot, old.data() + ((i + shift) & 7) * kSlot, kSlot);
  }
  set_x87_field(core, kFxFsw, value);
}

void set_fcw(Core& core, unsigned value) { set_x87_field(core, kFxFcw, (value & kFcwWritable) | kFcwFixed); }

void initialise(Core& core) {
  set_fcw(core, kFcwReset);
  set_fsw(core, 0);
  store(core.vec.x87.data() + kFxFtw, std::uint16_t{0});
  std::memset(core.vec.x87.data() + kFxFop, 0, kFxMxcsr - kFxFop);
  core.vec.x87_cs = core.vec.x87_ds = 0;
}

// Two bits for each physical register: valid, zero, special, empty.
unsigned full_tags(const Core& core) {
  enum Tag : unsigned { kValid, kZero, kSpecial, kEmpty };
  constexpr unsigned kExponent = 0x7fff;
  const auto present = load<std::uint8_t>(core.vec.x87.data() + kFxFtw);
  unsigned tags = 0;
  for (unsigned physical = 0; physical < kRegisters; ++physical) {
    const std::byte* reg = core.vec.x87.data() + kFxSt + ((physical - top(core)) & 7) * kSlot;
    const auto mantissa = load<std::uint64_t>(reg);
    const unsigned exponent = load<std::uint16_t>(reg + 8) & kExponent;
    unsigned tag = kValid;
    if ((present >> physical & 1) == 0) {
      tag = kEmpty;
    } else if (exponent == 0 && mantissa == 0) {
      tag = kZero;
    } else if (exponent == 0 || exponent == kExponent || (mantissa >> 63) == 0) {
      tag = kSpecial;
    }
    tags |= tag << 2 * physical;
  }
  return tags;
}
void set_tags(Core& core, unsigned full) {
  unsigned present = 0;
  for (unsigned i = 0; i < kRegisters; ++i) {
    if ((full >> 2 * i & 3) != 3) present |= 1U << i;
  }
  store(core.vec.x87.data() + kFxFtw, static_cast<std::uint8_t>(present));
}

// --- the environment in memory: seven fields of 16 or 32 bits

constexpr std::size_t kFields = 7;
constexpr std::size_t kWide = 4;
struct Environment {
  std::uint64_t fcw, fsw, tags, ip, opcode, cs, dp, ds;
};

bool protected_format(const Core& core) { return (core.cr0 & kCr0Pe) != 0; }

void put_environment(const Core& core, std::size_t width, std::byte* to) {
  const X87Pointers last = last_pointers(core.vec);
  const Environment e{.fcw = x87_field(core, kFxFcw),
                      .fsw = x87_field(core, kFxFsw),
                      .tags = full_tags(core),
                      .ip = last.instruction,
                      .opcode = last.opcode,
                      .cs = last.cs,
                      .dp = last.data,
                      .ds = last.ds};
  std::array<std::uint64_t, kFields> fields{e.fcw, e.fsw, e.tags, e.ip, e.cs, e.dp, e.ds};
  constexpr std::uint64_t kUnused = 0xffff0000;
  if (protected_format(core)) {
    if (width == kWide)
      fields = {kUnused | e.fcw, kUnused | e.fsw, kUnused | e.tags, e.ip, e.opcode << 16 | e.cs, e.dp, kUnused | e.ds};
  } else if (width == kWide) {
    fields = {kUnused | e.fcw,
              kUnused | e.fsw,
              kUnused | e.tags,
              kUnused | (e.ip & 0xffff),
              (e.ip >> 16 & 0xffff) << 12 | e.opcode,
              kUnused | (e.dp & 0xffff),
              (e.dp >> 16 & 0xffff) << 12};
  } else {
    fields[4] = (e.ip >> 16 & 0xf) << 12 | e.opcode;
    fields[6] = (e.dp >> 16 & 0xf) << 12;
  }
  for (std::size_t i = 0; i < kFields; ++i) std::memcpy(to + i * width, &fields[i], width);
}

void take_environment(Core& core, std::size_t width, const std::byte* from) {
  std::array<std::uint64_t, kFields> f{};
  for (std::size_t i = 0; i < kFields; ++i) std::memcpy(&f[i], from + i * width, width);
  set_fcw(core, static_cast<unsigned>(f[0]));
  set_fsw(core, static_cast<unsigned>(f[1] & 0xffff));
  set_tags(core, static_cast<unsigned>(f[2]));
  std::uint64_t ip = f[3];
  std::uint64_t dp = f[5];
  std::uint64_t opcode = 0;
  core.vec.x87_cs = static_cast<std::uint16_t>(protected_format(core) ? f[4] : 0);
  core.vec.x87_ds = static_cast<std::uint16_t>(protected_format(core) ? f[6] : 0);
  if (!protected_format(core)) {
    ip = (ip & 0xffff) | f[4] >> 12 << 16;
    dp = (dp & 0xffff) | f[6] >> 12 << 16;
    opcode = f[4];
  } else if (width == kWide) {
    opcode = f[4] >> 16;
  }
  set_x87_field(core, kFxFop, static_cast<unsigned>(opcode & kFopMask));
  store(core.vec.x87.data() + kFxRip, ip);
  store(core.vec.x87.data() + kFxDp, dp);
  summarise(core);
}

// --- handlers

const Op* op_fninit(Core& core, const Op* op) {
  if (!available(core)) return core.fault();
  return_x87(core.vec);
  initialise(core);
  return next(core, op);
}

const Op* op_fnclex(Core& core, const Op* op) {
  if (!available(core)) return core.fault();
  return_x87(core.vec);
  set_x87_field(core, kFxFsw, x87_field(core, kFxFsw) & ~(kFswFlags | kFswSummary));
  return next(core, op);
}

// FNSTCW, FNSTSW; src: offset of the word in the image.
const Op* op_store_word(Core& core, const Op* op) {
  if (!available(core)) return core.fault();
  const std::uint16_t value = op->src == kFxFsw ? x87_status(core.vec) : x87_field(core, kFxFcw);
  if ((op->aux & kMemory) == 0) {
    core.set_reg<std::uint16_t>(op->dst, value);
  } else if (!core.write(core.address(op), value)) {
    return core.fault();
  }
  return next(core, op);
}

const Op* op_fldcw(Core& core, const Op* op) {
  if (!available_and_quiet(core)) return core.fault();
  std::uint16_t value = 0;
  if (!core.read(core.address(op), value)) return core.fault();
  // Compiled conversions to integers load another rounding mode and the old one again.
  const bool stays = core.vec.host_x87 && (value & kX87Exceptions) == kX87Exceptions;
  if (!stays) return_x87(core.vec);
  set_fcw(core, value);
  if (stays) {
    load_host_fcw(core.vec);
  } else {
    summarise(core);
  }
  return next(core, op);
}

// FNSTENV, FNSAVE; bits: size of the whole operand.
const Op* op_store_environment(Core& core, const Op* op) {
  if (!available(core)) return core.fault();
  return_x87(core.vec);
  const bool all = (op->aux & kRegistersToo) != 0;
  const std::size_t head = all ? op->bits - kRegisters * kRegisterSize : op->bits;
  std::byte* area = core.vec.operand.data();
  put_environment(core, head / kFields, area);
  if (all) {
    for (unsigned i = 0; i < kRegisters; ++i) {
      std::memcpy(area + head + i * kRegisterSize, core.vec.x87.data() + kFxSt + i * kSlot, kRegisterSize);
    }
  }
  if (!core.write_slow(core.address(op), area, op->bits)) return core.fault();
  if (all) {
    initialise(core);
  } else {
    set_x87_field(core, kFxFcw, x87_field(core, kFxFcw) | kX87Exceptions);
    summarise(core);
  }
  return next(core, op);
}

// FLDENV, FRSTOR.
const Op* op_load_environment(Core& core, const Op* op) {
  if (!available_and_quiet(core)) return core.fault();
  const bool all = (op->aux & kRegistersToo) != 0;
  const std::size_t head = all ? op->bits - kRegisters * kRegisterSize : op->bits;
  std::byte* area = core.vec.operand.data();
  if (!core.read_slow(core.address(op), area, op->bits)) return core.fault();
  return_x87(core.vec);
  take_environment(core, head / kFields, area);
  if (all) {
    for (unsigned i = 0; i < kRegisters; ++i) {
      std::memcpy(core.vec.x87.data() + kFxSt + i * kSlot, area + head + i * kRegisterSize, kRegisterSize);
    }
  }
  return next(core, op);
}

struct ControlForm {
  Handler fn;
  ZydisMnemonic mnemonic;
  std::uint8_t aux;
  std::uint8_t word;
};
constexpr ControlForm kForms[] = {
    {op_fninit, ZYDIS_MNEMONIC_FNINIT, 0, 0},
    {op_fnclex, ZYDIS_MNEMONIC_FNCLEX, 0, 0},
    {op_store_word, ZYDIS_MNEMONIC_FNSTCW, 0, kFxFcw},
    {op_store_word, ZYDIS_MNEMONIC_FNSTSW, 0, kFxFsw},
    {op_fldcw, ZYDIS_MNEMONIC_FLDCW, 0, 0},
    {op_store_environment, ZYDIS_MNEMONIC_FNSTENV, 0, 0},
    {op_store_environment, ZYDIS_MNEMONIC_FNSAVE, kRegistersToo, 0},
    {op_load_environment, ZYDIS_MNEMONIC_FLDENV, 0, 0},
    {op_load_environment, ZYDIS_MNEMONIC_FRSTOR, kRegistersToo, 0},
};

}  // namespace

bool select_x87_control(Insn& insn, Op& op) {
  const auto* form = std::find_if(std::begin(kForms), std::end(kForms),
                                  [&](const ControlForm& f) { return f.mnemonic == insn.info.mnemonic; });
  if (form == std::end(kForms)) return false;
  op.fn = form->fn;
  op.aux = form->aux;
  op.src = form->word;
  if (insn.is_mem(0)) {
    set_memory(insn, insn.op(0), op);
    op.aux |= kMemory;
    op.bits = static_cast<std::uint8_t>(insn.op(0).size / 8);
  } else if (insn.is_reg(0)) {
    op.dst = register_offset(insn.op(0).reg.value);
  }
  return true;
}

}  // namespace sevisor::emulator
