// MOVS, STOS, LODS, SCAS, CMPS, with REP, REPE and REPNE. INS and OUTS are exec_system's.
//
// A repeated instruction works through what lies in one page at a time. It charges the budget one instruction for every
// kElementsPerInstruction elements and, when the budget is used up, leaves with its registers pointing at the next
// element, as an interrupted one does. A fault leaves them at the element that faulted.
#include <algorithm>
#include <cstring>
#include <utility>

#include "emulator/cpu/exec/forms.hpp"

namespace sevisor::emulator {

namespace {

constexpr std::uint64_t kElementsPerInstruction = 4;
// So that a call with an empty budget gets somewhere.
constexpr std::uint64_t kLeastElements = 64;

enum class Repeat : std::uint8_t { kNone, kRep, kWhileEqual, kWhileNotEqual };

// rSI, rDI and rCX of address size A while elements of type T are processed. op->segment is the slot of the source's
// base, op->index that of ES.
template <class T, class A>
class Strings {
 public:
  Strings(Core& core, const Op* op) noexcept
      : core_(core),
        op_(op),
        down_((core.system_flags & kFlagDf) != 0),
        si_(core.reg<A>(kOffsetRsi)),
        di_(core.reg<A>(kOffsetRdi)) {}

  // Elements to do in this call.
  [[nodiscard]] std::uint64_t quota(A count) const noexcept {
    if (stepping()) return std::min<std::uint64_t>(count, 1);
    const auto budget = static_cast<std::uint64_t>(std::max<std::int64_t>(core_.budget, 0));
    const std::uint64_t room = std::exchange(core_.string_room, Core::kMuchRoom);
    return std::min({std::uint64_t{count}, room, budget * kElementsPerInstruction + kLeastElements});
  }
  [[nodiscard]] std::uint64_t source() const noexcept { return si_ + core_.gpr[op_->segment]; }
  [[nodiscard]] std::uint64_t destination() const noexcept { return di_ + core_.gpr[op_->index]; }

  // How many of `most` elements from here on lie whole in the page, and do not wrap round the address size.
  [[nodiscard]] std::uint64_t source_run(std::uint64_t most) const noexcept { return run(source(), si_, most); }
  [[nodiscard]] std::uint64_t destination_run(std::uint64_t most) const noexcept {
    return run(destination(), di_, most);
  }
  // The first of `n` elements in the page, or nullptr if the page is not at hand.
  [[nodiscard]] const std::byte* peek(std::uint64_t va, std::uint64_t n) const noexcept {
    return n == 0 ? nullptr : first(core_.peek(lowest(va, n), n * sizeof(T)), n);
  }
  [[nodiscard]] std::byte* poke(std::uint64_t va, std::uint64_t n) const noexcept {
    return n == 0 ? nullptr : first(core_.poke(lowest(va, n), n * sizeof(T)), n);
  }
  [[nodiscard]] std::ptrdiff_t step() const noexcept {
    return down_ ? -static_cast<std::ptrdiff_t>(sizeof(T)) : static_cast<std::ptrdiff_t>(sizeof(T));
  }
  [[nodiscard]] bool down() const noexcept { return down_; }

  void advance_source(std::uint64_t n) noexcept { si_ = moved(si_, n); }
  void advance_destination(std::uint64_t n) noexcept { di_ = moved(di_, n); }
  template <bool kSource, bool kDestination>
  void keep() const noexcept {
    if constexpr (kSource) core_.set_reg<A>(kOffsetRsi, si_);
    if constexpr (kDestination) core_.set_reg<A>(kOffsetRdi, di_);
  }
  // After `done` elements of a repeated instruction.
  void charge(std::uint64_t done) const noexcept {
    core_.set_reg<A>(kOffsetRcx, static_cast<A>(core_.reg<A>(kOffsetRcx) - done));
    core_.budget -= static_cast<std::int64_t>(done / kElementsPerInstruction);
  }
  // The instruction is complete, or is to be restarted for the rest.
  [[nodiscard]] const Op* next(bool complete) const noexcept {
    if (complete) return op_ + 1;
    // A single step is one element (APM vol. 2, 13.1.4): the element counts as retired, and #DB comes before the next.
    if (stepping()) return core_.leave_at(core_.rip_of(op_));
    core_.rip = core_.rip_of(op_);
    return core_.leave(Leave::kRestart);
  }

 private:
  [[nodiscard]] bool stepping() const noexcept {
    return (core_.system_flags & kFlagTf) != 0 || core_.watching || core_.bus != nullptr;
  }
  [[nodiscard]] std::uint64_t run(std::uint64_t va, A pointer, std::uint64_t most) const noexcept {
    const std::uint64_t offset = va & (kPageSize - 1);
    std::uint64_t n = 0;
    if (!down_) {
      n = (kPageSize - offset) / sizeof(T);
    } else if (offset + sizeof(T) <= kPageSize) {
      n = offset / sizeof(T) + 1;
    }
    if constexpr (sizeof(A) < 8) {
      const std::uint64_t room = down_ ? pointer : static_cast<A>(~A{0}) - std::uint64_t{pointer};
      n = std::min(n, room / sizeof(T) + 1);
    }
    return std::min(n, most);
  }
  [[nodiscard]] std::uint64_t lowest(std::uint64_t va, std::uint64_t n) const noexcept {
    return down_ ? va - (n - 1) * sizeof(T) : va;
  }
  template <class P>
  [[nodiscard]] P first(P low, std::uint64_t n) const noexcept {
    return low != nullptr && down_ ? low + (n - 1) * sizeof(T) : low;
  }
  [[nodiscard]] A moved(A pointer, std::uint64_t n) const noexcept {
    const std::uint64_t bytes = n * sizeof(T);
    return static_cast<A>(down_ ? pointer - bytes : pointer + bytes);
  }

  Core& core_;
  const Op* op_;
  bool down_;
  A si_;
  A di_;
};

// Element after element: where the destination begins inside the source, what was copied is copied again.
template <class T>
void copy_elements(std::byte* to, const std::byte* from, std::uint64_t n, bool down) noexcept {
  const std::uint64_t bytes = n * sizeof(T);
  if (!down) {
    const auto ahead = reinterpret_cast<std::uintptr_t>(to) - reinterpret_cast<std::uintptr_t>(from);
    if (ahead >= bytes) {
      std::memmove(to, from, bytes);
      return;
    }
    for (std::uint64_t i = 0; i < bytes; i += sizeof(T)) store<T>(to + i, load<T>(from + i));
    return;
  }
  for (std::uint64_t i = 0; i < n; ++i) {
    store<T>(to, load<T>(from));
    to -= sizeof(T);
    from -= sizeof(T);
  }
}

template <class T, class A, Repeat kRepeat>
const Op* move_string(Core& core, const Op* op) {
  Strings<T, A> s(core, op);
  const A count = kRepeat == Repeat::kNone ? A{1} : core.reg<A>(kOffsetRcx);
  const std::uint64_t quota = kRepeat == Repeat::kNone ? 1 : s.quota(count);
  std::uint64_t done = 0;
  bool good = true;
  while (done < quota) {
    std::uint64_t n = s.destination_run(s.source_run(quota - done));
    const std::byte* from = s.peek(s.source(), n);
    std::byte* to = from != nullptr ? s.poke(s.destination(), n) : nullptr;
    if (to != nullptr) {
      copy_elements<T>(to, from, n, s.down());
    } else {
      T value{};
      good = core.read<T>(s.source(), value) && core.write<T>(s.destination(), value);
      if (!good) break;
      n = 1;
    }
    s.advance_source(n);
    s.advance_destination(n);
    done += n;
  }
  if (done != 0) s.template keep<true, true>();
  if (kRepeat != Repeat::kNone && done != 0) s.charge(done);
  if (!good) return core.fault();
  return s.next(done == count);
}

template <class T>
void fill_elements(std::byte* to, T value, std::uint64_t n) noexcept {
  if constexpr (sizeof(T) == 1) {
    std::memset(to, value, n);
  } else {
    for (std::uint64_t i = 0; i < n; ++i) store<T>(to + i * sizeof(T), value);
  }
}

template <class T, class A, Repeat kRepeat>
const Op* store_string(Core& core, const Op* op) {
  Strings<T, A> s(core, op);
  const T value = core.reg<T>(kOffsetRax);
  const A count = kRepeat == Repeat::kNone ? A{1} : core.reg<A>(kOffsetRcx);
  const std::uint64_t quota = kRepeat == Repeat::kNone ? 1 : s.quota(count);
  std::uint64_t done = 0;
  bool good = true;
  while (done < quota) {
    std::uint64_t n = s.destination_run(quota - done);
    if (std::byte* to = s.poke(s.destination(), n)) {
      fill_elements<T>(s.down() ? to - (n - 1) * sizeof(T) : to, value, n);
    } else {
      good = core.write<T>(s.destination(), value);
      if (!good) break;
      n = 1;
    }
    s.advance_destination(n);
    done += n;
  }
  if (done != 0) s.template keep<false, true>();
  if (kRepeat != Repeat::kNone && done != 0) s.charge(done);
  if (!good) return core.fault();
  return s.next(done == count);
}

template <class T, class A, Repeat kRepeat>
const Op* load_string(Core& core, const Op* op) {
  Strings<T, A> s(core, op);
  const A count = kRepeat == Repeat::kNone ? A{1} : core.reg<A>(kOffsetRcx);
  const std::uint64_t quota = kRepeat == Repeat::kNone ? 1 : s.quota(count);
  std::uint64_t done = 0;
  bool good = true;
  for (; done < quota; ++done) {
    T value{};
    good = core.read<T>(s.source(), value);
    if (!good) break;
    core.set_reg<T>(kOffsetRax, value);
    s.advance_source(1);
  }
  if (done != 0) s.template keep<true, false>();
  if (kRepeat != Repeat::kNone && done != 0) s.charge(done);
  if (!good) return core.fault();
  return s.next(done == count);
}

[[nodiscard]] constexpr bool goes_on(Repeat repeat, bool equal) noexcept {
  return repeat == Repeat::kWhileEqual ? equal : !equal;
}

// CMPS if kSource, else SCAS.
template <class T, class A, Repeat kRepeat, bool kSource>
const Op* compare_string(Core& core, const Op* op) {
  Strings<T, A> s(core, op);
  const A count = kRepeat == Repeat::kNone ? A{1} : core.reg<A>(kOffsetRcx);
  const std::uint64_t quota = kRepeat == Repeat::kNone ? 1 : s.quota(count);
  std::uint64_t done = 0;
  bool good = true;
  bool found = false;
  T a = core.reg<T>(kOffsetRax);
  T b{};
  while (done < quota && !found) {
    std::uint64_t n = s.destination_run(kSource ? s.source_run(quota - done) : quota - done);
    const std::byte* right = s.peek(s.destination(), n);
    const std::byte* left = kSource && right != nullptr ? s.peek(s.source(), n) : nullptr;
    if (right != nullptr && (left != nullptr || !kSource)) {
      std::uint64_t i = 0;
      while (i < n && !found) {
        const std::ptrdiff_t at = static_cast<std::ptrdiff_t>(i) * s.step();
        if constexpr (kSource) a = load<T>(left + at);
        b = load<T>(right + at);
        found = !goes_on(kRepeat, a == b);
        ++i;
      }
      n = i;
    } else {
      good = core.read<T>(s.destination(), b);
      if constexpr (kSource) good = good && core.read<T>(s.source(), a);
      if (!good) break;
      found = !goes_on(kRepeat, a == b);
      n = 1;
    }
    if constexpr (kSource) s.advance_source(n);
    s.advance_destination(n);
    done += n;
  }
  if (done != 0) {
    s.template keep<kSource, true>();
    if constexpr (kRepeat != Repeat::kNone) s.charge(done);
    // After a fault the flags are still those from before, as on processors.
    if (good) core.flags.set_sub<T>(a, b, static_cast<T>(a - b));
  }
  if (!good) return core.fault();
  return s.next(kRepeat == Repeat::kNone || found || done == count);
}

// The last of F2 and F3 counts.
Repeat repeat_of(const Insn& insn, bool compares) {
  constexpr std::uint8_t kRepne = 0xf2;
  constexpr std::uint8_t kRep = 0xf3;
  Repeat repeat = Repeat::kNone;
  for (unsigned n = 0; n < insn.info.raw.prefix_count; ++n) {
    const std::uint8_t prefix = insn.info.raw.prefixes[n].value;
    if (prefix == kRep) repeat = compares ? Repeat::kWhileEqual : Repeat::kRep;
    if (prefix == kRepne) repeat = compares ? Repeat::kWhileNotEqual : Repeat::kRep;
  }
  return repeat;
}

// Both memory operands are implicit: rSI with its segment, and rDI with ES. False: not a string instruction but the
// SSE one of the same name (MOVSD, CMPSD).
bool place_strings(const Insn& insn, Op& op) {
  bool any = false;
  op.segment = kRegZero;
  for (unsigned n = 0; n < insn.info.operand_count; ++n) {
    if (insn.is_reg(n)) {
      const ZydisRegisterClass c = ZydisRegisterGetClass(insn.op(n).reg.value);
      if (c == ZYDIS_REGCLASS_XMM) return false;
    }
    if (!insn.is_mem(n)) continue;
    any = true;
    const ZydisRegister base = insn.op(n).mem.base;
    const bool source = base == ZYDIS_REGISTER_SI || base == ZYDIS_REGISTER_ESI || base == ZYDIS_REGISTER_RSI;
    if (source) set_memory(insn, insn.op(n), op);
  }
  op.index = insn.code64() ? kRegZero : static_cast<std::uint8_t>(kRegSegmentBase + kEs);
  return any;
}

template <class F>
bool with_string(const Insn& insn, Op& op, F f) {
  if (!place_strings(insn, op)) return false;
  return with_size_from_16(insn.info.address_width, f);
}

template <class T>
bool select_movs(Insn& insn, Op& op) {
  return with_string(insn, op, [&]<class A>() {
    op.fn =
        repeat_of(insn, false) == Repeat::kNone ? move_string<T, A, Repeat::kNone> : move_string<T, A, Repeat::kRep>;
    return true;
  });
}
template <class T>
bool select_stos(Insn& insn, Op& op) {
  return with_string(insn, op, [&]<class A>() {
    op.fn =
        repeat_of(insn, false) == Repeat::kNone ? store_string<T, A, Repeat::kNone> : store_string<T, A, Repeat::kRep>;
    return true;
  });
}
template <class T>
bool select_lods(Insn& insn, Op& op) {
  return with_string(insn, op, [&]<class A>() {
    op.fn =
        repeat_of(insn, false) == Repeat::kNone ? load_string<T, A, Repeat::kNone> : load_string<T, A, Repeat::kRep>;
    return true;
  });
}
template <class T, bool kSource>
bool select_compare(Insn& insn, Op& op) {
  return with_string(insn, op, [&]<class A>() {
    switch (repeat_of(insn, true)) {
      case Repeat::kWhileEqual:
        op.fn = compare_string<T, A, Repeat::kWhileEqual, kSource>;
        break;
      case Repeat::kWhileNotEqual:
        op.fn = compare_string<T, A, Repeat::kWhileNotEqual, kSource>;
        break;
      default:
        op.fn = compare_string<T, A, Repeat::kNone, kSource>;
        break;
    }
    return true;
  });
}

}  // namespace

void add_strings(SelectorTable& table) {
  table[ZYDIS_MNEMONIC_MOVSB] = select_movs<std::uint8_t>;
  table[ZYDIS_MNEMONIC_MOVSW] = select_movs<std::uint16_t>;
  table[ZYDIS_MNEMONIC_MOVSD] = select_movs<std::uint32_t>;
  table[ZYDIS_MNEMONIC_MOVSQ] = select_movs<std::uint64_t>;
  table[ZYDIS_MNEMONIC_STOSB] = select_stos<std::uint8_t>;
  table[ZYDIS_MNEMONIC_STOSW] = select_stos<std::uint16_t>;
  table[ZYDIS_MNEMONIC_STOSD] = select_stos<std::uint32_t>;
  table[ZYDIS_MNEMONIC_STOSQ] = select_stos<std::uint64_t>;
  table[ZYDIS_MNEMONIC_LODSB] = select_lods<std::uint8_t>;
  table[ZYDIS_MNEMONIC_LODSW] = select_lods<std::uint16_t>;
  table[ZYDIS_MNEMONIC_LODSD] = select_lods<std::uint32_t>;
  table[ZYDIS_MNEMONIC_LODSQ] = select_lods<std::uint64_t>;
  table[ZYDIS_MNEMONIC_SCASB] = select_compare<std::uint8_t, false>;
  table[ZYDIS_MNEMONIC_SCASW] = select_compare<std::uint16_t, false>;
  table[ZYDIS_MNEMONIC_SCASD] = select_compare<std::uint32_t, false>;
  table[ZYDIS_MNEMONIC_SCASQ] = select_compare<std::uint64_t, false>;
  table[ZYDIS_MNEMONIC_CMPSB] = select_compare<std::uint8_t, true>;
  table[ZYDIS_MNEMONIC_CMPSW] = select_compare<std::uint16_t, true>;
  table[ZYDIS_MNEMONIC_CMPSD] = select_compare<std::uint32_t, true>;
  table[ZYDIS_MNEMONIC_CMPSQ] = select_compare<std::uint64_t, true>;
}

}  // namespace sevisor::emulator
