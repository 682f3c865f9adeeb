// The pair of 8259A interrupt controllers of a PC, with the edge/level registers of the PIIX (Intel 8259A datasheet;
// 82371 datasheet, ELCR).
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

namespace sevisor::emulator {

inline constexpr std::size_t kPicStateSize = 16;  // struct kvm_pic_state

class PicPair {
 public:
  // Ports 0x20, 0x21, 0xA0, 0xA1, 0x4D0 and 0x4D1.
  [[nodiscard]] static bool owns_port(std::uint16_t port) noexcept;
  [[nodiscard]] std::uint8_t read_port(std::uint16_t port) noexcept;
  void write_port(std::uint16_t port, std::uint8_t value) noexcept;

  // `irq` 0..15; IRQ 2 is the slave's and cannot be driven. Returns true when the request is new: an edge that was not
  // yet latched, or a level that was low.
  bool set_level(unsigned irq, bool level) noexcept;
  [[nodiscard]] bool masked(unsigned irq) const noexcept;

  // INTR, the master's output.
  [[nodiscard]] bool output() const noexcept;
  // INTA: the vector; the master's spurious vector (base + 7) when nothing is requested any more.
  std::uint8_t acknowledge() noexcept;
  // IRQs that have ended since the last call: by an EOI, at once with automatic EOI, or by a reset. One bit each.
  [[nodiscard]] std::uint16_t take_ended() noexcept;

  // struct kvm_pic_state; `chip` 0 master, 1 slave.
  void get_state(unsigned chip, std::span<std::byte, kPicStateSize> state) const noexcept;
  void set_state(unsigned chip, std::span<const std::byte, kPicStateSize> state) noexcept;

 private:
  // What the next write to the odd port means.
  enum class Init : std::uint8_t { kDone = 0, kWord2 = 1, kWord3 = 2, kWord4 = 3 };

  struct Chip {
    std::uint8_t last_level = 0;
    std::uint8_t request = 0;       // IRR
    std::uint8_t mask = 0;          // IMR
    std::uint8_t in_service = 0;    // ISR
    std::uint8_t top_priority = 0;  // the level that has the highest priority now
    std::uint8_t vector_base = 0;
    bool read_in_service = false;
    bool poll = false;
    bool special_mask = false;
    Init init = Init::kDone;
    bool auto_eoi = false;
    bool rotate_on_auto_eoi = false;
    bool special_fully_nested = false;
    bool four_words = false;
    std::uint8_t edge_level = 0;  // ELCR
    std::uint8_t edge_level_writable = 0;
    std::uint8_t just_ended = 0;  // for take_ended()

    bool set_level(unsigned line, bool level) noexcept;
    // 0 highest .. 7 lowest; 8 when `levels` is empty.
    [[nodiscard]] unsigned priority_of(std::uint8_t levels) const noexcept;
    [[nodiscard]] std::optional<unsigned> requested(bool cascade_master) const noexcept;
    void acknowledge(unsigned line) noexcept;
    void start_init(std::uint8_t word1) noexcept;
    void write_command(std::uint8_t value) noexcept;
    void write_ocw2(std::uint8_t value) noexcept;
    void write_data(std::uint8_t value) noexcept;
  };

  [[nodiscard]] std::optional<unsigned> requested(unsigned chip) const noexcept;
  std::uint8_t poll(unsigned chip) noexcept;
  void update_cascade() noexcept;

  std::array<Chip, 2> chips_ = {Chip{.edge_level_writable = 0xf8}, Chip{.edge_level_writable = 0xde}};
};

}  // namespace sevisor::emulator
