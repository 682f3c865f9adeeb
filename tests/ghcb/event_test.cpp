#include "ghcb/event.hpp"

#include <catch2/catch.hpp>

namespace {
using namespace sevisor::ghcb;

TEST_CASE("events as EVENTINJ has them", "[ghcb][event]") {
  REQUIRE(encode(Event{.vector = kVectorGp}) == 0x8000'030d);  // what KVM answers for an unknown MSR
  REQUIRE(encode(Event{.vector = kVectorGp, .has_error_code = true, .error_code = 0x10}) == 0x10'8000'0b0d);
  REQUIRE(encode(Event{.vector = 0x30, .type = EventType::kExternal}) == 0x8000'0030);
  REQUIRE(decode_event(0x10'8000'0b0d) == Event{.vector = kVectorGp, .has_error_code = true, .error_code = 0x10});
  REQUIRE_FALSE(decode_event(0x30d).valid);
}
}  // namespace
