// CMP and TEST followed by Jcc, as one handler: the branch is decided from the operands instead of from the flags,
// which are set all the same. The Jcc keeps its own operation, whose target and links are used.
#include "emulator/cpu/exec/fused.hpp"

#include <unordered_map>

#include "emulator/cpu/exec/arithmetic.hpp"
#include "emulator/cpu/exec/branch.hpp"

namespace sevisor::emulator {

namespace {

constexpr unsigned kCodes = 16;
using Fused = std::array<Handler, kCodes>;  // by condition code; nullptr: not worth it

// Condition codes but for the lowest bit, which negates.
enum Condition : std::uint8_t { kOverflow, kBelow, kZero, kBelowOrZero, kSign, kParity, kLess, kLessOrZero };
constexpr bool decided(unsigned code) { return code >> 1 != kOverflow && code >> 1 != kParity; }

template <class T>
[[nodiscard]] bool negative(T value) noexcept {
  return static_cast<std::make_signed_t<T>>(value) < 0;
}

template <unsigned kCode, class T>
[[nodiscard]] bool holds(Compare /*operation*/, T a, T b) noexcept {
  using S = std::make_signed_t<T>;
  bool value = false;
  switch (kCode >> 1) {
    case kBelow:
      value = a < b;
      break;
    case kZero:
      value = a == b;
      break;
    case kBelowOrZero:
      value = a <= b;
      break;
    case kSign:
      value = negative(static_cast<T>(a - b));
      break;
    case kLess:
      value = static_cast<S>(a) < static_cast<S>(b);
      break;
    case kLessOrZero:
      value = static_cast<S>(a) <= static_cast<S>(b);
      break;
    default:
      break;
  }
  return value != ((kCode & 1) != 0);
}
// CF and OF are 0.
template <unsigned kCode, class T>
[[nodiscard]] bool holds(Test /*operation*/, T a, T b) noexcept {
  const T result = static_cast<T>(a & b);
  bool value = false;
  switch (kCode >> 1) {
    case kZero:
    case kBelowOrZero:
      value = result == 0;
      break;
    case kSign:
    case kLess:
      value = negative(result);
      break;
    case kLessOrZero:
      value = negative(result) || result == 0;
      break;
    default:
      break;
  }
  return value != ((kCode & 1) != 0);
}

template <class Operation, class T, At kDst, At kSrc, unsigned kCode>
const Op* compare_and_jump(Core& core, const Op* op) {
  T b{};
  if (!read_source<T, kSrc>(core, op, b)) return core.fault();
  T a{};
  if constexpr (kDst == At::kReg) {
    a = core.reg<T>(op->dst);
  } else {
    if (!core.read<T>(address_of<kDst>(core, op), a)) return core.fault();
  }
  Operation::template run<T>(core.flags, a, b);
  const Op* branch = op + 1;
  core.current = branch;
  if (holds<kCode>(Operation{}, a, b)) return core.jump_linked(branch, target_of(core, branch));
  return fall_through<true>(core, branch);
}
template <class T, unsigned kCode>
const Op* test_self_and_jump(Core& core, const Op* op) {
  const T a = core.reg<T>(op->dst);
  core.flags.set_logic<T>(a);
  const Op* branch = op + 1;
  core.current = branch;
  if (holds<kCode>(Test{}, a, a)) return core.jump_linked(branch, target_of(core, branch));
  return fall_through<true>(core, branch);
}

template <class F>
void for_each_code(F f) {
  for (unsigned code = 0; code < kCodes; ++code) {
    with_condition(code, [&]<unsigned kCode>() {
      if constexpr (decided(kCode)) f.template operator()<kCode>();
      return true;
    });
  }
}

class Registry {
 public:
  Registry() {
    for (const unsigned bits : {8U, 32U, 64U}) {
      with_size(bits, [this]<class T>() {
        enter_all<Compare, T>();
        enter_all<Test, T>();
        enter<Compare, T, At::kReg, At::kMem>();
        enter<Compare, T, At::kReg, At::kPlain>();
        for_each_code([this]<unsigned kCode>() { fused_[test_self<T>][kCode] = test_self_and_jump<T, kCode>; });
        return true;
      });
    }
  }
  [[nodiscard]] Handler find(Handler compare, unsigned code) const {
    const auto found = fused_.find(compare);
    return found == fused_.end() ? nullptr : found->second[code];
  }

 private:
  template <class Operation, class T>
  void enter_all() {
    enter<Operation, T, At::kReg, At::kReg>();
    enter<Operation, T, At::kReg, At::kImm>();
    enter<Operation, T, At::kMem, At::kReg>();
    enter<Operation, T, At::kMem, At::kImm>();
    enter<Operation, T, At::kPlain, At::kReg>();
    enter<Operation, T, At::kPlain, At::kImm>();
  }
  template <class Operation, class T, At kDst, At kSrc>
  void enter() {
    Fused& to = fused_[binary<Operation, T, kDst, kSrc>];
    for_each_code([&to]<unsigned kCode>() { to[kCode] = compare_and_jump<Operation, T, kDst, kSrc, kCode>; });
  }
  std::unordered_map<Handler, Fused> fused_;
};

// Short and near Jcc have the condition in the low digit of the opcode.
bool is_jump_if(const ZydisDecodedInstruction& info) {
  constexpr std::uint8_t kShort = 0x70;
  constexpr std::uint8_t kNear = 0x80;
  const bool near = info.opcode_map == ZYDIS_OPCODE_MAP_0F;
  return info.meta.category == ZYDIS_CATEGORY_COND_BR && (info.opcode & 0xf0) == (near ? kNear : kShort);
}

}  // namespace

void fuse_compare_branch(const Insn& branch, Op& compare) {
  static const Registry registry;
  if (!branch.code64() || !is_jump_if(branch.info)) return;
  const Handler fused = registry.find(compare.fn, branch.info.opcode & 0xf);
  if (fused != nullptr) compare.fn = fused;
}

}  // namespace sevisor::emulator
