#include "emulator/irqchip/pit.hpp"

#include <algorithm>

#include "base/bytes.hpp"

namespace sevisor::emulator {
namespace {

constexpr std::uint64_t kNever = ~std::uint64_t{0};
constexpr std::uint64_t kNanoseconds = 1'000'000'000;  // in a second

constexpr std::uint16_t kFirstPort = 0x40;
constexpr std::uint16_t kControlPort = 0x43;
constexpr std::uint16_t kPort61 = 0x61;

constexpr std::uint8_t kReadBack = 0xc0;      // control word: SC = 3
constexpr std::uint8_t kKeepCount = 1 << 5;   // read-back: do not latch the count
constexpr std::uint8_t kKeepStatus = 1 << 4;  // read-back: do not latch the status

constexpr std::uint8_t kStatusOutput = 1 << 7;
constexpr std::uint8_t kStatusNullCount = 1 << 6;

constexpr std::uint8_t kPort61Gate = 1 << 0;
constexpr std::uint8_t kPort61Speaker = 1 << 1;
constexpr std::uint8_t kPort61Refresh = 1 << 4;
constexpr std::uint8_t kPort61Output = 1 << 5;
constexpr std::uint64_t kRefreshClocks = 18;  // the PC's channel 1 period: about 15 us

constexpr std::uint32_t kBinaryRange = 0x10000;
constexpr std::uint32_t kBcdRange = 10000;

// Whole PIT clocks until `now`.
constexpr std::uint64_t clocks_at(std::uint64_t now) noexcept {
  return now / kNanoseconds * kPitFrequency + now % kNanoseconds * kPitFrequency / kNanoseconds;
}
static_assert(clocks_at(kNanoseconds) == kPitFrequency && clocks_at(838) == 0 && clocks_at(839) == 1);

// The first nanosecond at which clocks_at() is `clock`.
constexpr std::uint64_t time_of(std::uint64_t clock) noexcept {
  const std::uint64_t seconds = clock / kPitFrequency;
  if (seconds >= kNever / kNanoseconds) return kNever;
  return seconds * kNanoseconds + (clock % kPitFrequency * kNanoseconds + kPitFrequency - 1) / kPitFrequency;
}
static_assert(time_of(1) == 839 && time_of(kPitFrequency) == kNanoseconds);

constexpr std::uint32_t from_bcd(std::uint32_t value) noexcept {
  std::uint32_t result = 0;
  for (unsigned shift = 16; shift > 0; shift -= 4) result = result * 10 + (value >> (shift - 4) & 0xf);
  return result;
}

constexpr std::uint32_t to_bcd(std::uint32_t value) noexcept {
  std::uint32_t result = 0;
  for (unsigned shift = 0; shift < 16; shift += 4, value /= 10) result |= value % 10 << shift;
  return result;
}
static_assert(from_bcd(0x9999) == 9999 && to_bcd(1234) == 0x1234);

// struct kvm_pit_channel_state, and the flags after three of them.
constexpr std::size_t kChannelStateSize = 24;
constexpr std::size_t kStateFlags = 72;
constexpr std::uint32_t kStateSpeakerDataOn = 1 << 1;
// Its read_state, write_state and count_latched.
constexpr std::uint8_t kByteHigh = 2;
constexpr std::uint8_t kByteLowOfTwo = 3;
constexpr std::uint8_t kByteHighOfTwo = 4;

}  // namespace

std::uint64_t Pit::Channel::elapsed(std::uint64_t clock) const noexcept {
  if (stopped_at) return *stopped_at;
  return clock > loaded_at ? clock - loaded_at : 0;
}

std::uint16_t Pit::Channel::counter(std::uint64_t clock) const noexcept {
  const std::uint32_t range = bcd ? kBcdRange : kBinaryRange;
  const std::uint64_t passed = null_count || (needs_trigger() && !triggered) ? 0 : elapsed(clock);
  const auto phase = static_cast<std::uint32_t>(passed % count);
  std::uint32_t value = 0;
  if (mode == 2) {
    value = count - phase;
  } else if (mode == 3) {
    // Down by two, twice a period; an odd count loses its lowest bit and stays at 0 for one clock of the first half.
    const std::uint32_t first_half = count / 2 + count % 2;
    value = (count & ~1U) - 2 * (phase < first_half ? phase : phase - first_half);
  } else {
    // Goes on from the top of its range after the terminal count.
    value = static_cast<std::uint32_t>((count + range - passed % range) % range);
  }
  value %= range;
  return static_cast<std::uint16_t>(bcd ? to_bcd(value) : value);
}

bool Pit::Channel::output(std::uint64_t clock) const noexcept {
  if (null_count) return mode != 0;
  if (needs_trigger() && !triggered) return true;
  if ((mode == 2 || mode == 3) && !gate) return true;
  const std::uint64_t passed = elapsed(clock);
  switch (mode) {
    case 2:
      return passed % count != count - 1;
    case 3:
      return passed % count < (count + 1) / 2;
    case 4:
    case 5:
      return passed != count;
    default:
      return passed >= count;
  }
}

std::optional<std::uint64_t> Pit::Channel::next_rise(std::uint64_t clock) const noexcept {
  if (null_count || stopped_at || (needs_trigger() && !triggered)) return std::nullopt;
  std::uint64_t rise = loaded_at + count;
  if (mode == 2 || mode == 3) {
    if (count == 1) return std::nullopt;  // not a legal count: OUT does not move
    if (rise <= clock) rise += ((clock - rise) / count + 1) * count;
    return rise;
  }
  if (mode == 4 || mode == 5) ++rise;  // OUT is low for the clock of the terminal count
  if (rise <= clock) return std::nullopt;
  return rise;
}

void Pit::Channel::load(std::uint32_t value, std::uint64_t clock) noexcept {
  if (bcd) value = from_bcd(value);
  const std::uint32_t range = bcd ? kBcdRange : kBinaryRange;
  count = value == 0 ? range : std::min(value, range);
  null_count = false;
  triggered = false;
  loaded_at = clock + 1;  // the counter takes it over on the next clock
  stopped_at.reset();
  if (!gate && !needs_trigger()) stopped_at = 0;
}

void Pit::Channel::set_gate(bool high, std::uint64_t clock) noexcept {
  if (high == gate) return;
  gate = high;
  if (null_count) return;
  if (needs_trigger()) {
    if (high) {
      triggered = true;
      loaded_at = clock + 1;
    }
    return;
  }
  if (!high) {
    stopped_at = elapsed(clock);
  } else if (mode == 2 || mode == 3) {
    stopped_at.reset();
    loaded_at = clock + 1;
  } else {
    loaded_at = clock - std::min(stopped_at.value_or(0), clock);
    stopped_at.reset();
  }
}

std::uint8_t Pit::Channel::status(std::uint64_t clock) const noexcept {
  std::uint8_t value = bcd ? 1 : 0;
  if (mode != kUnprogrammed) value |= static_cast<std::uint8_t>(mode << 1);
  value |= static_cast<std::uint8_t>(static_cast<unsigned>(access) << 4);
  if (null_count || clock < loaded_at) value |= kStatusNullCount;
  if (output(clock)) value |= kStatusOutput;
  return value;
}

void Pit::Channel::latch_count(std::uint64_t clock) noexcept {
  if (!latched_count) latched_count = counter(clock);
}

void Pit::Channel::control(std::uint8_t word, std::uint64_t clock) noexcept {
  const auto new_access = static_cast<Access>(word >> 4 & 3);
  if (new_access == Access::kLatch) {
    latch_count(clock);
    return;
  }
  access = new_access;
  mode = word >> 1 & 7;
  if (mode > 5) mode = static_cast<std::uint8_t>(mode - 4);
  bcd = (word & 1) != 0;
  read_high_next = false;
  write_high_next = false;
  latched_count.reset();
  latched_status.reset();
  null_count = true;
  triggered = false;
  stopped_at.reset();
}

void Pit::Channel::write(std::uint8_t value, std::uint64_t clock) noexcept {
  switch (access) {
    case Access::kLatch:  // not programmed yet: as a low byte, like KVM's
    case Access::kLow:
      load(value, clock);
      break;
    case Access::kHigh:
      load(static_cast<std::uint32_t>(value) << 8, clock);
      break;
    case Access::kBoth:
      if (write_high_next) {
        load(static_cast<std::uint32_t>(value) << 8 | written_low, clock);
      } else {
        written_low = value;
      }
      write_high_next = !write_high_next;
      break;
  }
}

std::uint8_t Pit::Channel::read(std::uint64_t clock) noexcept {
  if (latched_status) {
    const std::uint8_t value = *latched_status;
    latched_status.reset();
    return value;
  }
  const std::uint16_t value = latched_count ? *latched_count : counter(clock);
  const bool high = access == Access::kHigh || (access == Access::kBoth && read_high_next);
  if (access == Access::kBoth) read_high_next = !read_high_next;
  if (access != Access::kBoth || high) latched_count.reset();
  return static_cast<std::uint8_t>(high ? value >> 8 : value);
}

Pit::Pit(bool port_61, std::uint64_t now) noexcept : port_61_(port_61), deadline_(kNever) {
  channels_[2].gate = false;
  schedule(now);
}

bool Pit::owns_port(std::uint16_t port) const noexcept {
  return (port >= kFirstPort && port <= kControlPort) || (port_61_ && port == kPort61);
}

std::uint8_t Pit::read_port(std::uint16_t port, std::uint64_t now) noexcept {
  const std::uint64_t clock = clocks_at(now);
  if (port == kPort61) {
    std::uint8_t value = 0;
    if (channels_[2].gate) value |= kPort61Gate;
    if (speaker_data_) value |= kPort61Speaker;
    if ((clock / kRefreshClocks & 1) != 0) value |= kPort61Refresh;
    if (channels_[2].output(clock)) value |= kPort61Output;
    return value;
  }
  if (port >= kControlPort || port < kFirstPort) return 0;
  return channels_[port - kFirstPort].read(clock);
}

void Pit::write_port(std::uint16_t port, std::uint8_t value, std::uint64_t now) noexcept {
  const std::uint64_t clock = clocks_at(now);
  if (port == kPort61) {
    speaker_data_ = (value & kPort61Speaker) != 0;
    channels_[2].set_gate((value & kPort61Gate) != 0, clock);
  } else if (port == kControlPort) {
    write_control(value, clock);
  } else if (port >= kFirstPort && port < kControlPort) {
    channels_[port - kFirstPort].write(value, clock);
  }
  schedule(now);
}

void Pit::write_control(std::uint8_t word, std::uint64_t clock) noexcept {
  if ((word & kReadBack) != kReadBack) {
    channels_[word >> 6].control(word, clock);
    return;
  }
  for (unsigned index = 0; index < channels_.size(); ++index) {
    Channel& channel = channels_[index];
    if ((word >> (index + 1) & 1) == 0) continue;
    if ((word & kKeepCount) == 0) channel.latch_count(clock);
    if ((word & kKeepStatus) == 0 && !channel.latched_status) channel.latched_status = channel.status(clock);
  }
}

bool Pit::output(unsigned channel, std::uint64_t now) const noexcept {
  return channels_[channel].output(clocks_at(now));
}

bool Pit::advance(std::uint64_t now) noexcept {
  if (deadline_ > now) return false;
  schedule(now);
  return true;
}

void Pit::schedule(std::uint64_t now) noexcept {
  const auto rise = channels_[0].next_rise(clocks_at(now));
  deadline_ = rise ? time_of(*rise) : kNever;
}

void Pit::get_state(std::span<std::byte, kPitStateSize> state, std::uint64_t now) const noexcept {
  std::fill(state.begin(), state.end(), std::byte{0});
  for (unsigned index = 0; index < channels_.size(); ++index) {
    const Channel& channel = channels_[index];
    std::byte* out = state.data() + index * kChannelStateSize;
    const auto access = static_cast<std::uint8_t>(channel.access);
    const bool both = channel.access == Access::kBoth;
    const auto position = [both, access](bool high_next) {
      if (!both) return access;
      return high_next ? kByteHighOfTwo : kByteLowOfTwo;
    };
    std::uint8_t latched = 0;
    if (channel.latched_count) latched = both && channel.read_high_next ? kByteHigh : position(false);
    store(out, channel.count);
    store(out + 4, channel.latched_count.value_or(0));
    store(out + 6, latched);
    store(out + 7, static_cast<std::uint8_t>(channel.latched_status.has_value()));
    store(out + 8, channel.latched_status.value_or(0));
    store(out + 9, position(channel.read_high_next));
    store(out + 10, position(channel.write_high_next));
    store(out + 11, channel.written_low);
    store(out + 12, access);
    store(out + 13, channel.mode);
    store(out + 14, static_cast<std::uint8_t>(channel.bcd));
    store(out + 15, static_cast<std::uint8_t>(channel.gate));
    store(out + 16, std::min(time_of(channel.loaded_at), now));
  }
  if (speaker_data_) store(state.data() + kStateFlags, kStateSpeakerDataOn);
}

void Pit::set_state(std::span<const std::byte, kPitStateSize> state, std::uint64_t now) noexcept {
  const std::uint64_t clock = clocks_at(now);
  for (unsigned index = 0; index < channels_.size(); ++index) {
    const std::byte* in = state.data() + index * kChannelStateSize;
    const auto byte = [in](unsigned offset) { return std::to_integer<std::uint8_t>(in[offset]); };
    Channel channel;
    channel.access = static_cast<Access>(byte(12) & 3);
    channel.mode = byte(13) == kUnprogrammed ? kUnprogrammed : std::min<std::uint8_t>(byte(13), 5);
    channel.bcd = byte(14) != 0;
    channel.gate = index != 2 || byte(15) != 0;  // the gates of channels 0 and 1 are tied high
    const std::uint32_t range = channel.bcd ? kBcdRange : kBinaryRange;
    const auto count = load<std::uint32_t>(in);
    const bool both = channel.access == Access::kBoth;
    if (byte(6) != 0) channel.latched_count = load<std::uint16_t>(in + 4);
    if (byte(7) != 0) channel.latched_status = byte(8);
    channel.read_high_next = both && (channel.latched_count ? byte(6) == kByteHigh : byte(9) == kByteHighOfTwo);
    channel.write_high_next = both && byte(10) == kByteHighOfTwo;
    channel.written_low = byte(11);
    if (channel.mode != kUnprogrammed) {
      channel.load(count >= range ? 0 : channel.bcd ? to_bcd(count) : count, clock);
    }
    channels_[index] = channel;
  }
  speaker_data_ = (load<std::uint32_t>(state.data() + kStateFlags) & kStateSpeakerDataOn) != 0;
  schedule(now);
}

}  // namespace sevisor::emulator
