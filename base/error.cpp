#include "base/error.hpp"

#include <cstring>
#include <fmt/format.h>
#include <utility>

namespace sevisor {

namespace {
std::string one_line(const std::string& tried, const std::string& came_back, const std::string& advice) {
  std::string text = fmt::format("{}: {}", tried, came_back);
  if (!advice.empty()) text += fmt::format(". {}", advice);
  return text;
}
}  // namespace

Error::Error(ExitCode exit_code, std::string tried, std::string came_back, std::string advice)
    : std::runtime_error(one_line(tried, came_back, advice)),
      exit_code_(exit_code),
      tried_(std::move(tried)),
      came_back_(std::move(came_back)),
      advice_(std::move(advice)) {}

std::string errno_text(int error_number) {
  const char* description = strerrordesc_np(error_number);
  const char* name = strerrorname_np(error_number);
  if (description == nullptr || name == nullptr) return fmt::format("unknown error {}", error_number);
  return fmt::format("{} ({})", description, name);
}

}  // namespace sevisor
