// The local APIC as struct kvm_lapic_state: the register page of an xAPIC (Linux Documentation/virt/kvm/api.rst,
// KVM_GET_LAPIC).
#include <algorithm>

#include "base/bytes.hpp"
#include "emulator/irqchip/apic_registers.hpp"
#include "emulator/irqchip/local_apic.hpp"

namespace sevisor::emulator {
namespace {

std::uint32_t field(std::span<const std::byte, kApicStateSize> page, std::uint32_t offset) noexcept {
  return load<std::uint32_t>(page.data() + offset);
}

void set_field(std::span<std::byte, kApicStateSize> page, std::uint32_t offset, std::uint32_t value) noexcept {
  store(page.data() + offset, value);
}

}  // namespace

void LocalApic::get_state(std::span<std::byte, kApicStateSize> page, std::uint64_t now, bool wide_ids) const noexcept {
  std::fill(page.begin(), page.end(), std::byte{0});
  for (std::uint32_t offset = 0; offset < kApicStateSize; offset += 16) {
    if (const auto value = read_register(offset, now)) set_field(page, offset, *value);
  }
  if (x2apic() && !wide_ids) set_field(page, apic::kId, initial_id_ << 24);
}

bool LocalApic::set_state(std::span<const std::byte, kApicStateSize> page, std::uint64_t now, bool wide_ids) noexcept {
  if (x2apic()) {
    if (field(page, apic::kId) != (wide_ids ? initial_id_ : initial_id_ << 24)) return false;
  } else {
    id_ = field(page, apic::kId) & 0xff000000;
    ldr_ = field(page, apic::kLdr) & 0xff000000;
  }
  tpr_ = field(page, apic::kTpr) & 0xff;
  dfr_ = field(page, apic::kDfr) | 0x0fffffff;
  esr_ = field(page, apic::kEsr);
  esr_logged_ = 0;
  icr_ = field(page, apic::kIcrLow) & ~apic::kDeliveryStatus;
  icr_ |= std::uint64_t{field(page, apic::kIcrHigh)} << 32;
  for (unsigned index = 0; index < 8; ++index) {
    isr_.set_word(index, field(page, apic::kIsr + index * 16));
    tmr_.set_word(index, field(page, apic::kTmr + index * 16));
    irr_.set_word(index, field(page, apic::kIrr + index * 16));
  }
  // Enabled while the LVT is written, so that an entry keeps its mask bit as saved even if the APIC is disabled (LINT0
  // of a BSP after reset is so).
  svr_ = apic::kSvrEnable;
  for (std::uint32_t offset = apic::kLvtFirst; offset <= apic::kLvtLast; offset += 16) {
    write_lvt(static_cast<LocalVector>(offset), field(page, offset));
  }
  svr_ = field(page, apic::kSvr) & apic::kSvrWritable;
  timer_.set_divide_configuration(field(page, apic::kDivide), now);
  timer_.restore(field(page, apic::kInitialCount), field(page, apic::kCurrentCount), now);
  return true;
}

}  // namespace sevisor::emulator
