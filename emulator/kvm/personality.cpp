#include "emulator/kvm/personality.hpp"

#include <algorithm>
#include <cerrno>
#include <iterator>

namespace sevisor::emulator {

namespace {

constexpr Personality kPersonalities[] = {
    {.kernel = "6.1",
     .vm_types = false,
     .sev_attributes = 0,
     .memory_region_2 = false,
     .lists_hypervisor = false,
     .shutdown_exits = false,
     .second_init_errno = EBUSY,
     .pins_regions_to_read = false,
     .requests = ghcb::KnownRequests::kLinux61},
    {.kernel = "6.12",
     .vm_types = true,
     .sev_attributes = 1,
     .memory_region_2 = true,
     .lists_hypervisor = false,
     .shutdown_exits = true,
     .second_init_errno = EINVAL,
     .pins_regions_to_read = false,
     .requests = ghcb::KnownRequests::kLinux612},
    {.kernel = "7.2",
     .vm_types = true,
     .sev_attributes = 3,
     .memory_region_2 = true,
     .lists_hypervisor = true,
     .shutdown_exits = true,
     .second_init_errno = EINVAL,
     .pins_regions_to_read = true,
     .requests = ghcb::KnownRequests::kLinux72},
};

}  // namespace

std::span<const Personality> personalities() noexcept { return kPersonalities; }

const Personality& newest_personality() noexcept { return *std::prev(std::end(kPersonalities)); }

const Personality* find_personality(std::string_view kernel) noexcept {
  const Personality* found = std::ranges::find(kPersonalities, kernel, &Personality::kernel);
  return found == std::end(kPersonalities) ? nullptr : found;
}

}  // namespace sevisor::emulator
