// Which pages of a slot were written to. Linux virt/kvm/kvm_main.c kvm_get_dirty_log_protect(),
// kvm_clear_dirty_log_protect().
#include <cerrno>
#include <vector>

#include "base/bytes.hpp"
#include "emulator/kvm/capabilities.hpp"
#include "emulator/kvm/user_memory.hpp"
#include "emulator/kvm/vm.hpp"

namespace sevisor::emulator {

int Vm::set_manual_dirty_log(std::uint64_t options) {
  const std::uint64_t allowed =
      (options & KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE) != 0 ? kDirtyLogOptions : KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE;
  if ((options & ~allowed) != 0) return -EINVAL;
  manual_dirty_log_ = options != 0;
  memory_.set_logs_start_full((options & KVM_DIRTY_LOG_INITIALLY_SET) != 0);
  return 0;
}

int Vm::get_dirty_log(void* argument) {
  kvm_dirty_log request{};
  if (!get_user(request, argument)) return -EFAULT;
  std::vector<std::uint64_t> pages;
  if (const int error = memory_.get_dirty_log(request.slot, !manual_dirty_log_, pages); error != 0) return error;
  return copy_to_user(request.dirty_bitmap, std::as_bytes(std::span(pages))) ? 0 : -EFAULT;
}

int Vm::clear_dirty_log(void* argument) {
  kvm_clear_dirty_log request{};
  if (!get_user(request, argument)) return -EFAULT;
  if (const int error = memory_.check_log_range(request.slot, request.first_page, request.num_pages); error != 0) {
    return error;
  }
  std::vector<std::uint64_t> pages((std::uint64_t{request.num_pages} + 63) / 64);
  if (!copy_from_user(std::as_writable_bytes(std::span(pages)), request.dirty_bitmap)) return -EFAULT;
  memory_.clear_dirty_log(request.slot, request.first_page, pages);
  return 0;
}

}  // namespace sevisor::emulator
