// KVM_CHECK_EXTENSION.
#pragma once

namespace sevisor::emulator {

inline constexpr int kMaxVcpus = 64;

// 0: not there. The same on /dev/kvm and on a VM.
[[nodiscard]] int check_extension(long capability) noexcept;

}  // namespace sevisor::emulator
