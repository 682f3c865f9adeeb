#include "emulator/kvm/irqfds.hpp"

#include <algorithm>
#include <cerrno>
#include <utility>

namespace sevisor::emulator {

int Irqfds::assign(const kvm_irqfd& request, EventWatch& watch) {
  Entry entry{.event = {}, .gsi = request.gsi, .resample = {}, .watched = {}};
  if (const int error = entry.event.open(static_cast<int>(request.fd)); error != 0) return error;
  if ((request.flags & KVM_IRQFD_FLAG_RESAMPLE) != 0) {
    if (const int error = entry.resample.emplace().open(static_cast<int>(request.resamplefd)); error != 0) return error;
  }
  // An eventfd interrupts by one GSI only.
  if (std::ranges::any_of(entries_, [&](const Entry& e) { return e.event == entry.event; })) return -EBUSY;
  entry.watched = watch.add(entry.event);
  if (!entry.watched) return -ENOMEM;
  entries_.push_back(std::move(entry));
  return 0;
}

std::vector<std::uint32_t> Irqfds::remove(const kvm_irqfd& request, int& error) {
  std::vector<std::uint32_t> before = resampled_gsis();
  EventDescriptor event;
  error = event.open(static_cast<int>(request.fd));
  if (error != 0) return {};
  std::erase_if(entries_, [&](const Entry& e) { return e.event == event && e.gsi == request.gsi; });
  const std::vector<std::uint32_t> after = resampled_gsis();
  std::erase_if(before, [&](std::uint32_t gsi) { return std::ranges::find(after, gsi) != after.end(); });
  return before;
}

std::vector<Irqfds::Signal> Irqfds::take_signals() const {
  std::vector<Signal> signals;
  for (const Entry& entry : entries_) {
    if (entry.event.take()) signals.push_back({.gsi = entry.gsi, .resample = entry.resample.has_value()});
  }
  return signals;
}

bool Irqfds::pending() const {
  return std::ranges::any_of(entries_, [](const Entry& entry) { return entry.event.signalled(); });
}

void Irqfds::acknowledged(std::uint32_t gsi) const {
  for (const Entry& entry : entries_) {
    if (entry.gsi == gsi && entry.resample) entry.resample->signal();
  }
}

std::vector<std::uint32_t> Irqfds::resampled_gsis() const {
  std::vector<std::uint32_t> gsis;
  for (const Entry& entry : entries_) {
    if (entry.resample && std::ranges::find(gsis, entry.gsi) == gsis.end()) gsis.push_back(entry.gsi);
  }
  return gsis;
}

}  // namespace sevisor::emulator
