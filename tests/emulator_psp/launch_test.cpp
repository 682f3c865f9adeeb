#include <catch2/catch.hpp>
#include <cstring>
#include <string_view>

#include "sev/measurement.hpp"
#include "tests/emulator_psp/fixture.hpp"
#include "tests/emulator_psp/guest_owner.hpp"

using namespace sevisor;
using namespace sevisor::emulator;
using namespace sevisor::test;

namespace {

constexpr std::uint32_t kPolicy = 5;  // NODBG, ES

struct Launch : PspFixture {
  GuestOwner owner;
  std::uint32_t handle = 0;
  sev::Measurement blob{};

  Launch() { REQUIRE(init() == Status::kSuccess); }

  Status start_with(std::span<const std::byte> certificate, std::span<const std::byte> session, std::uint32_t policy) {
    psp::LaunchStart command{};
    command.policy = policy;
    command.dh_address = address_of(certificate.data());
    command.dh_length = static_cast<std::uint32_t>(certificate.size());
    command.session_address = address_of(session.data());
    command.session_length = static_cast<std::uint32_t>(session.size());
    const Status result = PspFixture::psp.run(Command::kLaunchStart, command);
    handle = command.handle;
    return result;
  }
  void launch_to_measurement() {
    REQUIRE(start_with(owner.certificate(), owner.session(psp.pdh(), kPolicy), kPolicy) == Status::kSuccess);
    REQUIRE(activate(handle, 1) == Status::kSuccess);
    std::memcpy(ram.data(), "firmware", 8);
    REQUIRE(region(Command::kLaunchUpdateData, handle, address_of(ram.data()), 32) == Status::kSuccess);
    REQUIRE(region(Command::kLaunchUpdateVmsa, handle, address_of(ram.data()) + 4096, 4096) == Status::kSuccess);
    REQUIRE(region(Command::kLaunchMeasure, handle, address_of(blob.data()), 48) == Status::kSuccess);
  }
};

}  // namespace

TEST_CASE_METHOD(Launch, "the measurement is what the owner computes of what was loaded, under the owner's TIK") {
  launch_to_measurement();
  std::vector<std::byte> loaded(32 + 4096);
  std::memcpy(loaded.data(), "firmware", 8);
  sev::Nonce nonce;
  std::copy_n(blob.begin() + 32, 16, nonce.begin());
  const auto hmac = sev::measurement_hmac(*owner.keys.tik, SecureProcessor::kApi, kPolicy, sev::sha256(loaded), nonce);
  CHECK(std::equal(hmac.begin(), hmac.end(), blob.begin()));
  CHECK(ram[0] == ~std::byte{'f'});  // and it was encrypted in place
}

TEST_CASE_METHOD(Launch, "a secret for this launch arrives, one for another does not") {
  launch_to_measurement();
  constexpr std::string_view kSecret = "sixteen bytes :)";
  const auto secret = std::as_bytes(std::span(kSecret));
  auto packet = owner.pack(secret, blob);
  psp::Packet command{};
  command.handle = handle;
  command.header_address = address_of(packet.header.data());
  command.header_length = 52;
  command.guest_address = address_of(ram.data()) + 64;
  command.guest_length = 16;
  command.packet_address = address_of(packet.payload.data());
  command.packet_length = 16;
  const auto send = [&] { return psp.run(Command::kLaunchSecret, command); };

  packet.header[4] ^= std::byte{1};  // IV
  CHECK(send() == Status::kBadMeasurement);
  packet.header[4] ^= std::byte{1};
  packet.payload[3] ^= std::byte{1};
  CHECK(send() == Status::kBadMeasurement);
  packet.payload[3] ^= std::byte{1};
  command.guest_address += 8;
  CHECK(send() == Status::kInvalidAddress);
  command.guest_address -= 8;
  command.guest_length = 32;
  CHECK(send() == Status::kInvalidLength);
  command.guest_length = 16;
  CHECK(send() == Status::kSuccess);
  for (std::size_t i = 0; i < 16; ++i) CHECK(ram[64 + i] == ~secret[i]);

  packet = owner.pack(secret, sev::Measurement{});
  command.header_address = address_of(packet.header.data());
  command.packet_address = address_of(packet.payload.data());
  CHECK(send() == Status::kBadMeasurement);
  CHECK(on_handle(Command::kLaunchFinish, handle) == Status::kSuccess);
  CHECK(send() == Status::kInvalidGuestState);
}

TEST_CASE_METHOD(Launch, "a session is for one platform, one policy and one certificate") {
  auto certificate = owner.certificate();
  const auto session = owner.session(psp.pdh(), kPolicy);
  CHECK(start_with(certificate, session, kPolicy | 8) == Status::kBadMeasurement);
  CHECK(start_with(certificate, owner.session(owner.key.public_key(), kPolicy), kPolicy) == Status::kBadMeasurement);
  CHECK(start_with(std::span(certificate).first(2083), session, kPolicy) == Status::kInvalidLength);
  CHECK(start_with(certificate, std::span(session).first(127), kPolicy) == Status::kInvalidLength);
  certificate[20] ^= std::byte{1};
  CHECK(start_with(certificate, session, kPolicy) == Status::kInvalidCertificate);
  CHECK(psp.state() == psp::PlatformState::kInit);
}

TEST_CASE_METHOD(Launch, "debugging shows plaintext, unless the policy forbids it") {
  handle = start(4);
  REQUIRE(activate(handle, 1) == Status::kSuccess);
  std::array<std::byte, 32> out{};
  psp::Dbg command{.handle = handle,
                   .reserved = 0,
                   .source = address_of(ram.data()),
                   .destination = address_of(out.data()),
                   .length = 32};
  CHECK(psp.run(Command::kDbgDecrypt, command) == Status::kSuccess);
  CHECK(out[0] == std::byte{0xff});
  command.source += 1;
  CHECK(psp.run(Command::kDbgDecrypt, command) == Status::kInvalidAddress);
  command.handle = start(5);
  CHECK(psp.run(Command::kDbgDecrypt, command) == Status::kPolicyFailure);
  CHECK(psp.run(Command::kDbgEncrypt, command) == Status::kPolicyFailure);
}
