// KVM_IRQFD: eventfds that interrupt. Linux virt/kvm/eventfd.c.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "emulator/kvm/event_descriptor.hpp"
#include "emulator/kvm/event_watch.hpp"
#include "kvm/abi.hpp"

namespace sevisor::emulator {

class Irqfds {
 public:
  struct Signal {
    std::uint32_t gsi;
    bool resample;  // the line stays up until the guest ends the interrupt
  };

  [[nodiscard]] bool empty() const noexcept { return entries_.empty(); }
  // Takes what KVM_IRQFD asks to assign, and has it watched. 0 or a negative errno.
  [[nodiscard]] int assign(const kvm_irqfd& request, EventWatch& watch);
  // KVM_IRQFD_FLAG_DEASSIGN; that there is none is no error. The GSIs whose last resampling eventfd went, or the
  // negative errno in `error`.
  [[nodiscard]] std::vector<std::uint32_t> remove(const kvm_irqfd& request, int& error);

  // Some were signalled, and not taken yet.
  [[nodiscard]] bool pending() const;
  // Those that were signalled since the last call, in the order of their assignment.
  [[nodiscard]] std::vector<Signal> take_signals() const;
  // The guest has ended an interrupt of this GSI: its resample eventfds are signalled.
  void acknowledged(std::uint32_t gsi) const;
  [[nodiscard]] std::vector<std::uint32_t> resampled_gsis() const;

 private:
  struct Entry {
    EventDescriptor event;
    std::uint32_t gsi = 0;
    std::optional<EventDescriptor> resample;
    std::optional<EventWatch::Watched> watched;
  };
  std::vector<Entry> entries_;
};

}  // namespace sevisor::emulator
