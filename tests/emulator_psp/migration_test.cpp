// A guest goes from one platform to another, with real encryption on both: memory and VMSA arrive whole, tampering
// shows.
#include <algorithm>
#include <catch2/catch.hpp>
#include <cstring>
#include <map>
#include <memory>
#include <sys/mman.h>
#include <vector>

#include "base/mapping.hpp"
#include "emulator/memory/guest_memory.hpp"
#include "emulator/psp/platform_identity.hpp"
#include "emulator/psp/secure_processor.hpp"
#include "sev/certificate_chain.hpp"
#include "sev/policy.hpp"

using namespace sevisor;
using namespace sevisor::emulator;
using Status = sev::FirmwareStatus;
using psp::Command;

namespace {

std::uint64_t address_of(const void* pointer) { return reinterpret_cast<std::uintptr_t>(pointer); }

struct Controller : MemoryController {
  std::map<std::uint32_t, GuestMemory> guests;
  void install_key(std::uint32_t asid, const Key128& key, const Key128& tweak_key) override {
    guests[asid].set_key(key, tweak_key);
  }
  void remove_key(std::uint32_t asid) override { guests[asid].clear_key(); }
  void encrypt_in_place(std::uint32_t asid, std::span<std::byte> memory) override {
    guests[asid].encrypt_host(memory.data(), memory.size());
  }
  void decrypt(std::uint32_t asid, std::span<const std::byte> memory, std::span<std::byte> plain) override {
    guests[asid].decrypt_host(memory.data(), plain);
  }
  void store(std::uint32_t asid, std::span<std::byte> memory, std::span<const std::byte> plain) override {
    guests[asid].store_private(memory.data(), plain);
  }
};

constexpr std::size_t kPages = 3;  // the last one is a VMSA
constexpr std::size_t kVmsaAt = 2 * kPageSize;

struct Machine {
  explicit Machine(std::uint64_t seed, std::shared_ptr<const PlatformIdentity> identity = nullptr)
      : psp(seed, {.max_asid = 4, .min_plain_sev_asid = 3}, memory, std::move(identity)) {
    psp::Init init{.options = 1, .reserved = 0, .tmr_address = 1 << 20, .tmr_length = 1 << 20};
    REQUIRE(psp.run(Command::kInit, init) == Status::kSuccess);
    psp::PdhCertExport command{};
    command.pdh_address = address_of(pdh.data());
    command.pdh_length = static_cast<std::uint32_t>(pdh.size());
    command.chain_address = address_of(chain.data());
    command.chain_length = static_cast<std::uint32_t>(chain.size());
    REQUIRE(psp.run(Command::kPdhCertExport, command) == Status::kSuccess);
  }
  Status on_handle(Command command) {
    psp::HandleOnly only{handle};
    return psp.run(command, only);
  }
  void activate(std::uint32_t asid_) {
    asid = asid_;
    psp::Activate command{.handle = handle, .asid = asid};
    REQUIRE(psp.run(Command::kActivate, command) == Status::kSuccess);
  }
  Status region(Command command, std::size_t at, std::uint32_t length) {
    psp::LaunchRegion buffer{.handle = handle, .reserved = 0, .address = address_of(ram.data() + at), .length = length};
    return psp.run(command, buffer);
  }
  std::vector<std::byte> plaintext() {
    std::vector<std::byte> plain(ram.size());
    memory.guests[asid].decrypt_host(ram.data(), plain);
    return plain;
  }
  std::uint8_t state() {
    psp::GuestStatus status{};
    status.handle = handle;
    REQUIRE(psp.run(Command::kGuestStatus, status) == Status::kSuccess);
    return status.state;
  }

  Controller memory;
  SecureProcessor psp;
  std::vector<std::byte> pdh = std::vector<std::byte>(sev::kCertificateSize);
  std::vector<std::byte> chain = std::vector<std::byte>(sev::kPlatformCertificatesSize);
  Mapping ram = Mapping::anonymous(kPages * kPageSize, PROT_READ | PROT_WRITE);
  std::uint32_t handle = 0;
  std::uint32_t asid = 0;
};

struct Sent {
  std::vector<std::byte> header = std::vector<std::byte>(52);
  std::vector<std::byte> data;
};

const std::vector<std::byte>& contents() {
  static const std::vector<std::byte> kBytes = [] {
    std::vector<std::byte> bytes(kPages * kPageSize);
    for (std::size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<std::byte>(i * 7 + i / 256);
    return bytes;
  }();
  return kBytes;
}

struct TwoPlatforms {
  explicit TwoPlatforms(std::uint32_t policy_ = sev::kPolicyEs) : policy(policy_) {
    psp::LaunchStart start{};
    start.policy = policy;
    REQUIRE(from.psp.run(Command::kLaunchStart, start) == Status::kSuccess);
    from.handle = start.handle;
    from.activate(1);
    const auto& bytes = contents();
    std::memcpy(from.ram.data(), bytes.data(), bytes.size());
    REQUIRE(from.region(Command::kLaunchUpdateData, 0, 2 * kPageSize) == Status::kSuccess);
    REQUIRE(from.region(Command::kLaunchUpdateVmsa, kVmsaAt, kPageSize) == Status::kSuccess);
    std::array<std::byte, 48> blob;
    psp::LaunchRegion measure{.handle = from.handle, .reserved = 0, .address = address_of(blob.data()), .length = 48};
    REQUIRE(from.psp.run(Command::kLaunchMeasure, measure) == Status::kSuccess);
    REQUIRE(from.on_handle(Command::kLaunchFinish) == Status::kSuccess);
  }
  psp::SendStart send_start_command() {
    psp::SendStart command{};
    command.handle = from.handle;
    command.pdh_address = address_of(to.pdh.data());
    command.pdh_length = static_cast<std::uint32_t>(to.pdh.size());
    command.platform_certificates_address = address_of(to.chain.data());
    command.platform_certificates_length = static_cast<std::uint32_t>(to.chain.size());
    command.amd_certificates_address = address_of(amd.data());
    command.amd_certificates_length = static_cast<std::uint32_t>(amd.size());
    command.session_address = address_of(session.data());
    command.session_length = static_cast<std::uint32_t>(session.size());
    return command;
  }
  Status send_start() {
    auto command = send_start_command();
    const Status status = from.psp.run(Command::kSendStart, command);
    sent_policy = command.policy;
    return status;
  }
  Status receive_start(std::uint32_t with_policy) {
    psp::LaunchStart command{};
    command.policy = with_policy;
    command.dh_address = address_of(from.pdh.data());
    command.dh_length = static_cast<std::uint32_t>(from.pdh.size());
    command.session_address = address_of(session.data());
    command.session_length = static_cast<std::uint32_t>(session.size());
    const Status status = to.psp.run(Command::kReceiveStart, command);
    to.handle = command.handle;
    return status;
  }
  psp::Packet packet(Machine& machine, std::size_t at, std::uint32_t length, Sent& sent) {
    return {.handle = machine.handle,
            .reserved1 = 0,
            .header_address = address_of(sent.header.data()),
            .header_length = static_cast<std::uint32_t>(sent.header.size()),
            .reserved2 = 0,
            .guest_address = address_of(machine.ram.data() + at),
            .guest_length = length,
            .reserved3 = 0,
            .packet_address = address_of(sent.data.data()),
            .packet_length = static_cast<std::uint32_t>(sent.data.size())};
  }
  Sent send(Command command, std::size_t at, std::uint32_t length) {
    Sent sent;
    sent.data.resize(length);
    auto buffer = packet(from, at, length, sent);
    REQUIRE(from.psp.run(command, buffer) == Status::kSuccess);
    return sent;
  }
  Status receive(Command command, std::size_t at, Sent& sent) {
    auto buffer = packet(to, at, static_cast<std::uint32_t>(sent.data.size()), sent);
    return to.psp.run(command, buffer);
  }
  void connect() {
    REQUIRE(send_start() == Status::kSuccess);
    REQUIRE(receive_start(policy) == Status::kSuccess);
    to.activate(2);
  }

  std::uint32_t policy;
  Machine from{1};
  Machine to{2};
  std::vector<std::byte> amd = std::vector<std::byte>(16);  // looked at only when the policy wants it
  std::vector<std::byte> session = std::vector<std::byte>(128);
  std::uint32_t sent_policy = 0;
};

}  // namespace

TEST_CASE_METHOD(TwoPlatforms, "memory and VMSA arrive whole on another platform, under another key") {
  connect();
  CHECK(sent_policy == policy);
  CHECK(from.state() == 4);
  CHECK(to.state() == 5);
  Sent first = send(Command::kSendUpdateData, 0, kPageSize);
  Sent second = send(Command::kSendUpdateData, kPageSize, kPageSize);
  Sent vmsa = send(Command::kSendUpdateVmsa, kVmsaAt, kPageSize);
  CHECK_FALSE(std::ranges::equal(first.data, std::span(contents()).first(kPageSize)));
  CHECK(receive(Command::kReceiveUpdateData, kPageSize, second) == Status::kSuccess);
  CHECK(receive(Command::kReceiveUpdateData, 0, first) == Status::kSuccess);
  CHECK(receive(Command::kReceiveUpdateVmsa, kVmsaAt, vmsa) == Status::kSuccess);
  CHECK(to.on_handle(Command::kReceiveFinish) == Status::kSuccess);
  CHECK(from.on_handle(Command::kSendFinish) == Status::kSuccess);
  CHECK(to.plaintext() == contents());
  CHECK(std::memcmp(to.ram.data(), from.ram.data(), to.ram.size()) != 0);
  CHECK(to.state() == 3);
  // The source is over: nothing but taking it down.
  CHECK(from.state() == 6);
  CHECK(from.on_handle(Command::kSendCancel) == Status::kInvalidGuestState);
  CHECK(send_start() == Status::kInvalidGuestState);
  CHECK(from.on_handle(Command::kDeactivate) == Status::kSuccess);
  CHECK(from.on_handle(Command::kDecommission) == Status::kSuccess);
  CHECK(to.on_handle(Command::kReceiveFinish) == Status::kInvalidGuestState);
}

TEST_CASE_METHOD(TwoPlatforms, "a byte changed on the way is refused, and a packet used as what it is not") {
  connect();
  Sent sent = send(Command::kSendUpdateData, 0, 64);
  Sent vmsa = send(Command::kSendUpdateVmsa, kVmsaAt, kPageSize);
  const std::vector<std::byte> before = to.plaintext();
  for (std::size_t at = 0; at < sent.data.size(); ++at) {
    sent.data[at] ^= std::byte{0x10};
    CHECK(receive(Command::kReceiveUpdateData, 0, sent) == Status::kBadMeasurement);
    sent.data[at] ^= std::byte{0x10};
  }
  for (std::size_t at = 4; at < sent.header.size(); ++at) {  // IV and MAC
    sent.header[at] ^= std::byte{1};
    CHECK(receive(Command::kReceiveUpdateData, 0, sent) == Status::kBadMeasurement);
    sent.header[at] ^= std::byte{1};
  }
  sent.header[0] = std::byte{1};
  CHECK(receive(Command::kReceiveUpdateData, 0, sent) == Status::kUnsupported);
  sent.header[0] = std::byte{0};
  CHECK(receive(Command::kReceiveUpdateData, 0, vmsa) == Status::kBadMeasurement);
  CHECK(receive(Command::kReceiveUpdateVmsa, 0, sent) == Status::kInvalidLength);
  CHECK(to.plaintext() == before);
  CHECK(receive(Command::kReceiveUpdateData, 0, sent) == Status::kSuccess);
}

TEST_CASE_METHOD(TwoPlatforms, "the session is for one platform, one policy") {
  REQUIRE(send_start() == Status::kSuccess);
  CHECK(receive_start(policy | sev::kPolicyNoDebug) == Status::kBadMeasurement);
  for (const std::size_t at : {0u, 16u, 48u, 64u, 96u, 127u}) {
    session[at] ^= std::byte{1};
    CHECK(receive_start(policy) == Status::kBadMeasurement);
    session[at] ^= std::byte{1};
  }
  std::swap(from.pdh, to.pdh);
  CHECK(receive_start(policy) == Status::kBadMeasurement);
  std::swap(from.pdh, to.pdh);
  CHECK(receive_start(policy) == Status::kSuccess);
}

TEST_CASE_METHOD(TwoPlatforms, "lengths are told to whoever asks") {
  auto command = send_start_command();
  command.session_length = 0;
  CHECK(from.psp.run(Command::kSendStart, command) == Status::kInvalidLength);
  CHECK(+command.session_length == 128);
  connect();
  Sent sent;
  sent.data.resize(64);
  auto buffer = packet(from, 0, 64, sent);
  buffer.header_length = 0;
  CHECK(from.psp.run(Command::kSendUpdateData, buffer) == Status::kInvalidLength);
  CHECK(+buffer.header_length == 52);
  buffer.packet_length = 48;
  CHECK(from.psp.run(Command::kSendUpdateData, buffer) == Status::kInvalidLength);
  CHECK(+buffer.packet_length == 64);
  buffer.guest_address += 4;
  CHECK(from.psp.run(Command::kSendUpdateData, buffer) == Status::kInvalidAddress);
}

TEST_CASE_METHOD(TwoPlatforms, "a send that is cancelled leaves the guest running") {
  REQUIRE(send_start() == Status::kSuccess);
  CHECK(from.region(Command::kLaunchUpdateData, 0, 16) == Status::kInvalidGuestState);
  CHECK(from.on_handle(Command::kSendCancel) == Status::kSuccess);
  CHECK(from.state() == 3);
  CHECK(from.plaintext() == contents());
  CHECK(send_start() == Status::kSuccess);
}

TEST_CASE("the policy says where a guest may go") {
  SECTION("nowhere") {
    TwoPlatforms world(sev::kPolicyEs | sev::kPolicyNoSend);
    CHECK(world.send_start() == Status::kPolicyFailure);
  }
  SECTION("within its domain: platforms of one owner") {
    TwoPlatforms world(sev::kPolicyEs | sev::kPolicyDomain);
    CHECK(world.send_start() == Status::kPolicyFailure);
    world.to.pdh = world.from.pdh;
    world.to.chain = world.from.chain;
    CHECK(world.send_start() == Status::kSuccess);
  }
  SECTION("to platforms whose maker vouches for them") {
    TwoPlatforms world(sev::kPolicyEs | sev::kPolicySev);
    CHECK(world.send_start() == Status::kInvalidCertificate);
    const auto identity = std::make_shared<const PlatformIdentity>(make_platform_identity());
    const Machine real(3, identity);
    world.to.pdh = real.pdh;
    world.to.chain = real.chain;
    const auto put_makers = [&](const PlatformIdentity& maker) {
      world.amd.assign(maker.ask.bytes().begin(), maker.ask.bytes().end());
      world.amd.insert(world.amd.end(), maker.ark.bytes().begin(), maker.ark.bytes().end());
    };
    put_makers(make_platform_identity());
    CHECK(world.send_start() == Status::kBadSignature);
    put_makers(*identity);
    CHECK(world.send_start() == Status::kSuccess);
  }
  SECTION("to firmware that is new enough") {
    TwoPlatforms world(sev::kPolicyEs | 1U << sev::kPolicyApiMajorShift | 55U << sev::kPolicyApiMinorShift);
    // A platform like ours with older firmware: its PDH says so.
    const auto key = [] { return sev::PrivateKey::make_ec(sev::Curve::kP384); };
    const sev::PrivateKey cek_key = key();
    const ChipKeys chip{
        {}, make_platform_certificate(sev::KeyUsage::kCek, sev::KeyAlgorithm::kEcdsaSha256, cek_key), cek_key};
    const PlatformKeys keys = make_platform_keys(chip, key);
    const auto use = [&](std::uint8_t minor) {
      auto pdh = sev::Certificate::make(sev::KeyUsage::kPdh, sev::KeyAlgorithm::kEcdhSha256, keys.pdh_key, 1, minor);
      pdh.sign(sev::KeyUsage::kPek, sev::KeyAlgorithm::kEcdsaSha256, keys.pek_key);
      std::ranges::copy(pdh.bytes(), world.to.pdh.begin());
      auto to = world.to.chain.begin();
      for (const auto* certificate : {&keys.pek, &keys.oca, &chip.cek}) {
        to = std::ranges::copy(certificate->bytes(), to).out;
      }
    };
    use(54);
    CHECK(world.send_start() == Status::kPolicyFailure);
    use(55);
    CHECK(world.send_start() == Status::kSuccess);
  }
}

TEST_CASE_METHOD(TwoPlatforms, "certificates that do not belong together are refused") {
  const Machine third(3);
  const auto good = to.chain;
  std::copy(third.pdh.begin(), third.pdh.end(), to.pdh.begin());
  CHECK(send_start() == Status::kBadSignature);  // its PDH, another's PEK
  to.chain = third.chain;
  std::copy_n(good.begin() + 2084, 2084, to.chain.begin() + 2084);
  CHECK(send_start() == Status::kBadSignature);  // another's OCA
  to.chain[0] = std::byte{9};
  CHECK(send_start() == Status::kInvalidCertificate);
  CHECK(from.state() == 3);
}

TEST_CASE_METHOD(TwoPlatforms, "ATTESTATION reports the launch digest, signed by the PEK") {
  std::vector<std::byte> report(208);
  psp::Attestation command{};
  command.handle = from.handle;
  std::fill(std::begin(command.mnonce), std::end(command.mnonce), std::uint8_t{0x5a});
  CHECK(from.psp.run(Command::kAttestation, command) == Status::kInvalidLength);
  CHECK(+command.length == 208);
  command.address = address_of(report.data());
  REQUIRE(from.psp.run(Command::kAttestation, command) == Status::kSuccess);
  const auto part = [&](std::size_t at, std::size_t size) {
    return std::span<const std::byte>(report).subspan(at, size);
  };
  CHECK(std::ranges::all_of(part(0, 16), [](std::byte b) { return b == std::byte{0x5a}; }));
  CHECK(std::ranges::equal(part(16, 32), sev::sha256(contents())));
  CHECK(load<std::uint32_t>(&report[48]) == policy);
  CHECK(load<std::uint32_t>(&report[52]) == 0x1002);
  CHECK(load<std::uint32_t>(&report[56]) == 2);
  sev::EcSignature signature;
  std::ranges::copy(part(64, 72), signature.r.begin());
  std::ranges::copy(part(136, 72), signature.s.begin());
  const auto platform = sev::parse_platform_certificates(from.pdh, from.chain);
  CHECK(platform.pek.key().verify(sev::HashKind::kSha256, part(0, 52), signature));
  report[20] ^= std::byte{1};
  CHECK_FALSE(platform.pek.key().verify(sev::HashKind::kSha256, part(0, 52), signature));
}

TEST_CASE_METHOD(TwoPlatforms, "COPY moves private memory where its ciphertext would mean nothing") {
  psp::Copy command{.handle = from.handle,
                    .length = 256,
                    .source = address_of(from.ram.data()),
                    .destination = address_of(from.ram.data() + kPageSize)};
  REQUIRE(from.psp.run(Command::kCopy, command) == Status::kSuccess);
  const auto plain = from.plaintext();
  CHECK(std::ranges::equal(std::span(plain).subspan(kPageSize, 256), std::span(contents()).first(256)));
  CHECK(std::memcmp(from.ram.data(), from.ram.data() + kPageSize, 256) != 0);
  command.length = 8;
  CHECK(from.psp.run(Command::kCopy, command) == Status::kInvalidLength);
}
