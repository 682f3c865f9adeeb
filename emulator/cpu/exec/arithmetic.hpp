// Two-operand arithmetic: what the operations do, and their handlers, which exec/fused.cpp must know too.
#pragma once

#include "emulator/cpu/exec/forms.hpp"

namespace sevisor::emulator {

struct Add {
  static constexpr bool kWrites = true;
  template <class T>
  static T run(StatusFlags& flags, T a, T b) noexcept {
    const T result = static_cast<T>(a + b);
    flags.set_add<T>(a, b, result);
    return result;
  }
};
struct Adc {
  static constexpr bool kWrites = true;
  template <class T>
  static T run(StatusFlags& flags, T a, T b) noexcept {
    const T result = static_cast<T>(a + b + T{flags.cf()});
    flags.set_add<T>(a, b, result);
    return result;
  }
};
struct Sub {
  static constexpr bool kWrites = true;
  template <class T>
  static T run(StatusFlags& flags, T a, T b) noexcept {
    const T result = static_cast<T>(a - b);
    flags.set_sub<T>(a, b, result);
    return result;
  }
};
struct Sbb {
  static constexpr bool kWrites = true;
  template <class T>
  static T run(StatusFlags& flags, T a, T b) noexcept {
    const T result = static_cast<T>(a - b - T{flags.cf()});
    flags.set_sub<T>(a, b, result);
    return result;
  }
};
struct Compare : Sub {
  static constexpr bool kWrites = false;
};
struct And {
  static constexpr bool kWrites = true;
  template <class T>
  static T run(StatusFlags& flags, T a, T b) noexcept {
    const T result = static_cast<T>(a & b);
    flags.set_logic<T>(result);
    return result;
  }
};
struct Test : And {
  static constexpr bool kWrites = false;
};
struct Or {
  static constexpr bool kWrites = true;
  template <class T>
  static T run(StatusFlags& flags, T a, T b) noexcept {
    const T result = static_cast<T>(a | b);
    flags.set_logic<T>(result);
    return result;
  }
};
struct Xor {
  static constexpr bool kWrites = true;
  template <class T>
  static T run(StatusFlags& flags, T a, T b) noexcept {
    const T result = static_cast<T>(a ^ b);
    flags.set_logic<T>(result);
    return result;
  }
};

template <class Operation, class T, At kDst, At kSrc>
const Op* binary(Core& core, const Op* op) {
  T b{};
  if (!read_source<T, kSrc>(core, op, b)) return core.fault();
  const auto run = [&core, b](T a) { return Operation::template run<T>(core.flags, a, b); };
  if constexpr (Operation::kWrites) {
    if (!modify_operand<T, kDst>(core, op, run)) return core.fault();
  } else if constexpr (kDst == At::kReg) {
    run(core.reg<T>(op->dst));
  } else {
    T a{};
    if (!core.read<T>(address_of<kDst>(core, op), a)) return core.fault();
    run(a);
  }
  return next(core, op);
}

// TEST, AND and OR of a register with itself change flags only, and with 32 bits the upper half.
template <class T>
const Op* test_self(Core& core, const Op* op) {
  core.flags.set_logic<T>(core.reg<T>(op->dst));
  return next(core, op);
}

}  // namespace sevisor::emulator
