// One guest's encryption context for two VMs: a mirror shares it, a move takes it. Linux arch/x86/kvm/svm/sev.c
// sev_vm_copy_enc_context_from(), sev_vm_move_enc_context_from().
#include <algorithm>
#include <cerrno>
#include <chrono>
#include <thread>
#include <utility>

#include "emulator/kvm/vcpu.hpp"
#include "emulator/kvm/vm.hpp"

namespace sevisor::emulator {

namespace {
constexpr std::chrono::milliseconds kLookAround{1};  // how often to see whether vCPUs have left KVM_RUN
}

std::shared_ptr<Vm> Vm::find_vm(std::uint64_t fd) const {
  // KVM takes the lower half of the argument.
  const auto file = std::dynamic_pointer_cast<VmFile>(platform_->descriptors().find(static_cast<int>(fd)));
  return file == nullptr ? nullptr : file->vm();
}

int Vm::mirror_context(std::uint64_t source_fd) {
  *keep_ = find_vm(source_fd);
  if (*keep_ == nullptr) return -EBADF;
  Vm& source = **keep_;
  if (&source == this || encrypted() || !source.encrypted() || source.owner_ != nullptr || !vcpus_.empty()) {
    return -EINVAL;
  }
  // Not the AP jump table: the two need not see the same memory.
  sev_ = source.sev_;
  sev_.regions.clear();
  initialised_ = true;
  owner_ = *keep_;
  source.mirrors_.push_back(this);
  memory_.share(source.memory_);
  return 0;
}

int Vm::move_context(std::uint64_t source_fd) {
  *keep_ = find_vm(source_fd);
  if (*keep_ == nullptr) return -EBADF;
  Vm& source = **keep_;
  if (&source == this) return -EINVAL;
  // KVM takes the locks of all vCPUs, so it waits for those that run.
  while (scheduler_.busy() || source.scheduler_.busy()) {
    lock().unlock();
    std::this_thread::sleep_for(kLookAround);
    lock().lock();
  }
  if (dead_) return -EIO;
  if (type_ != source.type_ || encrypted() || !source.encrypted()) return -EINVAL;
  if (source.sev_.es) {
    if (vcpus_.size() != source.vcpus_.size()) return -EINVAL;
    if (!std::ranges::all_of(source.vcpus_, [](const auto& vcpu) { return vcpu->is_protected(); })) return -EINVAL;
  }

  for (const auto& vcpu : source.vcpus_) vcpu->park();
  sev_ = std::exchange(source.sev_, {});
  // KVM leaves the number of /dev/sev behind, so firmware commands of the moved VM are EBADF; and the AP jump table.
  sev_.fd = 0;
  memory_.share(source.memory_);
  owner_ = std::exchange(source.owner_, nullptr);
  if (owner_ != nullptr) {
    std::ranges::replace(owner_->mirrors_, &source, this);
  } else {
    platform_->move_asid(sev_.asid, memory_);
  }
  mirrors_ = std::exchange(source.mirrors_, {});
  for (Vm* mirror : mirrors_) mirror->owner_ = shared_from_this();
  for (std::size_t i = 0; i < vcpus_.size(); ++i) {
    if (sev_.es) {
      vcpus_[i]->take_over(*source.vcpus_[i]);
    } else {
      vcpus_[i]->forget_processor();
    }
  }
  // All VMs of a machine have one TSC; here each has its own, which must not go back for the guest.
  if (source.clock_.now > clock_.now) set_tsc_forward(source.clock_.now - clock_.now);
  source.dead_ = true;
  return 0;
}

// What user space has set before stays as it is: KVM's clock, and what is left of the counts of timers.
void Vm::set_tsc_forward(std::uint64_t ticks) {
  clock_.now += ticks;
  clock_offset_ -= ticks;
  if (irqchip_) irqchip_->set_clock_forward(ticks);
}

// The context is the owner's.
void Vm::leave_owner() {
  if (owner_ == nullptr) return;
  std::erase(owner_->mirrors_, this);
  sev_ = {};
}

}  // namespace sevisor::emulator
