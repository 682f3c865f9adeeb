#include "vmm/cli/log.hpp"

#include <cstdlib>
#include <fmt/format.h>
#include <memory>
#include <spdlog/pattern_formatter.h>
#include <spdlog/sinks/stdout_color_sinks.h>
#include <spdlog/spdlog.h>
#include <string>
#include <unistd.h>

#include "base/error.hpp"
#include "vmm/end/service_manager.hpp"

namespace sevisor::cli {

namespace {

constexpr std::string_view kJournalError = "<3>";

// "warning: " and so on; nothing for information, which is the usual case.
class LevelPrefix final : public spdlog::custom_flag_formatter {
 public:
  void format(const spdlog::details::log_msg& message, const std::tm&, spdlog::memory_buf_t& to) override {
    if (message.level == spdlog::level::info) return;
    const auto name = spdlog::level::to_string_view(message.level);
    to.append(name.data(), name.data() + name.size());
    to.append(std::string_view(": "));
  }
  [[nodiscard]] std::unique_ptr<custom_flag_formatter> clone() const override {
    return std::make_unique<LevelPrefix>();
  }
};

// "<6>" and so on: syslog(3)'s numbers, as sd-daemon(3) takes them.
class JournalPrefix final : public spdlog::custom_flag_formatter {
 public:
  void format(const spdlog::details::log_msg& message, const std::tm&, spdlog::memory_buf_t& to) override {
    to.append(priority(message.level));
  }
  [[nodiscard]] std::unique_ptr<custom_flag_formatter> clone() const override {
    return std::make_unique<JournalPrefix>();
  }

 private:
  static std::string_view priority(spdlog::level::level_enum level) {
    switch (level) {
      case spdlog::level::trace:
      case spdlog::level::debug:
        return "<7>";
      case spdlog::level::warn:
        return "<4>";
      case spdlog::level::err:
        return kJournalError;
      case spdlog::level::critical:
        return "<2>";
      default:
        return "<6>";
    }
  }
};

}  // namespace

bool may_colour(int fd) {
  const char* none = std::getenv("NO_COLOR");
  const char* term = std::getenv("TERM");
  return ::isatty(fd) != 0 && (none == nullptr || *none == '\0') && term != nullptr && std::string_view(term) != "dumb";
}

std::string_view error_prefix() { return vmm::is_journal(STDERR_FILENO) ? kJournalError : "sevisor: "; }

void set_up_log(std::string_view level) {
  const std::string name(level == "warn" ? "warning" : level);
  const auto value = spdlog::level::from_str(name);
  if (value == spdlog::level::off && name != "off") {  // what from_str() answers to unknown names
    throw Error(ExitCode::kBadUsage, fmt::format("read --log-level '{}'", level), "no such level",
                fmt::format("Choose one of {}.", kLogLevels));
  }
  auto formatter = std::make_unique<spdlog::pattern_formatter>();
  if (vmm::is_journal(STDERR_FILENO)) {
    formatter->add_flag<JournalPrefix>('*').set_pattern("%*%v");
  } else {
    formatter->add_flag<LevelPrefix>('*').set_pattern("%^sevisor:%$ %*%v");
  }
  const auto sink = std::make_shared<spdlog::sinks::stderr_color_sink_mt>();
  sink->set_color_mode(may_colour(STDERR_FILENO) ? spdlog::color_mode::always : spdlog::color_mode::never);
  const auto logger = std::make_shared<spdlog::logger>("sevisor", sink);
  logger->set_formatter(std::move(formatter));
  logger->set_level(value);
  logger->flush_on(spdlog::level::trace);
  spdlog::set_default_logger(logger);
}

}  // namespace sevisor::cli
