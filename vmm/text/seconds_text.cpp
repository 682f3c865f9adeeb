#include "vmm/text/seconds_text.hpp"

#include <algorithm>
#include <charconv>
#include <cstdint>

namespace sevisor::vmm {

namespace {

bool is_digit(char c) { return c >= '0' && c <= '9'; }

}  // namespace

// Digit by digit: std::from_chars() of a floating-point number alone would load the mathematical library.
std::optional<std::chrono::milliseconds> parse_seconds(std::string_view text, std::chrono::seconds most) {
  const std::size_t point = std::min(text.find('.'), text.size());
  const std::string_view whole = text.substr(0, point);
  const std::string_view fraction = point < text.size() ? text.substr(point + 1) : std::string_view{};
  if (whole.empty() && fraction.empty()) return std::nullopt;
  if (!std::ranges::all_of(whole, is_digit) || !std::ranges::all_of(fraction, is_digit)) return std::nullopt;

  std::int64_t seconds = 0;
  if (!whole.empty() && std::from_chars(whole.data(), whole.data() + whole.size(), seconds).ec != std::errc{}) {
    return std::nullopt;
  }
  if (seconds > most.count()) return std::nullopt;
  std::int64_t milliseconds = 0;
  for (std::size_t i = 0; i < 3; ++i) milliseconds = milliseconds * 10 + (i < fraction.size() ? fraction[i] - '0' : 0);
  const std::string_view rest = fraction.substr(std::min<std::size_t>(fraction.size(), 3));
  if (std::ranges::any_of(rest, [](char c) { return c != '0'; })) ++milliseconds;

  const auto time = std::chrono::seconds(seconds) + std::chrono::milliseconds(milliseconds);
  if (time <= std::chrono::milliseconds(0) || time > most) return std::nullopt;
  return time;
}

}  // namespace sevisor::vmm
