#include "devices/pvpanic.hpp"

namespace sevisor::devices {

namespace {
constexpr std::byte kPanicked{1};
constexpr std::byte kCrashKernelLoaded{2};
}  // namespace

void Pvpanic::read(std::uint64_t /*offset*/, std::span<std::byte> to) { to[0] = kPanicked | kCrashKernelLoaded; }

void Pvpanic::write(std::uint64_t /*offset*/, std::span<const std::byte> from) {
  if ((from[0] & kPanicked) != std::byte{0} && sink_) sink_({MachineEvent::Kind::kPanic, 0});
}

}  // namespace sevisor::devices
