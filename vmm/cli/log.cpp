#include "vmm/cli/log.hpp"

#include <fmt/format.h>
#include <memory>
#include <spdlog/pattern_formatter.h>
#include <spdlog/sinks/stdout_color_sinks.h>
#include <spdlog/spdlog.h>
#include <string>

#include "base/error.hpp"

namespace sevisor::cli {

namespace {

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

}  // namespace

void set_up_log(std::string_view level) {
  const std::string name(level == "warn" ? "warning" : level);
  const auto value = spdlog::level::from_str(name);
  if (value == spdlog::level::off && name != "off") {  // what from_str() answers to unknown names
    throw Error(ExitCode::kBadUsage, fmt::format("read --log-level '{}'", level), "no such level",
                fmt::format("Choose one of {}.", kLogLevels));
  }
  auto formatter = std::make_unique<spdlog::pattern_formatter>();
  formatter->add_flag<LevelPrefix>('*').set_pattern("%^sevisor:%$ %*%v");
  const auto logger =
      std::make_shared<spdlog::logger>("sevisor", std::make_shared<spdlog::sinks::stderr_color_sink_mt>());
  logger->set_formatter(std::move(formatter));
  logger->set_level(value);
  logger->flush_on(spdlog::level::trace);
  spdlog::set_default_logger(logger);
}

}  // namespace sevisor::cli
