// Bytes as text: the forms in which digests and blobs are reported.
#pragma once

#include <cstddef>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "sev/secret_memory.hpp"

namespace sevisor::sev {

[[nodiscard]] std::string to_hex(std::span<const std::byte> bytes);     // lower case, two digits a byte
[[nodiscard]] std::string to_base64(std::span<const std::byte> bytes);  // RFC 4648 section 4, padded, no line breaks
// nullopt unless the text is an even number of hexadecimal digits in either case.
[[nodiscard]] std::optional<std::vector<std::byte>> from_hex(std::string_view text);

// nullopt unless the text is RFC 4648 section 4 base64: padded, no other characters, unused bits zero.
[[nodiscard]] std::optional<std::vector<std::byte>> from_base64(std::string_view text);
// The same of a key or secret.
[[nodiscard]] std::optional<SecretBytes> secret_from_base64(std::string_view text);

}  // namespace sevisor::sev
