#include "devices/rtc_cmos.hpp"

#include <algorithm>
#include <chrono>

namespace sevisor::devices {

namespace {
// The clock's registers (MC146818A datasheet, figure 14); the century is where PCs keep it (FADT.CENTURY names it).
enum Index : std::uint8_t {
  kSeconds = 0x00,
  kSecondsAlarm = 0x01,
  kMinutes = 0x02,
  kMinutesAlarm = 0x03,
  kHours = 0x04,
  kHoursAlarm = 0x05,
  kWeekday = 0x06,
  kDay = 0x07,
  kMonth = 0x08,
  kYear = 0x09,
  kA = 0x0a,
  kB = 0x0b,
  kC = 0x0c,
  kD = 0x0d,
  kCentury = 0x32,
};

constexpr std::uint8_t kIndexMask = 0x7f;  // bit 7 of port 0x70 masks NMIs, of which there are none

constexpr std::uint8_t kUpdateInProgress = 0x80;  // A
constexpr std::uint8_t kDividerMask = 0x70;
constexpr std::uint8_t kDividerRunning = 0x20;  // 32.768 kHz
constexpr std::uint8_t kRateMask = 0x0f;
constexpr std::uint8_t kRate1024Hz = 0x06;

constexpr std::uint8_t kSet = 0x80;  // B
constexpr std::uint8_t kUpdateEnable = 0x10;
constexpr std::uint8_t kBinary = 0x04;
constexpr std::uint8_t k24Hours = 0x02;

// C; an interrupt's flag sits where its enable bit sits in B.
constexpr std::uint8_t kIrqFlag = 0x80;
constexpr std::uint8_t kPeriodic = 0x40;
constexpr std::uint8_t kAlarm = 0x20;
constexpr std::uint8_t kUpdated = 0x10;
constexpr std::uint8_t kInterrupts = kPeriodic | kAlarm | kUpdated;

constexpr std::uint8_t kValidRam = 0x80;  // D

constexpr std::uint8_t kPm = 0x80;        // in an hour of the 12-hour mode
constexpr std::uint8_t kDontCare = 0xc0;  // in an alarm register

constexpr std::int64_t kSecondNs = 1'000'000'000;
// UIP rises 244 us before an update; the update itself is taken to need no time.
constexpr std::int64_t kUpdateWarningNs = 244'000;
// The first update comes half a second after the divider chain is let go.
constexpr std::int64_t kAfterDividerResetNs = kSecondNs / 2;
constexpr std::int64_t kSecondsPerDay = 86400;
constexpr std::int64_t kOscillatorHz = 32768;

// Where a PC's firmware looks for the size of memory (QEMU hw/i386/pc.c, pc_cmos_init).
constexpr std::uint8_t kBaseMemory = 0x15;       // KiB, 16 bits
constexpr std::uint8_t kExtendedMemory = 0x17;   // KiB above 1 MiB, 16 bits
constexpr std::uint8_t kExtendedMemory2 = 0x30;  // the same
constexpr std::uint8_t kMemoryAbove16M = 0x34;   // 64 KiB units, 16 bits
constexpr std::uint8_t kMemoryAbove4G = 0x5b;    // 64 KiB units, 24 bits
constexpr std::uint64_t kKiB = 1024;
constexpr std::uint64_t kMiB = 1024 * kKiB;

bool is_time(std::uint8_t index) noexcept {
  return index == kSeconds || index == kMinutes || index == kHours || (index >= kWeekday && index <= kYear) ||
         index == kCentury;
}

// min((bytes - above) / unit, the largest value of `size` bytes), little-endian at `to`.
void put_memory_size(std::uint8_t* to, unsigned size, std::uint64_t bytes, std::uint64_t above, std::uint64_t unit) {
  const std::uint64_t largest = (std::uint64_t{1} << (8 * size)) - 1;
  const std::uint64_t value = bytes > above ? std::min((bytes - above) / unit, largest) : 0;
  for (unsigned i = 0; i < size; ++i) to[i] = static_cast<std::uint8_t>(value >> (8 * i));
}

bool alarm_matches(std::uint8_t alarm, std::uint8_t value) noexcept {
  return (alarm & kDontCare) == kDontCare || alarm == value;
}

std::int64_t day_of(std::int64_t seconds) noexcept {
  return std::chrono::floor<std::chrono::days>(std::chrono::seconds(seconds)).count();
}
}  // namespace

RtcCmos::RtcCmos(Clock& clock, const Config& config, IrqLine irq)
    : clock_(clock), irq_(std::move(irq)), base_seconds_(config.unix_time) {
  cmos_[kA] = kDividerRunning | kRate1024Hz;
  cmos_[kB] = k24Hours;
  cmos_[kD] = kValidRam;
  put_memory_size(&cmos_[kBaseMemory], 2, std::min(config.low_memory, 640 * kKiB), 0, kKiB);
  put_memory_size(&cmos_[kExtendedMemory], 2, config.low_memory, kMiB, kKiB);
  put_memory_size(&cmos_[kExtendedMemory2], 2, config.low_memory, kMiB, kKiB);
  put_memory_size(&cmos_[kMemoryAbove16M], 2, config.low_memory, 16 * kMiB, 64 * kKiB);
  put_memory_size(&cmos_[kMemoryAbove4G], 3, config.high_memory, 0, 64 * kKiB);
}

void RtcCmos::read(std::uint64_t offset, std::span<std::byte> to) {
  const std::lock_guard lock(mutex_);
  for (std::byte& byte : to) {
    byte = offset == 1 ? std::byte{read_register(index_)} : std::byte{0xff};  // the index is write-only
    ++offset;
  }
}

void RtcCmos::write(std::uint64_t offset, std::span<const std::byte> from) {
  const std::lock_guard lock(mutex_);
  for (const std::byte byte : from) {
    const auto value = std::to_integer<std::uint8_t>(byte);
    if (offset == 0) {
      index_ = value & kIndexMask;
    } else {
      write_register(index_, value);
    }
    ++offset;
  }
}

std::uint8_t RtcCmos::read_register(std::uint8_t index) {
  if (is_time(index)) {
    if (!stopped()) registers_from_time(seconds_at(now()));
    return cmos_[index];
  }
  switch (index) {
    case kA: {
      const std::int64_t into_second = (now() - base_ns_) % kSecondNs;
      const bool updating = !stopped() && into_second >= kSecondNs - kUpdateWarningNs;
      return cmos_[kA] | (updating ? kUpdateInProgress : 0);
    }
    case kC: {
      catch_up();
      const std::uint8_t value = cmos_[kC];
      cmos_[kC] = 0;
      update_irq();
      return value;
    }
    default:
      return cmos_[index];
  }
}

void RtcCmos::write_register(std::uint8_t index, std::uint8_t value) {
  catch_up();
  if (is_time(index)) {
    write_time(index, value);
  } else if (index == kA) {
    write_register_a(value);
  } else if (index == kB) {
    write_register_b(value);
  } else if (index != kC && index != kD) {
    cmos_[index] = value;
  }
  update_irq();
}

void RtcCmos::write_time(std::uint8_t index, std::uint8_t value) {
  if (stopped()) {
    cmos_[index] = value;
    return;
  }
  const std::int64_t at = now();
  registers_from_time(seconds_at(at));
  cmos_[index] = value;
  time_from_registers((at - base_ns_) % kSecondNs);
}

void RtcCmos::write_register_a(std::uint8_t value) {
  const bool was_stopped = stopped();
  const bool was_held = (cmos_[kA] & kDividerMask) != kDividerRunning;
  const std::int64_t at = now();
  if (!was_stopped) registers_from_time(seconds_at(at));
  cmos_[kA] = value & static_cast<std::uint8_t>(~kUpdateInProgress);
  const bool is_held = (cmos_[kA] & kDividerMask) != kDividerRunning;
  if (was_held && !is_held) {
    periodic_base_ns_ = at;
    base_ns_ = at - kAfterDividerResetNs;  // the phase, should SET hold the registers still
    if (!stopped()) time_from_registers(kAfterDividerResetNs);
  }
}

void RtcCmos::write_register_b(std::uint8_t value) {
  const bool was_stopped = stopped();
  const std::int64_t at = now();
  if ((value & kSet) != 0) value &= static_cast<std::uint8_t>(~kUpdateEnable);
  if (!was_stopped && (value & kSet) != 0) registers_from_time(seconds_at(at));
  const std::int64_t into_second = (at - base_ns_) % kSecondNs;  // SET does not disturb the divider chain
  cmos_[kB] = value;
  if (was_stopped && !stopped()) time_from_registers(into_second);
}

// Whether the time registers hold still.
bool RtcCmos::stopped() const noexcept {
  return (cmos_[kB] & kSet) != 0 || (cmos_[kA] & kDividerMask) != kDividerRunning;
}

// `ns` on the clock is not before base_ns_.
std::int64_t RtcCmos::seconds_at(std::int64_t ns) const noexcept { return base_seconds_ + (ns - base_ns_) / kSecondNs; }

// 0: no periodic interrupt.
std::int64_t RtcCmos::periodic_hz() const noexcept {
  const unsigned rate = cmos_[kA] & kRateMask;
  if (rate == 0 || (cmos_[kA] & kDividerMask) != kDividerRunning) return 0;
  const unsigned shift = rate <= 2 ? rate + 6 : rate - 1;  // datasheet, table 5: rates 1 and 2 are those of 8 and 9
  return kOscillatorHz >> shift;
}

std::int64_t RtcCmos::periods_at(std::int64_t ns) const noexcept {
  const std::int64_t hz = periodic_hz();
  const std::int64_t passed = std::max<std::int64_t>(ns - periodic_base_ns_, 0);
  return passed / kSecondNs * hz + passed % kSecondNs * hz / kSecondNs;
}

std::int64_t RtcCmos::next_period_ns(std::int64_t after) const noexcept {
  const std::int64_t hz = periodic_hz();
  const std::int64_t period = periods_at(after) + 1;
  return periodic_base_ns_ + period / hz * kSecondNs + (period % hz * kSecondNs + hz - 1) / hz;
}

// The first second later than `after` at which the alarm goes off; within a day, or never.
std::optional<std::int64_t> RtcCmos::next_alarm_second(std::int64_t after) const {
  const std::int64_t first = after + 1;
  const std::int64_t midnight = day_of(first) * kSecondsPerDay;
  const auto start = static_cast<unsigned>(first - midnight);
  for (const unsigned from : {start, 0U}) {
    for (unsigned hour = from / 3600; hour < 24; ++hour) {
      if (!alarm_matches(cmos_[kHoursAlarm], encode_hour(hour))) continue;
      for (unsigned minute = hour == from / 3600 ? from / 60 % 60 : 0; minute < 60; ++minute) {
        if (!alarm_matches(cmos_[kMinutesAlarm], encode(minute))) continue;
        for (unsigned second = hour * 60 + minute == from / 60 ? from % 60 : 0; second < 60; ++second) {
          if (!alarm_matches(cmos_[kSecondsAlarm], encode(second))) continue;
          const std::int64_t day = from == start ? midnight : midnight + kSecondsPerDay;
          return day + hour * 3600 + minute * 60 + second;
        }
      }
    }
    if (start == 0) return std::nullopt;
  }
  return std::nullopt;
}

void RtcCmos::registers_from_time(std::int64_t seconds) {
  const std::int64_t day_number = day_of(seconds);
  const std::chrono::sys_days days{std::chrono::days(day_number)};
  const std::chrono::year_month_day date(days);
  const auto second_of_day = static_cast<unsigned>(seconds - day_number * kSecondsPerDay);
  const auto year = static_cast<unsigned>(static_cast<int>(date.year()));
  cmos_[kSeconds] = encode(second_of_day % 60);
  cmos_[kMinutes] = encode(second_of_day / 60 % 60);
  cmos_[kHours] = encode_hour(second_of_day / 3600);
  cmos_[kWeekday] = encode((std::chrono::weekday(days).c_encoding() + weekday_shift_) % 7 + 1);
  cmos_[kDay] = encode(static_cast<unsigned>(date.day()));
  cmos_[kMonth] = encode(static_cast<unsigned>(date.month()));
  cmos_[kYear] = encode(year % 100);
  cmos_[kCentury] = encode(year / 100 % 100);
}

// Whatever the guest wrote becomes some time: fields out of range are brought into it.
void RtcCmos::time_from_registers(std::int64_t into_second_ns) {
  const unsigned year = decode(cmos_[kCentury]) % 100 * 100 + decode(cmos_[kYear]) % 100;
  const unsigned month = std::clamp(decode(cmos_[kMonth]), 1U, 12U);
  const unsigned day = std::clamp(decode(cmos_[kDay]), 1U, 31U);
  const std::chrono::sys_days days{std::chrono::year(static_cast<int>(year)) / std::chrono::month(month) /
                                   std::chrono::day(day)};
  const std::int64_t time = decode_hour(cmos_[kHours]) % 24 * std::int64_t{3600} +
                            decode(cmos_[kMinutes]) % 60 * std::int64_t{60} + decode(cmos_[kSeconds]) % 60;
  weekday_shift_ = (decode(cmos_[kWeekday]) + 6 + 7 - std::chrono::weekday(days).c_encoding()) % 7;
  base_seconds_ = days.time_since_epoch().count() * kSecondsPerDay + time;
  const std::int64_t at = now();
  base_ns_ = at - into_second_ns;
  seen_ns_ = at;
}

std::optional<std::uint64_t> RtcCmos::next_event_ns() {
  const std::lock_guard lock(mutex_);
  catch_up();
  if ((cmos_[kC] & kIrqFlag) != 0) return std::nullopt;
  std::optional<std::int64_t> next;
  const auto consider = [&](std::int64_t ns) { next = next ? std::min(*next, ns) : ns; };
  if ((cmos_[kB] & kPeriodic) != 0 && periodic_hz() != 0) consider(next_period_ns(seen_ns_));
  if (!stopped()) {
    const std::int64_t second = seconds_at(seen_ns_);
    const auto start_of = [&](std::int64_t s) { return base_ns_ + (s - base_seconds_) * kSecondNs; };
    if ((cmos_[kB] & kUpdated) != 0) consider(start_of(second + 1));
    if ((cmos_[kB] & kAlarm) != 0) {
      if (const auto alarm = next_alarm_second(second)) consider(start_of(*alarm));
    }
  }
  if (!next) return std::nullopt;
  return static_cast<std::uint64_t>(*next);
}

void RtcCmos::poll() {
  const std::lock_guard lock(mutex_);
  catch_up();
}

// Sets the flags of what has happened since the last call.
void RtcCmos::catch_up() {
  const std::int64_t at = now();
  if (at <= seen_ns_) return;
  if (periodic_hz() != 0 && periods_at(at) != periods_at(seen_ns_)) cmos_[kC] |= kPeriodic;
  if (!stopped()) {
    const std::int64_t before = seconds_at(seen_ns_);
    const std::int64_t after = seconds_at(at);
    if (after != before) {
      cmos_[kC] |= kUpdated;
      const auto alarm = next_alarm_second(before);
      if (alarm && *alarm <= after) cmos_[kC] |= kAlarm;
    }
  }
  seen_ns_ = at;
  update_irq();
}

void RtcCmos::update_irq() {
  const bool level = (cmos_[kC] & cmos_[kB] & kInterrupts) != 0;
  cmos_[kC] = static_cast<std::uint8_t>((cmos_[kC] & kInterrupts) | (level ? kIrqFlag : 0));
  if (level == irq_level_) return;
  irq_level_ = level;
  if (irq_) irq_(level);
}

std::uint8_t RtcCmos::encode(unsigned value) const noexcept {
  return static_cast<std::uint8_t>((cmos_[kB] & kBinary) != 0 ? value : value / 10 * 16 + value % 10);
}

unsigned RtcCmos::decode(std::uint8_t value) const noexcept {
  return (cmos_[kB] & kBinary) != 0 ? value : (value >> 4U) * 10U + (value & 0xfU);
}

std::uint8_t RtcCmos::encode_hour(unsigned hour) const noexcept {
  if ((cmos_[kB] & k24Hours) != 0) return encode(hour);
  const std::uint8_t on_the_dial = encode(hour % 12 == 0 ? 12 : hour % 12);
  return hour >= 12 ? on_the_dial | kPm : on_the_dial;
}

unsigned RtcCmos::decode_hour(std::uint8_t value) const noexcept {
  if ((cmos_[kB] & k24Hours) != 0) return decode(value);
  const unsigned on_the_dial = decode(value & static_cast<std::uint8_t>(~kPm)) % 12;
  return (value & kPm) != 0 ? on_the_dial + 12 : on_the_dial;
}

}  // namespace sevisor::devices
