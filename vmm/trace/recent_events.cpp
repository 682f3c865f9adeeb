#include "vmm/trace/recent_events.hpp"

#include <algorithm>
#include <fmt/format.h>

#include "vmm/trace/trace_line.hpp"

namespace sevisor::vmm {

namespace {
std::string line_of(const kvm::Moment& moment, const kvm::GuestEvent& event) {
  const std::string where = moment.rip != 0 ? fmt::format(" rip {:#x}", moment.rip) : "";
  return fmt::format("{:.6f} ms{}: {}", static_cast<double>(moment.time_ns) / 1e6, where, describe(event));
}
}  // namespace

void RecentEvents::observe(const kvm::Moment& moment, const kvm::GuestEvent& event) {
  // The end of a #VC's handler says little and would push out what says more.
  if (!is_traced(event) || std::holds_alternative<kvm::VcDone>(event) ||
      std::holds_alternative<kvm::FirmwareCommand>(event) || std::holds_alternative<kvm::SevCall>(event)) {
    return;
  }
  const std::lock_guard lock(mutex_);
  Ring& ring = rings_[moment.vcpu];
  Entry& entry = ring.entries[ring.count % kKept];
  entry = {moment, event};
  // Valid for this call only.
  if (auto* reply = std::get_if<kvm::PageReply>(&entry.event)) reply->data = {};
  if (auto* request = std::get_if<kvm::PageRequest>(&entry.event)) request->snapshot = nullptr;
  ++ring.count;
  if (std::holds_alternative<kvm::VcRaised>(event)) {
    ring.last_vc = entry;
    ring.last_vc_at = ring.count;
  }
}

std::vector<std::string> RecentEvents::describe(unsigned vcpu) const {
  const std::lock_guard lock(mutex_);
  std::vector<std::string> lines;
  const auto found = rings_.find(vcpu);
  if (found == rings_.end()) return lines;
  const Ring& ring = found->second;
  const std::size_t first = ring.count - std::min(ring.count, kKept);
  if (ring.last_vc_at != 0 && ring.last_vc_at <= first) {
    lines.push_back(line_of(ring.last_vc.moment, ring.last_vc.event));
  }
  for (std::size_t i = first; i < ring.count; ++i) {
    const Entry& entry = ring.entries[i % kKept];
    lines.push_back(line_of(entry.moment, entry.event));
  }
  return lines;
}

}  // namespace sevisor::vmm
