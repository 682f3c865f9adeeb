// The six status flags, kept as the last result and its carries and worked out only when an instruction asks.
#pragma once

#include <bit>
#include <cstdint>
#include <type_traits>

namespace sevisor::emulator {

// RFLAGS bits (APM vol. 1, 3.1.4; vol. 2, 3.1.6).
inline constexpr std::uint64_t kFlagCf = 1U << 0;
inline constexpr std::uint64_t kFlagOne = 1U << 1;  // always reads 1
inline constexpr std::uint64_t kFlagPf = 1U << 2;
inline constexpr std::uint64_t kFlagAf = 1U << 4;
inline constexpr std::uint64_t kFlagZf = 1U << 6;
inline constexpr std::uint64_t kFlagSf = 1U << 7;
inline constexpr std::uint64_t kFlagTf = 1U << 8;
inline constexpr std::uint64_t kFlagIf = 1U << 9;
inline constexpr std::uint64_t kFlagDf = 1U << 10;
inline constexpr std::uint64_t kFlagOf = 1U << 11;
inline constexpr std::uint64_t kFlagIopl = 3U << 12;
inline constexpr std::uint64_t kFlagNt = 1U << 14;
inline constexpr std::uint64_t kFlagRf = 1U << 16;
inline constexpr std::uint64_t kFlagVm = 1U << 17;
inline constexpr std::uint64_t kFlagAc = 1U << 18;
inline constexpr std::uint64_t kFlagVif = 1U << 19;
inline constexpr std::uint64_t kFlagVip = 1U << 20;
inline constexpr std::uint64_t kFlagId = 1U << 21;
inline constexpr std::uint64_t kStatusFlags = kFlagCf | kFlagPf | kFlagAf | kFlagZf | kFlagSf | kFlagOf;

class StatusFlags {
 public:
  [[nodiscard]] bool cf() const noexcept { return (carries_ >> 63) != 0; }
  [[nodiscard]] bool of() const noexcept { return (((carries_ >> 63) ^ (carries_ >> 62)) & 1) != 0; }
  [[nodiscard]] bool af() const noexcept { return (carries_ & kAf) != 0; }
  [[nodiscard]] bool zf() const noexcept { return result_ == 0; }
  [[nodiscard]] bool sf() const noexcept { return (((result_ >> 63) ^ carries_) & kSignFlip) != 0; }
  [[nodiscard]] bool pf() const noexcept {
    return (std::popcount(static_cast<std::uint8_t>(result_ ^ (carries_ >> kParityShift))) & 1) == 0;
  }

  // The flags of `result` = a + b (+ carry in), for operands of T's width.
  template <class T>
  void set_add(T a, T b, T result) noexcept {
    set<T>(result, static_cast<T>((a & b) | ((a | b) & static_cast<T>(~result))));
  }
  // The flags of `result` = a - b (- borrow in).
  template <class T>
  void set_sub(T a, T b, T result) noexcept {
    set<T>(result, static_cast<T>((static_cast<T>(~a) & b) | (static_cast<T>(~(a ^ b)) & result)));
  }
  // AND, OR, XOR, TEST: CF, OF and AF are cleared.
  template <class T>
  void set_logic(T result) noexcept {
    result_ = extend(result);
    carries_ = 0;
  }
  // Result flags (ZF, SF, PF) of `result`, the others as given: shifts, rotates, multiplications.
  template <class T>
  void set_result(T result, bool cf, bool of, bool af) noexcept {
    result_ = extend(result);
    carries_ = pack(cf, of, af);
  }
  // INC and DEC: everything but CF from the addition or subtraction of 1.
  template <class T>
  void set_inc(T before, T result) noexcept {
    const bool carry = cf();
    set_add<T>(before, 1, result);
    set_cf(carry);
  }
  template <class T>
  void set_dec(T before, T result) noexcept {
    const bool carry = cf();
    set_sub<T>(before, 1, result);
    set_cf(carry);
  }

  // Without branches, and not as `value != cf()`: g++ 12 drops cf() from that where `value` is a tested bit.
  void set_cf(bool value) noexcept {
    const std::uint64_t change = (carries_ >> 63) ^ std::uint64_t{value};
    // OF is kept as a difference from CF: both bits turn.
    carries_ ^= change << 63 | change << 62;
  }
  void set_of(bool value) noexcept {
    const std::uint64_t change = ((carries_ >> 63) ^ (carries_ >> 62) ^ std::uint64_t{value}) & 1;
    carries_ ^= change << 62;
  }
  // ROR: CF is the top bit of the result, and its XOR with OF the bit below. ROL: CF is the lowest bit, the XOR the top
  // one. The other flags stay.
  template <class T>
  void set_rotated_right(T result) noexcept {
    constexpr unsigned kToTop = 64 - 8 * sizeof(T);
    carries_ = (carries_ & ~(kCf | kCfXorOf)) | ((static_cast<std::uint64_t>(result) << kToTop) & (kCf | kCfXorOf));
  }
  template <class T>
  void set_rotated_left(T result) noexcept {
    const std::uint64_t wide = result;
    carries_ = (carries_ & ~(kCf | kCfXorOf)) | wide << 63 | (wide >> (8 * sizeof(T) - 1)) << 62;
  }
  void set_zf(bool value) noexcept { set_rflags(value ? rflags() | kFlagZf : rflags() & ~kFlagZf); }

  // The status bits of RFLAGS; other bits are 0 and ignored.
  [[nodiscard]] std::uint64_t rflags() const noexcept {
    return (cf() ? kFlagCf : 0) | (pf() ? kFlagPf : 0) | (af() ? kFlagAf : 0) | (zf() ? kFlagZf : 0) |
           (sf() ? kFlagSf : 0) | (of() ? kFlagOf : 0);
  }
  void set_rflags(std::uint64_t value) noexcept {
    const bool zero = (value & kFlagZf) != 0;
    result_ = zero ? 0 : 1;  // SF as such: 0; PF as such: 1 for 0, 0 for 1
    const bool want_pf = (value & kFlagPf) != 0;
    carries_ = pack((value & kFlagCf) != 0, (value & kFlagOf) != 0, (value & kFlagAf) != 0) |
               ((value & kFlagSf) != 0 ? kSignFlip : 0) | (want_pf != zero ? std::uint64_t{1} << kParityShift : 0);
  }

 private:
  // carries_: 63 CF, 62 CF xor OF (the carry into the sign bit), 15:8 xor-ed to the low result byte before its parity
  // is taken, 3 AF, 0 turns SF round. The last two allow every combination of flags, as POPF and SAHF need.
  static constexpr std::uint64_t kCf = std::uint64_t{1} << 63;
  static constexpr std::uint64_t kCfXorOf = std::uint64_t{1} << 62;
  static constexpr unsigned kParityShift = 8;
  static constexpr std::uint64_t kAf = 1U << 3;
  static constexpr std::uint64_t kSignFlip = 1;

  template <class T>
  static std::uint64_t extend(T result) noexcept {
    return static_cast<std::uint64_t>(static_cast<std::int64_t>(static_cast<std::make_signed_t<T>>(result)));
  }
  static std::uint64_t pack(bool cf, bool of, bool af) noexcept {
    return (cf ? kCf : 0) | (cf != of ? kCfXorOf : 0) | (af ? kAf : 0);
  }
  // `carry_out`: bit n is the carry out of bit n.
  template <class T>
  void set(T result, T carry_out) noexcept {
    constexpr unsigned kToTop = 64 - 8 * sizeof(T);
    result_ = extend(result);
    carries_ = ((static_cast<std::uint64_t>(carry_out) << kToTop) & (kCf | kCfXorOf)) | (carry_out & kAf);
  }

  std::uint64_t result_ = 1;
  std::uint64_t carries_ = 0;
};

}  // namespace sevisor::emulator
