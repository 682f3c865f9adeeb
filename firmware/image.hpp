// The guest firmware, built with this program and carried in it.
#pragma once

#include <cstddef>
#include <span>

namespace sevisor::firmware {

// 64 KiB whose last byte belongs at guest-physical 4 GiB - 1.
[[nodiscard]] std::span<const std::byte> image() noexcept;

}  // namespace sevisor::firmware
