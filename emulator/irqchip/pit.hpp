// The 8254 interval timer of a PC and the port 0x61 bits around it (Intel 8254 datasheet). It counts at 1193182 Hz, by
// exact integer arithmetic from the TSC clock of 1 GHz.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

namespace sevisor::emulator {

inline constexpr std::uint64_t kPitFrequency = 1193182;  // Hz
inline constexpr std::size_t kPitStateSize = 112;        // struct kvm_pit_state2

// Times are nanoseconds, absolute.
class Pit {
 public:
  // `port_61`: also answer for port 0x61 (KVM_PIT_SPEAKER_DUMMY).
  explicit Pit(bool port_61, std::uint64_t now) noexcept;

  // Ports 0x40..0x43, and 0x61 if asked for.
  [[nodiscard]] bool owns_port(std::uint16_t port) const noexcept;
  [[nodiscard]] std::uint8_t read_port(std::uint16_t port, std::uint64_t now) noexcept;
  void write_port(std::uint16_t port, std::uint8_t value, std::uint64_t now) noexcept;

  // OUT of a channel, 0..2.
  [[nodiscard]] bool output(unsigned channel, std::uint64_t now) const noexcept;

  // True when OUT of channel 0 has risen at or before `now`, any number of times since the last call.
  [[nodiscard]] bool advance(std::uint64_t now) noexcept;
  // When advance() will next return true, ~0 when never.
  [[nodiscard]] std::uint64_t next_deadline() const noexcept { return deadline_; }

  // struct kvm_pit_state2. As in KVM, set_state() loads all counts anew at `now`.
  void get_state(std::span<std::byte, kPitStateSize> state, std::uint64_t now) const noexcept;
  void set_state(std::span<const std::byte, kPitStateSize> state, std::uint64_t now) noexcept;

 private:
  static constexpr std::uint8_t kUnprogrammed = 0xff;  // mode before the first control word, as KVM stores it

  // Values of RW in the control word.
  enum class Access : std::uint8_t { kLatch = 0, kLow = 1, kHigh = 2, kBoth = 3 };

  // In PIT clocks, absolute.
  struct Channel {
    std::uint32_t count = 0x10000;  // 1..65536 clocks
    std::uint8_t mode = kUnprogrammed;
    bool bcd = false;
    Access access = Access::kLatch;
    bool read_high_next = false;
    bool write_high_next = false;
    std::uint8_t written_low = 0;
    std::optional<std::uint16_t> latched_count;
    std::optional<std::uint8_t> latched_status;
    bool gate = true;
    bool null_count = true;                   // no count since the last control word: does not count
    bool triggered = false;                   // modes 1 and 5: the gate has risen since
    std::uint64_t loaded_at = 0;              // clock at which the counter takes over, or took over, its count
    std::optional<std::uint64_t> stopped_at;  // modes 0, 2, 3, 4, gate low: the clocks that had been counted

    // The gate starts the count, and its level does not stop it.
    [[nodiscard]] bool needs_trigger() const noexcept { return mode == 1 || mode == 5; }
    [[nodiscard]] std::uint64_t elapsed(std::uint64_t clock) const noexcept;
    [[nodiscard]] std::uint16_t counter(std::uint64_t clock) const noexcept;
    [[nodiscard]] bool output(std::uint64_t clock) const noexcept;
    // The first clock after `clock` at which OUT rises; none when it does not again by itself.
    [[nodiscard]] std::optional<std::uint64_t> next_rise(std::uint64_t clock) const noexcept;
    void load(std::uint32_t value, std::uint64_t clock) noexcept;
    void set_gate(bool high, std::uint64_t clock) noexcept;
    [[nodiscard]] std::uint8_t status(std::uint64_t clock) const noexcept;
    void latch_count(std::uint64_t clock) noexcept;
    void control(std::uint8_t word, std::uint64_t clock) noexcept;
    void write(std::uint8_t value, std::uint64_t clock) noexcept;
    std::uint8_t read(std::uint64_t clock) noexcept;
  };

  void write_control(std::uint8_t word, std::uint64_t clock) noexcept;
  void schedule(std::uint64_t now) noexcept;

  std::array<Channel, 3> channels_;
  bool port_61_;
  bool speaker_data_ = false;
  std::uint64_t deadline_;
};

}  // namespace sevisor::emulator
