// Tells the observer of the host what passes between the guest and its hypervisor.
#include <algorithm>
#include <span>

#include "emulator/kvm/vcpu.hpp"
#include "emulator/kvm/vm.hpp"

namespace sevisor::emulator {

namespace {
constexpr std::uint64_t kMaxInstructionBytes = 15;
// More handlers than that are never inside one another; those that never return are forgotten.
constexpr std::size_t kMaxOpenVcs = 16;
}  // namespace

void Vcpu::observe(const kvm::GuestEvent& event) {
  if (kvm::Observer* observer = vm_.platform().options().observer) {
    observer->observe({.time_ns = vm_.clock().now, .vcpu = id_, .rip = cpu_->rip()}, event);
  }
}

void Vcpu::msr_requested(std::uint64_t value) { observe(kvm::MsrRequest{value}); }
void Vcpu::msr_answered(std::uint64_t value) { observe(kvm::MsrReply{value}); }

void Vcpu::page_requested(Gpa page, const ghcb::Request* request, const ghcb::Page& snapshot) {
  if (vm_.platform().options().watch_memory && ghcb_page_ != page) {
    ghcb_page_ = page;
    cpu_->forget_translations();  // what is in the TLB is not told
  }
  observe(kvm::PageRequest{.page = page,
                           .readable = request != nullptr,
                           .request = request != nullptr ? *request : ghcb::Request{},
                           .snapshot = request != nullptr ? &snapshot : nullptr});
}

bool Vcpu::memory_used(const Use& use) {
  vm_.platform().options().observer->observe(
      {.time_ns = vm_.clock().now, .vcpu = id_, .rip = use.rip},
      kvm::MemoryUse{
          .at = use.gpa, .size = use.size, .shared = use.shared, .write = use.write, .has_memory = use.has_memory});
  return !(use.shared && ghcb_page_ && use.gpa.page() == *ghcb_page_);
}

void Vcpu::page_answered(const ghcb::Answer& answer) {
  observe(kvm::PageReply{.page = answer.page,
                         .request = answer.request,
                         .exit_info_1 = answer.exit_info_1,
                         .exit_info_2 = answer.exit_info_2,
                         .data = answer.data});
}

void Vcpu::vc_raised(const Vc& vc) {
  ghcb::ValidBitmap valid{};
  if (ghcb_page_ && !open_vcs_.empty()) {
    (void)vm_.memory().read_shared(*ghcb_page_ + ghcb::kValidBitmapOffset,
                                   std::as_writable_bytes(std::span(&valid, 1)));
  }
  if (open_vcs_.size() == kMaxOpenVcs) open_vcs_.erase(open_vcs_.begin());
  open_vcs_.push_back(vc);
  vm_.platform().options().observer->observe(
      {.time_ns = vc.time, .vcpu = id_, .rip = vc.rip},
      kvm::VcRaised{
          .code = vc.exit_code, .cpl = vc.cpl, .injected = vc.injected, .ghcb_busy = valid != ghcb::ValidBitmap{}});
}

void Vcpu::returned(std::uint64_t time, std::uint64_t rip, std::uint64_t rsp) {
  const auto ended = std::find_if(open_vcs_.rbegin(), open_vcs_.rend(),
                                  [&](const Vc& vc) { return vc.rsp == rsp && rip - vc.rip <= kMaxInstructionBytes; });
  if (ended == open_vcs_.rend()) return;
  const Vc vc = *ended;
  open_vcs_.erase(std::prev(ended.base()));
  vm_.platform().options().observer->observe({.time_ns = time, .vcpu = id_, .rip = vc.rip},
                                             kvm::VcDone{.code = vc.exit_code, .duration_ns = time - vc.time});
}

void Vcpu::observe_exit(const CpuExit& exit) {
  // Those that only say that a slice or an interrupt window is over are the emulated host's own affair.
  if (exit.code == ghcb::kExitVmgexit || exit.code == ghcb::kExitIntr || exit.code == ghcb::kExitVintr) return;
  observe(kvm::AutomaticExit{.code = exit.code, .info_1 = exit.info1, .info_2 = exit.info2});
}

void Vcpu::observe_injection(std::uint64_t event) { observe(kvm::Injection{event}); }

}  // namespace sevisor::emulator
