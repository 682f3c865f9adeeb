#include "vmm/text/size_text.hpp"

#include <charconv>
#include <fmt/format.h>

#include "base/error.hpp"

namespace sevisor::vmm {

namespace {

// Binary logarithm of the unit that a letter stands for; -1 for none.
int unit_shift(char letter) {
  switch (letter) {
    case 'k':
    case 'K':
      return 10;
    case 'm':
    case 'M':
      return 20;
    case 'g':
    case 'G':
      return 30;
    case 't':
    case 'T':
      return 40;
    default:
      return -1;
  }
}

}  // namespace

std::uint64_t parse_size(std::string_view option, std::string_view text) {
  const auto refuse = [option, text](const char* came_back) {
    throw Error(ExitCode::kBadUsage, fmt::format("read {} '{}'", option, text), came_back,
                "Give a number with a unit, such as 512M or 2G.");
  };
  std::string_view digits = text;
  int shift = 20;
  if (!digits.empty() && unit_shift(digits.back()) >= 0) {
    shift = unit_shift(digits.back());
    digits.remove_suffix(1);
  }
  std::uint64_t number = 0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), number);
  if (digits.empty() || error == std::errc::invalid_argument || end != digits.data() + digits.size()) {
    refuse("it is not a number with a unit");
  }
  if (error == std::errc::result_out_of_range || number > UINT64_MAX >> shift) refuse("it is too large");
  return number << shift;
}

std::string size_text(std::uint64_t bytes) {
  struct Unit {
    int shift;
    const char* name;
  };
  for (const Unit unit : {Unit{40, "TiB"}, Unit{30, "GiB"}, Unit{20, "MiB"}, Unit{10, "KiB"}}) {
    if (bytes != 0 && bytes % (std::uint64_t{1} << unit.shift) == 0) {
      return fmt::format("{} {}", bytes >> unit.shift, unit.name);
    }
  }
  return fmt::format("{} bytes", bytes);
}

}  // namespace sevisor::vmm
