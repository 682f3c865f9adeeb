#include "vmm/cli/option_values.hpp"

#include <charconv>
#include <fmt/format.h>
#include <optional>
#include <string>

#include "base/error.hpp"
#include "sev/encoding.hpp"

namespace sevisor::cli {

namespace {

std::vector<std::byte> of_size(std::string_view option, std::optional<std::vector<std::byte>> bytes,
                               std::string_view form, std::size_t size) {
  const std::string tried = fmt::format("read {}", option);
  const std::string advice = fmt::format("Give {} bytes in {}.", size, form);
  if (!bytes) throw Error(ExitCode::kBadUsage, tried, fmt::format("not {}", form), advice);
  if (bytes->size() != size) {
    throw Error(ExitCode::kBadUsage, tried, fmt::format("it has {} bytes, not {}", bytes->size(), size), advice);
  }
  return *std::move(bytes);
}

}  // namespace

std::uint64_t parse_integer(std::string_view option, std::string_view text, std::uint64_t least, std::uint64_t most) {
  const bool hex = text.starts_with("0x") || text.starts_with("0X");
  const std::string_view digits = hex ? text.substr(2) : text;
  std::uint64_t value = 0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value, hex ? 16 : 10);
  if (error != std::errc{} || end != digits.data() + digits.size() || value < least || value > most) {
    throw Error(ExitCode::kBadUsage, fmt::format("read {} '{}'", option, text),
                fmt::format("not a number from {} to {}", least, most));
  }
  return value;
}

std::vector<std::byte> parse_hex(std::string_view option, std::string_view text, std::size_t size) {
  return of_size(option, sev::from_hex(text), "hexadecimal", size);
}

std::vector<std::byte> parse_base64(std::string_view option, std::string_view text, std::size_t size) {
  return of_size(option, sev::from_base64(text), "base64", size);
}

}  // namespace sevisor::cli
