#include "emulator/cpu/exec/avx_masked.hpp"

#include <algorithm>
#include <cstring>

#include "emulator/cpu/exec/vector.hpp"

namespace sevisor::emulator {

namespace {

constexpr std::size_t kYmmBytes = 32;

// Op::aux: the mask's register; Op::bits: bytes of the vector.
template <class T>
bool chosen(const Core& core, unsigned mask, std::size_t element) {
  return (load<T>(core.vec.ymm[mask].data() + element * sizeof(T)) >> (8 * sizeof(T) - 1)) != 0;
}

template <class T>
const Op* op_masked_load(Core& core, const Op* op) {
  if (!avx_available(core)) return core.fault();
  const std::uint64_t va = core.address(op);
  alignas(32) std::array<std::byte, kYmmBytes> value{};
  for (std::size_t i = 0; i < op->bits / sizeof(T); ++i) {
    if (!chosen<T>(core, op->aux, i)) continue;
    T element{};
    if (!core.read(va + i * sizeof(T), element)) return core.fault();
    store(value.data() + i * sizeof(T), element);
  }
  core.vec.ymm[op->dst] = value;
  return next(core, op);
}

template <class T>
const Op* op_masked_store(Core& core, const Op* op) {
  if (!avx_available(core)) return core.fault();
  const std::uint64_t va = core.address(op);
  const std::size_t count = op->bits / sizeof(T);
  for (std::size_t i = 0; i < count; ++i) {
    if (chosen<T>(core, op->aux, i) && !core.probe_write(va + i * sizeof(T), sizeof(T))) return core.fault();
  }
  for (std::size_t i = 0; i < count; ++i) {
    if (!chosen<T>(core, op->aux, i)) continue;
    if (!core.write(va + i * sizeof(T), load<T>(core.vec.ymm[op->src].data() + i * sizeof(T)))) return core.fault();
  }
  return next(core, op);
}

// --- gathers: elements are loaded one after another, each done for good when its mask element is cleared, so that a
// fault in the middle can be taken up again (APM vol. 4, VGATHERDPD). What lies behind it is as it was then.

// dst: destination; src: index register; aux: mask; imm: number of elements; bits: bytes of the longer vector.
template <class T, class Index>
const Op* op_gather(Core& core, const Op* op) {
  if (!avx_available(core)) return core.fault();
  const std::size_t count = op->imm;
  auto& mask = core.vec.ymm[op->aux];
  auto& to = core.vec.ymm[op->dst];
  const auto clear_from = [](auto& vector, std::size_t at) { std::memset(vector.data() + at, 0, kYmmBytes - at); };
  for (std::size_t i = 0; i < count; ++i) {
    if (!chosen<T>(core, op->aux, i)) {
      store(mask.data() + i * sizeof(T), T{0});
      continue;
    }
    const auto index = static_cast<std::int64_t>(load<Index>(core.vec.ymm[op->src].data() + i * sizeof(Index)));
    const std::uint64_t offset =
        core.gpr[op->base] + (static_cast<std::uint64_t>(index) << op->scale) + static_cast<std::uint64_t>(op->disp);
    T element{};
    if (!core.read((offset & op->address_mask) + core.gpr[op->segment], element)) return core.fault();
    store(to.data() + i * sizeof(T), element);
    store(mask.data() + i * sizeof(T), T{0});
  }
  clear_from(to, count * sizeof(T));
  clear_from(mask, 0);
  return next(core, op);
}

struct GatherForm {
  Handler fn;
  ZydisMnemonic mnemonic;
  std::uint8_t element;  // bytes
  std::uint8_t index;    // bytes
};
constexpr GatherForm kGathers[] = {
    {op_gather<std::uint32_t, std::int32_t>, ZYDIS_MNEMONIC_VPGATHERDD, 4, 4},
    {op_gather<std::uint64_t, std::int32_t>, ZYDIS_MNEMONIC_VPGATHERDQ, 8, 4},
    {op_gather<std::uint32_t, std::int64_t>, ZYDIS_MNEMONIC_VPGATHERQD, 4, 8},
    {op_gather<std::uint64_t, std::int64_t>, ZYDIS_MNEMONIC_VPGATHERQQ, 8, 8},
    {op_gather<std::uint32_t, std::int32_t>, ZYDIS_MNEMONIC_VGATHERDPS, 4, 4},
    {op_gather<std::uint64_t, std::int32_t>, ZYDIS_MNEMONIC_VGATHERDPD, 8, 4},
    {op_gather<std::uint32_t, std::int64_t>, ZYDIS_MNEMONIC_VGATHERQPS, 4, 8},
    {op_gather<std::uint64_t, std::int64_t>, ZYDIS_MNEMONIC_VGATHERQPD, 8, 8},
};

bool select_gather(const Insn& insn, Op& op) {
  const auto* form = std::find_if(std::begin(kGathers), std::end(kGathers),
                                  [&](const GatherForm& f) { return f.mnemonic == insn.info.mnemonic; });
  if (form == std::end(kGathers)) return false;
  // set_memory() knows no vector index.
  ZydisDecodedOperand base_only = insn.op(1);
  const ZydisRegister index = base_only.mem.index;
  base_only.mem.index = ZYDIS_REGISTER_NONE;
  set_memory(insn, base_only, op);
  op.dst = vector_number(insn, 0);
  op.src = static_cast<std::uint8_t>(ZydisRegisterGetId(index));
  op.aux = vector_number(insn, 2);
  op.bits = static_cast<std::uint8_t>(insn.info.avx.vector_length / 8);
  op.imm = op.bits / std::max(form->element, form->index);
  op.fn = form->fn;
  return true;
}

template <class T>
bool select_masked(const Insn& insn, Op& op) {
  const bool loads = insn.is_mem(2);
  set_memory(insn, insn.op(loads ? 2 : 0), op);
  op.aux = vector_number(insn, 1);
  op.bits = static_cast<std::uint8_t>(insn.info.avx.vector_length / 8);
  if (loads) {
    op.dst = vector_number(insn, 0);
    op.fn = op_masked_load<T>;
  } else {
    op.src = vector_number(insn, 2);
    op.fn = op_masked_store<T>;
  }
  return true;
}

}  // namespace

bool select_avx_masked(Insn& insn, Op& op) {
  switch (insn.info.mnemonic) {
    case ZYDIS_MNEMONIC_VMASKMOVPS:
    case ZYDIS_MNEMONIC_VPMASKMOVD:
      return select_masked<std::uint32_t>(insn, op);
    case ZYDIS_MNEMONIC_VMASKMOVPD:
    case ZYDIS_MNEMONIC_VPMASKMOVQ:
      return select_masked<std::uint64_t>(insn, op);
    default:
      return select_gather(insn, op);
  }
}

}  // namespace sevisor::emulator
