// Values of options, from text.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

namespace sevisor::cli {

// Decimal or 0x hexadecimal. Throws Error (kBadUsage) unless it is a number from `least` to `most`.
[[nodiscard]] std::uint64_t parse_integer(std::string_view option, std::string_view text, std::uint64_t least,
                                          std::uint64_t most);

// Throws Error (kBadUsage), which does not repeat the text, unless it is hexadecimal of `size` bytes.
[[nodiscard]] std::vector<std::byte> parse_hex(std::string_view option, std::string_view text, std::size_t size);

// The same of base64, as one word.
[[nodiscard]] std::vector<std::byte> parse_base64(std::string_view option, std::string_view text, std::size_t size);

}  // namespace sevisor::cli
