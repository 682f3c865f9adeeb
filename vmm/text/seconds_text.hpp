// Times as people write them.
#pragma once

#include <chrono>
#include <optional>
#include <string_view>

namespace sevisor::vmm {

// "300", "0.5", ".25": seconds above 0 and up to `most`, to the next millisecond. nullopt for anything else.
[[nodiscard]] std::optional<std::chrono::milliseconds> parse_seconds(std::string_view text, std::chrono::seconds most);

}  // namespace sevisor::vmm
