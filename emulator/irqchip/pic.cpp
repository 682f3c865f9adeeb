#include "emulator/irqchip/pic.hpp"

#include <algorithm>
#include <utility>

namespace sevisor::emulator {
namespace {

constexpr unsigned kMaster = 0;
constexpr unsigned kSlave = 1;
constexpr unsigned kCascadeLine = 2;
constexpr std::uint8_t kCascadeBit = 1 << kCascadeLine;
constexpr unsigned kSpuriousLine = 7;

constexpr std::uint16_t kMasterCommand = 0x20;
constexpr std::uint16_t kMasterData = 0x21;
constexpr std::uint16_t kSlaveCommand = 0xa0;
constexpr std::uint16_t kSlaveData = 0xa1;
constexpr std::uint16_t kMasterElcr = 0x4d0;
constexpr std::uint16_t kSlaveElcr = 0x4d1;

// Command words on the even port are told apart by these bits.
constexpr std::uint8_t kIcw1 = 0x10;
constexpr std::uint8_t kOcw3 = 0x08;
constexpr std::uint8_t kIcw1NeedsIcw4 = 0x01;
constexpr std::uint8_t kIcw4AutoEoi = 0x02;
constexpr std::uint8_t kIcw4SpecialFullyNested = 0x10;
constexpr std::uint8_t kOcw3Poll = 0x04;
constexpr std::uint8_t kOcw3ReadCommand = 0x02;
constexpr std::uint8_t kOcw3SpecialMaskCommand = 0x40;
constexpr std::uint8_t kOcw3SpecialMask = 0x20;

constexpr std::uint8_t bit(unsigned line) noexcept { return static_cast<std::uint8_t>(1U << (line & 7)); }

constexpr void assign_bit(std::uint8_t& word, std::uint8_t mask, bool on) noexcept {
  word = static_cast<std::uint8_t>(on ? word | mask : word & ~mask);
}

constexpr unsigned chip_of(std::uint16_t port) noexcept {
  return port == kSlaveCommand || port == kSlaveData || port == kSlaveElcr ? kSlave : kMaster;
}

}  // namespace

bool PicPair::Chip::set_level(unsigned line, bool level) noexcept {
  const std::uint8_t line_bit = bit(line);
  const bool was_requested = (request & line_bit) != 0;
  const bool was_high = (last_level & line_bit) != 0;
  assign_bit(last_level, line_bit, level);
  if ((edge_level & line_bit) != 0) {
    assign_bit(request, line_bit, level);
  } else if (level && !was_high) {
    request |= line_bit;
  }
  return level && !was_requested && (request & line_bit) != 0;
}

unsigned PicPair::Chip::priority_of(std::uint8_t levels) const noexcept {
  unsigned priority = 0;
  while (priority < 8 && (levels & bit(priority + top_priority)) == 0) ++priority;
  return priority;
}

std::optional<unsigned> PicPair::Chip::requested(bool cascade_master) const noexcept {
  const unsigned priority = priority_of(static_cast<std::uint8_t>(request & ~mask));
  if (priority == 8) return std::nullopt;
  std::uint8_t blocking = in_service;
  if (special_fully_nested && cascade_master) assign_bit(blocking, kCascadeBit, false);
  if (special_mask) assign_bit(blocking, mask, false);
  if (priority >= priority_of(blocking)) return std::nullopt;
  return (priority + top_priority) & 7;
}

void PicPair::Chip::acknowledge(unsigned line) noexcept {
  if (!auto_eoi) {
    in_service |= bit(line);
  } else {
    just_ended |= bit(line);
    if (rotate_on_auto_eoi) top_priority = static_cast<std::uint8_t>((line + 1) & 7);
  }
  if ((edge_level & bit(line)) == 0) assign_bit(request, bit(line), false);
}

void PicPair::Chip::start_init(std::uint8_t word1) noexcept {
  four_words = (word1 & kIcw1NeedsIcw4) != 0;
  last_level = 0;
  just_ended |= request & static_cast<std::uint8_t>(~edge_level);
  request &= edge_level;
  mask = 0;
  in_service = 0;
  top_priority = 0;
  special_mask = false;
  read_in_service = false;
  poll = false;
  rotate_on_auto_eoi = false;
  if (!four_words) {
    special_fully_nested = false;
    auto_eoi = false;
  }
  init = Init::kWord2;
}

void PicPair::Chip::write_command(std::uint8_t value) noexcept {
  if ((value & kIcw1) != 0) {
    start_init(value);
  } else if ((value & kOcw3) != 0) {
    if ((value & kOcw3Poll) != 0) poll = true;
    if ((value & kOcw3ReadCommand) != 0) read_in_service = (value & 1) != 0;
    if ((value & kOcw3SpecialMaskCommand) != 0) special_mask = (value & kOcw3SpecialMask) != 0;
  } else {
    write_ocw2(value);
  }
}

void PicPair::Chip::write_ocw2(std::uint8_t value) noexcept {
  // Bits 7:5 are R (rotate), SL (specific level) and EOI; 2:0 the level.
  const bool rotate = (value & 0x80) != 0;
  const bool specific = (value & 0x40) != 0;
  const bool eoi = (value & 0x20) != 0;
  unsigned line = value & 7;
  if (!eoi) {
    if (!specific) {
      rotate_on_auto_eoi = rotate;
    } else if (rotate) {
      top_priority = static_cast<std::uint8_t>((line + 1) & 7);
    }
    return;
  }
  if (!specific) {
    std::uint8_t ended = in_service;
    if (special_mask) assign_bit(ended, mask, false);  // in this mode a masked level needs a specific EOI
    const unsigned priority = priority_of(ended);
    if (priority == 8) return;
    line = (priority + top_priority) & 7;
  }
  assign_bit(in_service, bit(line), false);
  just_ended |= bit(line);
  if (rotate) top_priority = static_cast<std::uint8_t>((line + 1) & 7);
}

void PicPair::Chip::write_data(std::uint8_t value) noexcept {
  switch (init) {
    case Init::kDone:
      mask = value;
      break;
    case Init::kWord2:
      vector_base = value & 0xf8;
      init = Init::kWord3;
      break;
    case Init::kWord3:  // the cascade is wired
      init = four_words ? Init::kWord4 : Init::kDone;
      break;
    case Init::kWord4:
      special_fully_nested = (value & kIcw4SpecialFullyNested) != 0;
      auto_eoi = (value & kIcw4AutoEoi) != 0;
      init = Init::kDone;
      break;
  }
}

bool PicPair::owns_port(std::uint16_t port) noexcept {
  switch (port) {
    case kMasterCommand:
    case kMasterData:
    case kSlaveCommand:
    case kSlaveData:
    case kMasterElcr:
    case kSlaveElcr:
      return true;
    default:
      return false;
  }
}

std::uint8_t PicPair::read_port(std::uint16_t port) noexcept {
  const unsigned index = chip_of(port);
  Chip& chip = chips_[index];
  if (port == kMasterElcr || port == kSlaveElcr) return chip.edge_level;
  if (chip.poll) return poll(index);
  if (port == kMasterData || port == kSlaveData) return chip.mask;
  return chip.read_in_service ? chip.in_service : chip.request;
}

void PicPair::write_port(std::uint16_t port, std::uint8_t value) noexcept {
  Chip& chip = chips_[chip_of(port)];
  if (port == kMasterElcr || port == kSlaveElcr) {
    chip.edge_level = value & chip.edge_level_writable;
  } else if (port == kMasterData || port == kSlaveData) {
    chip.write_data(value);
  } else {
    chip.write_command(value);
  }
  update_cascade();
}

// The read after a poll command acts as INTA: bit 7 tells of a request, 2:0 its level.
std::uint8_t PicPair::poll(unsigned index) noexcept {
  chips_[index].poll = false;
  const auto line = requested(index);
  if (!line) return 0;
  chips_[index].acknowledge(*line);
  update_cascade();
  return static_cast<std::uint8_t>(0x80 | *line);
}

bool PicPair::set_level(unsigned irq, bool level) noexcept {
  if (irq == kCascadeLine || irq > 15) return false;
  const bool is_new = chips_[irq / 8].set_level(irq % 8, level);
  update_cascade();
  return is_new;
}

bool PicPair::masked(unsigned irq) const noexcept { return (chips_[irq / 8 & 1].mask & bit(irq)) != 0; }

std::optional<unsigned> PicPair::requested(unsigned index) const noexcept {
  return chips_[index].requested(index == kMaster);
}

void PicPair::update_cascade() noexcept {
  assign_bit(chips_[kMaster].request, kCascadeBit, requested(kSlave).has_value());
}

bool PicPair::output() const noexcept { return requested(kMaster).has_value(); }

std::uint8_t PicPair::acknowledge() noexcept {
  Chip* chip = &chips_[kMaster];
  auto line = requested(kMaster);
  if (line) chip->acknowledge(*line);
  if (line == kCascadeLine) {
    chip = &chips_[kSlave];
    line = requested(kSlave);
    if (line) chip->acknowledge(*line);
  }
  update_cascade();
  return static_cast<std::uint8_t>(chip->vector_base + line.value_or(kSpuriousLine));
}

std::uint16_t PicPair::take_ended() noexcept {
  const unsigned slave = std::exchange(chips_[kSlave].just_ended, std::uint8_t{0});
  return static_cast<std::uint16_t>(slave << 8 | std::exchange(chips_[kMaster].just_ended, std::uint8_t{0}));
}

void PicPair::get_state(unsigned index, std::span<std::byte, kPicStateSize> state) const noexcept {
  const Chip& chip = chips_[index & 1];
  const auto flag = [](bool value) { return static_cast<std::uint8_t>(value); };
  const std::array<std::uint8_t, kPicStateSize> fields = {chip.last_level,
                                                          chip.request,
                                                          chip.mask,
                                                          chip.in_service,
                                                          chip.top_priority,
                                                          chip.vector_base,
                                                          flag(chip.read_in_service),
                                                          flag(chip.poll),
                                                          flag(chip.special_mask),
                                                          static_cast<std::uint8_t>(chip.init),
                                                          flag(chip.auto_eoi),
                                                          flag(chip.rotate_on_auto_eoi),
                                                          flag(chip.special_fully_nested),
                                                          flag(chip.four_words),
                                                          chip.edge_level,
                                                          chip.edge_level_writable};
  std::transform(fields.begin(), fields.end(), state.begin(), [](std::uint8_t v) { return std::byte{v}; });
}

void PicPair::set_state(unsigned index, std::span<const std::byte, kPicStateSize> state) noexcept {
  Chip& chip = chips_[index & 1];
  const auto field = [state](unsigned i) { return std::to_integer<std::uint8_t>(state[i]); };
  chip.last_level = field(0);
  chip.request = field(1);
  chip.mask = field(2);
  chip.in_service = field(3);
  chip.top_priority = field(4) & 7;
  chip.vector_base = field(5) & 0xf8;
  chip.read_in_service = field(6) != 0;
  chip.poll = field(7) != 0;
  chip.special_mask = field(8) != 0;
  chip.init = static_cast<Init>(field(9) & 3);
  chip.auto_eoi = field(10) != 0;
  chip.rotate_on_auto_eoi = field(11) != 0;
  chip.special_fully_nested = field(12) != 0;
  chip.four_words = field(13) != 0;
  chip.edge_level = field(14) & chip.edge_level_writable;
  update_cascade();
}

}  // namespace sevisor::emulator
