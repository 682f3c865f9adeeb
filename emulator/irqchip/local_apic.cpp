#include "emulator/irqchip/local_apic.hpp"

#include <bit>
#include <utility>

#include "emulator/irqchip/apic_registers.hpp"

namespace sevisor::emulator {
namespace {

constexpr std::uint32_t kXapicBroadcast = 0xff;
constexpr std::uint32_t kX2apicBroadcast = 0xffffffff;
constexpr std::uint32_t kDfrReset = 0xffffffff;

// SDM, "Logical x2APIC ID": cluster in the high half, one bit of 16 in the low half.
constexpr std::uint32_t logical_x2apic_id(std::uint32_t id) noexcept {
  return (id >> 4 << 16) | (std::uint32_t{1} << (id & 0xf));
}

constexpr unsigned priority_class(unsigned vector) noexcept { return vector >> 4; }

}  // namespace

std::optional<std::uint8_t> LocalApic::VectorSet::highest() const noexcept {
  for (unsigned index = 8; index-- > 0;) {
    if (words_[index] != 0) {
      return static_cast<std::uint8_t>(index * 32 + 31 - static_cast<unsigned>(std::countl_zero(words_[index])));
    }
  }
  return std::nullopt;
}

LocalApic::LocalApic(std::uint32_t id, bool bootstrap) noexcept
    : initial_id_(id),
      apic_base_(kApicBaseDefault | kApicBaseEnable | (bootstrap ? kApicBaseBootstrap : 0)),
      id_(id << 24) {
  reset_registers();
}

void LocalApic::reset_registers() noexcept {
  tpr_ = 0;
  ldr_ = 0;
  dfr_ = kDfrReset;
  svr_ = apic::kSvrReset;
  esr_ = 0;
  esr_logged_ = 0;
  icr_ = 0;
  lvt_.fill(apic::kMasked);
  if ((apic_base_ & kApicBaseBootstrap) != 0) {
    lvt(LocalVector::kLint0) = static_cast<std::uint32_t>(DeliveryMode::kExtInt) << apic::kModeShift;
  }
  irr_ = {};
  isr_ = {};
  tmr_ = {};
  timer_ = {};
}

void LocalApic::init_reset() noexcept {
  reset_registers();
  nmi_pending_ = false;
  init_pending_ = false;
  sipi_pending_.reset();
}

bool LocalApic::software_enabled() const noexcept { return (svr_ & apic::kSvrEnable) != 0; }

bool LocalApic::set_apic_base(std::uint64_t value, bool from_host, unsigned physical_bits) noexcept {
  constexpr std::uint64_t kReserved = 0x2ff;
  const std::uint64_t too_high = ~((std::uint64_t{1} << physical_bits) - 1);
  if ((value & (kReserved | too_high)) != 0) return false;
  const bool enable = (value & kApicBaseEnable) != 0;
  const bool extended = (value & kApicBaseX2apic) != 0;
  if (extended && !enable) return false;
  // SDM, "x2APIC State Transitions": x2APIC is entered from xAPIC and left for disabled only.
  if (!from_host && extended && !hardware_enabled()) return false;
  if (!from_host && x2apic() && enable && !extended) return false;

  const bool was_enabled = hardware_enabled();
  const bool was_extended = x2apic();
  apic_base_ = value;
  if (was_enabled && !enable && !from_host) {
    reset_registers();
    id_ = initial_id_ << 24;
  }
  if (extended && !was_extended) icr_ &= 0xffffffff;
  if (!extended && was_extended) id_ = initial_id_ << 24;
  return true;
}

std::uint32_t& LocalApic::lvt(LocalVector entry) noexcept {
  return lvt_[(static_cast<std::uint32_t>(entry) - apic::kLvtFirst) >> 4];
}
std::uint32_t LocalApic::lvt(LocalVector entry) const noexcept {
  return lvt_[(static_cast<std::uint32_t>(entry) - apic::kLvtFirst) >> 4];
}

std::uint32_t LocalApic::id_register() const noexcept { return x2apic() ? initial_id_ : id_; }

std::uint32_t LocalApic::ldr_register() const noexcept { return x2apic() ? logical_x2apic_id(initial_id_) : ldr_; }

std::optional<std::uint32_t> LocalApic::read_register(std::uint32_t offset, std::uint64_t now) const noexcept {
  if (offset >= apic::kIsr && offset < apic::kEsr) {
    const unsigned index = offset >> 4 & 7;
    if (offset < apic::kTmr) return isr_.word(index);
    return offset < apic::kIrr ? tmr_.word(index) : irr_.word(index);
  }
  if (offset >= apic::kLvtFirst && offset <= apic::kLvtLast) return lvt_[(offset - apic::kLvtFirst) >> 4];
  switch (offset) {
    case apic::kId:
      return id_register();
    case apic::kVersion:
      return apic::kVersionValue;
    case apic::kTpr:
      return tpr_;
    case apic::kApr:
    case apic::kPpr:
      return processor_priority();
    case apic::kEoi:
    case apic::kRemoteRead:
      return 0;
    case apic::kLdr:
      return ldr_register();
    case apic::kDfr:
      return dfr_;
    case apic::kSvr:
      return svr_;
    case apic::kEsr:
      return esr_;
    case apic::kIcrLow:
      return static_cast<std::uint32_t>(icr_);
    case apic::kIcrHigh:
      return static_cast<std::uint32_t>(icr_ >> 32);
    case apic::kInitialCount:
      return timer_.initial_count();
    case apic::kCurrentCount:
      return timer_.current_count(now);
    case apic::kDivide:
      return timer_.divide_configuration();
    default:
      return std::nullopt;
  }
}

std::uint32_t LocalApic::read(std::uint32_t offset, std::uint64_t now) noexcept {
  const auto value = read_register(offset, now);
  if (!value) log_error(apic::kErrorRegister);
  return value.value_or(0);
}

std::optional<std::uint64_t> LocalApic::read_msr(std::uint32_t index, std::uint64_t now) const noexcept {
  if (!x2apic() || index < kMsrX2apicFirst || index > kMsrX2apicLast) return std::nullopt;
  const std::uint32_t offset = (index - kMsrX2apicFirst) << 4;
  switch (offset) {
    case apic::kApr:
    case apic::kEoi:
    case apic::kRemoteRead:
    case apic::kDfr:
    case apic::kIcrHigh:
      return std::nullopt;
    case apic::kIcrLow:
      return icr_;
    default:
      return read_register(offset, now);
  }
}

ApicEffect LocalApic::write(std::uint32_t offset, std::uint32_t value, std::uint64_t now) noexcept {
  ApicEffect effect;
  switch (offset) {
    case apic::kId:
      id_ = value & 0xff000000;
      break;
    case apic::kLdr:
      ldr_ = value & 0xff000000;
      break;
    case apic::kDfr:
      dfr_ = value | 0x0fffffff;
      break;
    case apic::kIcrHigh:
      icr_ = (icr_ & 0xffffffff) | std::uint64_t{value & 0xff000000} << 32;
      break;
    case apic::kIcrLow:
      icr_ = (icr_ & ~std::uint64_t{0xffffffff}) | (value & ~apic::kDeliveryStatus);
      effect.ipi = send_icr();
      break;
    default:
      if (!write_register(offset, value, now, effect) && !read_register(offset, now)) log_error(apic::kErrorRegister);
  }
  return effect;
}

std::optional<ApicEffect> LocalApic::write_msr(std::uint32_t index, std::uint64_t value, std::uint64_t now) noexcept {
  if (!x2apic() || index < kMsrX2apicFirst || index > kMsrX2apicLast) return std::nullopt;
  const std::uint32_t offset = (index - kMsrX2apicFirst) << 4;
  ApicEffect effect;
  if (offset == apic::kIcrLow) {
    icr_ = value & ~std::uint64_t{apic::kDeliveryStatus};
    effect.ipi = send_icr();
    return effect;
  }
  if (value >> 32 != 0) return std::nullopt;
  const auto low = static_cast<std::uint32_t>(value);
  if ((offset == apic::kEoi || offset == apic::kEsr) && low != 0) return std::nullopt;
  if (offset == apic::kSelfIpi) {
    if ((low & ~apic::kVectorMask) != 0) return std::nullopt;
    // As an ICR write with the self shorthand would do; the ICR itself is left alone.
    const auto vector = static_cast<std::uint8_t>(low & apic::kVectorMask);
    if (vector < apic::kFirstLegalVector) {
      log_error(apic::kErrorSendVector);
    } else {
      effect.ipi = InterruptMessage{.vector = vector, .shorthand = Shorthand::kSelf, .sender = {}};
    }
    return effect;
  }
  if (!write_register(offset, low, now, effect)) return std::nullopt;
  return effect;
}

bool LocalApic::write_register(std::uint32_t offset, std::uint32_t value, std::uint64_t now,
                               ApicEffect& effect) noexcept {
  if (offset >= apic::kLvtFirst && offset <= apic::kLvtLast) {
    write_lvt(static_cast<LocalVector>(offset), value);
    return true;
  }
  switch (offset) {
    case apic::kTpr:
      tpr_ = value & 0xff;
      return true;
    case apic::kEoi:
      end_of_interrupt(effect);
      return true;
    case apic::kSvr:
      write_svr(value);
      return true;
    case apic::kEsr:
      esr_ = esr_logged_;
      esr_logged_ = 0;
      return true;
    case apic::kInitialCount:
      timer_.set_initial_count(value, now);
      return true;
    case apic::kDivide:
      timer_.set_divide_configuration(value, now);
      return true;
    default:
      return false;
  }
}

void LocalApic::write_svr(std::uint32_t value) noexcept {
  svr_ = value & apic::kSvrWritable;
  if (!software_enabled()) {
    for (std::uint32_t& entry : lvt_) entry |= apic::kMasked;
  }
}

void LocalApic::write_lvt(LocalVector entry, std::uint32_t value) noexcept {
  constexpr std::uint32_t kCommon = apic::kVectorMask | apic::kMasked;
  std::uint32_t writable = kCommon;
  switch (entry) {
    case LocalVector::kTimer:
      writable |= apic::kTimerModeMask;
      break;
    case LocalVector::kThermal:
    case LocalVector::kPerformance:
      writable |= apic::kModeMask;
      break;
    case LocalVector::kLint0:
    case LocalVector::kLint1:
      writable |= apic::kModeMask | apic::kPolarity | apic::kLevelTriggered;
      break;
    case LocalVector::kError:
      break;
  }
  value &= writable;
  if (!software_enabled()) value |= apic::kMasked;
  lvt(entry) = value;
  if (entry == LocalVector::kTimer) {
    timer_.set_mode(static_cast<ApicTimer::Mode>((value & apic::kTimerModeMask) >> apic::kTimerModeShift));
  }
}

std::optional<InterruptMessage> LocalApic::send_icr() noexcept {
  InterruptMessage message;
  message.mode = static_cast<DeliveryMode>(icr_ >> apic::kModeShift & 7);
  message.vector = static_cast<std::uint8_t>(icr_ & apic::kVectorMask);
  const bool has_vector = message.mode == DeliveryMode::kFixed || message.mode == DeliveryMode::kLowestPriority;
  if (has_vector && message.vector < apic::kFirstLegalVector) {
    log_error(apic::kErrorSendVector);
    return std::nullopt;
  }
  message.destination = static_cast<std::uint32_t>(icr_ >> (x2apic() ? 32 : 56));
  message.logical = (icr_ & apic::kLogical) != 0;
  // Of interprocessor interrupts, the trigger mode and level matter for an INIT de-assert only.
  const bool deassert = (icr_ & apic::kLevelTriggered) != 0 && (icr_ & apic::kAssert) == 0;
  message.asserted = !(message.mode == DeliveryMode::kInit && deassert);
  message.shorthand = static_cast<Shorthand>(icr_ >> apic::kShorthandShift & 3);
  return message;
}

void LocalApic::end_of_interrupt(ApicEffect& effect) noexcept {
  effect.ended_vector = isr_.highest();
  if (!effect.ended_vector) return;
  isr_.clear(*effect.ended_vector);
  if (tmr_.test(*effect.ended_vector)) effect.eoi_vector = effect.ended_vector;
}

void LocalApic::log_error(std::uint32_t bit) noexcept {
  if ((esr_logged_ & bit) != 0) return;
  esr_logged_ |= bit;
  local_interrupt(LocalVector::kError);
}

void LocalApic::set_tsc_deadline(std::uint64_t deadline) noexcept { timer_.set_tsc_deadline(deadline); }

unsigned LocalApic::cr8() const noexcept { return tpr_ >> 4; }

void LocalApic::set_cr8(unsigned value) noexcept { tpr_ = (value & 0xf) << 4; }

void LocalApic::advance(std::uint64_t now) noexcept {
  if (timer_.advance(now)) local_interrupt(LocalVector::kTimer);
}

bool LocalApic::matches(std::uint32_t destination, bool logical, bool from_device,
                        bool broadcast_quirk) const noexcept {
  if (x2apic() && from_device && broadcast_quirk && destination == kXapicBroadcast) return true;
  if (destination == (x2apic() ? kX2apicBroadcast : kXapicBroadcast)) return true;
  if (!logical) {
    // An ID that has no 8-bit form is reachable by its 32-bit one, in xAPIC mode too: else no such AP could be started.
    if (x2apic() || initial_id_ > 0xff) return destination == initial_id_;
    return destination == id_ >> 24;
  }
  const std::uint32_t ldr = ldr_register();
  if (x2apic()) return ldr >> 16 == destination >> 16 && (ldr & destination & 0xffff) != 0;
  if (destination > 0xff) return false;
  const std::uint32_t own = ldr >> 24;
  switch (dfr_ >> 28) {
    case 0xf:  // flat
      return (own & destination) != 0;
    case 0x0:  // cluster
      return own >> 4 == destination >> 4 && (own & destination & 0xf) != 0;
    default:
      return false;
  }
}

bool LocalApic::accept(DeliveryMode mode, std::uint8_t vector, bool level_triggered, bool asserted) noexcept {
  if (!hardware_enabled()) return false;
  switch (mode) {
    case DeliveryMode::kFixed:
    case DeliveryMode::kLowestPriority:
      if (!software_enabled()) return false;
      if (vector < apic::kFirstLegalVector) {
        log_error(apic::kErrorReceivedVector);
        return false;
      }
      irr_.set(vector);
      if (level_triggered) {
        tmr_.set(vector);
      } else {
        tmr_.clear(vector);
      }
      return true;
    case DeliveryMode::kNmi:
      nmi_pending_ = true;
      return true;
    case DeliveryMode::kInit:
      if (!asserted) return false;
      init_pending_ = true;
      sipi_pending_.reset();
      return true;
    case DeliveryMode::kStartup:
      sipi_pending_ = vector;
      return true;
    case DeliveryMode::kSmi:
    case DeliveryMode::kReserved:
    case DeliveryMode::kExtInt:
      return false;
  }
  return false;
}

bool LocalApic::local_interrupt(LocalVector source) noexcept {
  const std::uint32_t entry = lvt(source);
  if ((entry & apic::kMasked) != 0) return false;
  const auto mode = static_cast<DeliveryMode>((entry & apic::kModeMask) >> apic::kModeShift);
  return accept(mode, static_cast<std::uint8_t>(entry & apic::kVectorMask), (entry & apic::kLevelTriggered) != 0);
}

bool LocalApic::takes_external_interrupts() const noexcept {
  if (!hardware_enabled()) return true;
  const std::uint32_t entry = lvt(LocalVector::kLint0);
  return (entry & apic::kMasked) == 0 &&
         static_cast<DeliveryMode>((entry & apic::kModeMask) >> apic::kModeShift) == DeliveryMode::kExtInt;
}

std::uint8_t LocalApic::processor_priority() const noexcept {
  const unsigned in_service = isr_.highest().value_or(0);
  if (priority_class(tpr_) >= priority_class(in_service)) return static_cast<std::uint8_t>(tpr_);
  return static_cast<std::uint8_t>(in_service & 0xf0);
}

std::optional<std::uint8_t> LocalApic::pending_vector() const noexcept {
  if (!hardware_enabled()) return std::nullopt;
  const auto requested = irr_.highest();
  if (!requested || priority_class(*requested) <= priority_class(processor_priority())) return std::nullopt;
  return requested;
}

std::optional<std::uint8_t> LocalApic::acknowledge() noexcept {
  const auto vector = pending_vector();
  if (vector) {
    irr_.clear(*vector);
    isr_.set(*vector);
  }
  return vector;
}

bool LocalApic::take_init() noexcept {
  if (!init_pending_) return false;
  const auto sipi = sipi_pending_;
  init_reset();
  sipi_pending_ = sipi;
  return true;
}

std::optional<std::uint8_t> LocalApic::take_sipi() noexcept { return std::exchange(sipi_pending_, std::nullopt); }

std::uint64_t LocalApic::arbitration_rank() const noexcept {
  return std::uint64_t{priority_class(processor_priority())} << 32 | arbitrations_;
}

}  // namespace sevisor::emulator
