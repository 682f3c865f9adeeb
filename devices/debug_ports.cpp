#include "devices/debug_ports.hpp"

#include <algorithm>

namespace sevisor::devices {

namespace {
constexpr std::byte kDebugconPresent{0xe9};
}

void DebugExit::read(std::uint64_t /*offset*/, std::span<std::byte> to) { std::ranges::fill(to, std::byte{0}); }

void DebugExit::write(std::uint64_t offset, std::span<const std::byte> from) {
  if (offset != 0) return;
  std::uint32_t value = 0;
  for (std::size_t i = 0; i < from.size() && i < sizeof value; ++i)
    value |= std::to_integer<std::uint32_t>(from[i]) << (8 * i);
  if (sink_) sink_({MachineEvent::Kind::kDebugExit, value});
}

void Debugcon::read(std::uint64_t /*offset*/, std::span<std::byte> to) { std::ranges::fill(to, kDebugconPresent); }

void Debugcon::write(std::uint64_t /*offset*/, std::span<const std::byte> from) {
  if (sink_) sink_(from.first(1));
}

void Debugcon::write_string(std::uint64_t /*offset*/, std::size_t element, std::span<const std::byte> from) {
  if (!sink_ || element != 1) return;
  sink_(from);
}

void NoDevice::read(std::uint64_t /*offset*/, std::span<std::byte> to) { std::ranges::fill(to, std::byte{0xff}); }

void NoDevice::write(std::uint64_t /*offset*/, std::span<const std::byte> /*from*/) {}

}  // namespace sevisor::devices
