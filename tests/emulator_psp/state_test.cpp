#include <catch2/catch.hpp>

#include "tests/emulator_psp/fixture.hpp"

using namespace sevisor;
using namespace sevisor::emulator;
using namespace sevisor::test;

TEST_CASE_METHOD(PspFixture, "INIT checks the memory region that SEV-ES needs") {
  psp::Init command{.options = 1, .reserved = 0, .tmr_address = 0, .tmr_length = 1 << 20};
  CHECK(psp.run(Command::kInit, command) == Status::kInvalidAddress);
  command.tmr_address = 0x1000;
  CHECK(psp.run(Command::kInit, command) == Status::kInvalidAddress);
  command.tmr_address = 1 << 20;
  command.tmr_length = 1 << 19;
  CHECK(psp.run(Command::kInit, command) == Status::kInvalidLength);
  command = {.options = 0, .reserved = 0, .tmr_address = 0, .tmr_length = 0};
  CHECK(psp.run(Command::kInit, command) == Status::kSuccess);
  CHECK(start(4) == 0);  // ES was not enabled
  CHECK(status == Status::kPolicyFailure);
}

TEST_CASE_METHOD(PspFixture, "the platform says what it is") {
  psp::PlatformStatus platform{};
  REQUIRE(psp.run(Command::kPlatformStatus, platform) == Status::kSuccess);
  // The fields are packed: + makes copies of them.
  CHECK(+platform.state == 0);
  CHECK(+platform.flags == 0);
  REQUIRE(init() == Status::kSuccess);
  CHECK(init() == Status::kInvalidPlatformState);
  REQUIRE(start() != 0);
  REQUIRE(psp.run(Command::kPlatformStatus, platform) == Status::kSuccess);
  CHECK(+platform.api_major == 1);
  CHECK(+platform.api_minor == 55);
  CHECK(+platform.state == 2);
  CHECK(+platform.flags == 0x100);
  CHECK(+platform.guest_count == 1);
}

TEST_CASE_METHOD(PspFixture, "commands outside their platform state are refused before anything is looked at") {
  CHECK(start() == 0);
  CHECK(status == Status::kInvalidPlatformState);
  CHECK(on_handle(Command::kLaunchFinish, 1) == Status::kInvalidPlatformState);
  CHECK(psp.run(Command::kDfFlush) == Status::kInvalidPlatformState);
  REQUIRE(init() == Status::kSuccess);
  CHECK(psp.run(Command::kPlatformReset) == Status::kInvalidPlatformState);
  CHECK(on_handle(Command::kLaunchFinish, 1) == Status::kInvalidPlatformState);
  REQUIRE(start() != 0);
  CHECK(on_handle(Command::kLaunchFinish, 99) == Status::kInvalidGuest);
  CHECK(psp.run(static_cast<Command>(0x99)) == Status::kInvalidCommand);
  CHECK(psp.run(Command::kLaunchFinish) == Status::kInvalidLength);
}

TEST_CASE_METHOD(PspFixture, "a guest goes through its states in order") {
  REQUIRE(init() == Status::kSuccess);
  const std::uint32_t handle = start();
  const std::uint64_t at = address_of(ram.data());
  CHECK(region(Command::kLaunchUpdateData, handle, at, 16) == Status::kInactive);
  REQUIRE(activate(handle, 1) == Status::kSuccess);
  CHECK(on_handle(Command::kLaunchFinish, handle) == Status::kInvalidGuestState);
  CHECK(region(Command::kLaunchUpdateData, handle, at + 8, 16) == Status::kInvalidAddress);
  CHECK(region(Command::kLaunchUpdateData, handle, at, 8) == Status::kInvalidLength);
  CHECK(region(Command::kLaunchUpdateData, handle, at, 0) == Status::kInvalidLength);
  CHECK(region(Command::kLaunchUpdateData, handle, at, 16) == Status::kSuccess);
  CHECK(region(Command::kLaunchUpdateVmsa, handle, at, 16) == Status::kInvalidLength);
  CHECK(region(Command::kLaunchMeasure, handle, 0, 0) == Status::kInvalidLength);
  CHECK(returned_length == 48);
  CHECK(region(Command::kLaunchMeasure, handle, at, 256) == Status::kSuccess);
  CHECK(returned_length == 48);
  CHECK(region(Command::kLaunchUpdateData, handle, at, 16) == Status::kInvalidGuestState);
  CHECK(region(Command::kLaunchMeasure, handle, at, 48) == Status::kInvalidGuestState);
  CHECK(on_handle(Command::kLaunchFinish, handle) == Status::kSuccess);
  psp::GuestStatus guest{};
  guest.handle = handle;
  REQUIRE(psp.run(Command::kGuestStatus, guest) == Status::kSuccess);
  CHECK(+guest.state == 3);
  CHECK(+guest.policy == 5);
  CHECK(+guest.asid == 1);
}

TEST_CASE_METHOD(PspFixture, "the policy is held to") {
  REQUIRE(init() == Status::kSuccess);
  CHECK(start(5 | 1 << 6) == 0);  // reserved bit
  CHECK(status == Status::kPolicyFailure);
  CHECK(start(5 | 56u << 24 | 1u << 16) == 0);  // wants API 1.56
  CHECK(status == Status::kPolicyFailure);
  CHECK(start(5 | 55u << 24 | 1u << 16) != 0);
  const std::uint32_t plain = start(1);
  REQUIRE(plain != 0);
  REQUIRE(activate(plain, 3) == Status::kSuccess);
  CHECK(region(Command::kLaunchUpdateVmsa, plain, address_of(ram.data()), 4096) == Status::kPolicyFailure);
}

TEST_CASE_METHOD(PspFixture, "a key is shared only with a guest that allows it") {
  REQUIRE(init() == Status::kSuccess);
  const std::uint32_t closed = start(4 | 2);
  const std::uint32_t open = start(4);
  psp::LaunchStart command{};
  command.policy = 4 | 2;
  command.handle = closed;
  CHECK(psp.run(Command::kLaunchStart, command) == Status::kPolicyFailure);
  command.policy = 4;
  command.handle = 77;
  CHECK(psp.run(Command::kLaunchStart, command) == Status::kInvalidGuest);
  command.handle = open;
  REQUIRE(psp.run(Command::kLaunchStart, command) == Status::kSuccess);
  REQUIRE(activate(open, 1) == Status::kSuccess);
  REQUIRE(activate(command.handle, 2) == Status::kSuccess);
  CHECK(memory.keys[1] == memory.keys[2]);
}

TEST_CASE_METHOD(PspFixture, "ASIDs: range, owner, and the flush between two owners") {
  REQUIRE(init() == Status::kSuccess);
  const std::uint32_t a = start(4);
  const std::uint32_t b = start(4);
  const std::uint32_t plain = start(0);
  CHECK(activate(a, 0) == Status::kInvalidAsid);
  CHECK(activate(a, 5) == Status::kInvalidAsid);
  CHECK(activate(plain, 2) == Status::kInvalidAsid);
  CHECK(activate(a, 1) == Status::kSuccess);
  CHECK(activate(a, 2) == Status::kActive);
  CHECK(activate(b, 1) == Status::kAsidOwned);
  CHECK(on_handle(Command::kDecommission, a) == Status::kActive);
  CHECK(memory.keys.contains(1));
  CHECK(on_handle(Command::kDeactivate, a) == Status::kSuccess);
  CHECK_FALSE(memory.keys.contains(1));
  CHECK(on_handle(Command::kDeactivate, a) == Status::kInactive);
  CHECK(activate(b, 1) == Status::kWbinvdRequired);
  CHECK(psp.run(Command::kDfFlush) == Status::kWbinvdRequired);
  psp.caches_written_back();
  CHECK(activate(b, 1) == Status::kDfFlushRequired);
  CHECK(psp.run(Command::kDfFlush) == Status::kSuccess);
  CHECK(activate(b, 1) == Status::kSuccess);
  CHECK(on_handle(Command::kDeactivate, b) == Status::kSuccess);
  for (const std::uint32_t handle : {a, b, plain}) CHECK(on_handle(Command::kDecommission, handle) == Status::kSuccess);
  CHECK(psp.state() == psp::PlatformState::kInit);
  CHECK(psp.run(Command::kShutdown) == Status::kSuccess);
  CHECK(psp.state() == psp::PlatformState::kUninit);
}
