// docs/nae-events.md shows the table of events as the code has it.
#include <catch2/catch.hpp>
#include <fstream>
#include <sstream>
#include <string>

#include "ghcb/exit_name.hpp"
#include "ghcb/hypervisor/event_table.hpp"

using namespace sevisor::ghcb;

namespace {

constexpr const char* kBegin = "<!-- events -->\n";
constexpr const char* kEnd = "<!-- end of events -->";

std::string names(const ValidBitmap& fields) {
  static constexpr std::pair<Field, const char*> kNames[] = {
      {Field::kRax, "RAX"}, {Field::kRbx, "RBX"},         {Field::kRcx, "RCX"},   {Field::kRdx, "RDX"},
      {Field::kCpl, "CPL"}, {Field::kScratch, "scratch"}, {Field::kXcr0, "XCR0"}, {Field::kExitInfo2, "exit_info_2"},
  };
  std::string text;
  ValidBitmap named{};
  for (const auto& [field, name] : kNames) {
    if (!fields.has(field)) continue;
    text += (text.empty() ? "" : ", ") + std::string(name);
    named.set(field);
  }
  REQUIRE(named == fields);  // a field without a name here
  return text;
}

std::string table() {
  std::ostringstream text;
  text << "| code | event | must be valid | effect | answer brings |\n|---|---|---|---|---|\n";
  for (const NaeEvent& event : nae_events()) {
    std::string needed = names(event.required);
    for (const Condition& condition : event.also) {
      if (condition.holds == nullptr) continue;
      needed += (needed.empty() ? "" : "; ") + std::string(condition.when) + ": " + names(condition.fields);
    }
    text << "| 0x" << std::hex << event.code << std::dec << " | " << exit_name(event.code) << " | " << needed << " | "
         << event.effect << " | " << names(event.returned) << " |\n";
  }
  return text.str();
}

}  // namespace

TEST_CASE("docs/nae-events.md has the table of the code") {
  std::ifstream file(SEVISOR_SOURCE_DIR "/docs/nae-events.md");
  const std::string text{std::istreambuf_iterator<char>(file), {}};
  const std::size_t begin = text.find(kBegin);
  const std::size_t end = text.find(kEnd);
  REQUIRE(begin != std::string::npos);
  REQUIRE(end != std::string::npos);
  const std::size_t from = begin + std::char_traits<char>::length(kBegin);
  INFO("the table as it must be:\n" << table());
  CHECK(text.substr(from, end - from) == table());
}

TEST_CASE("each event has a name and an effect") {
  for (const NaeEvent& event : nae_events()) {
    CHECK(exit_name(event.code) != "unknown");
    CHECK_FALSE(event.effect.empty());
    CHECK(find_nae_event(event.code) == &event);
  }
  CHECK(find_nae_event(kExitHlt) == nullptr);
}
