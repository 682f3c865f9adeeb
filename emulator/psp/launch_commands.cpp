// Launching guests. AMD SEV API (55766) chapter 6.
#include <algorithm>
#include <cstddef>
#include <optional>
#include <utility>

#include "base/bytes.hpp"
#include "emulator/psp/call.hpp"
#include "emulator/psp/owner_certificate.hpp"
#include "emulator/psp/secure_processor.hpp"
#include "sev/launch_secret.hpp"
#include "sev/policy.hpp"

namespace sevisor::emulator {

using psp::GuestState;
using psp::PlatformState;
using sev::FirmwareStatus;

std::variant<sev::TransportKeys, FirmwareStatus> SecureProcessor::open_session(const psp::LaunchStart& command) const {
  if (command.dh_address == 0 || command.session_address == 0) return FirmwareStatus::kInvalidAddress;
  if (command.dh_length != sev::kCertificateSize || command.session_length != sev::kSessionSize) {
    return FirmwareStatus::kInvalidLength;
  }
  const auto peer = parse_owner_certificate(memory_at(command.dh_address, sev::kCertificateSize));
  if (!peer) return FirmwareStatus::kInvalidCertificate;
  const auto secret = keys_->pdh_key.shared_secret(*peer);
  if (!secret) return FirmwareStatus::kInvalidCertificate;
  const auto session = memory_at(command.session_address, sev::kSessionSize).first<sev::kSessionSize>();
  auto keys = sev::open_session(*secret, session, command.policy);
  if (!keys) return FirmwareStatus::kBadMeasurement;
  return *std::move(keys);
}

FirmwareStatus SecureProcessor::start_guest(Call& call, GuestState state) {
  auto command = call.in<psp::LaunchStart>();
  const std::uint32_t policy = command.policy;
  if (!api_allowed(policy, kApi.major, kApi.minor) || (policy & sev::kPolicyReserved)) {
    return FirmwareStatus::kPolicyFailure;
  }
  if ((policy & sev::kPolicyEs) && !es_enabled_) return FirmwareStatus::kPolicyFailure;

  Guest guest;
  guest.policy = policy;
  guest.state = state;
  guest.key = random_.key();
  guest.tweak_key = random_.key();
  if (command.handle != 0) {
    const auto other = guests_.find(command.handle);
    if (other == guests_.end()) return FirmwareStatus::kInvalidGuest;
    if ((other->second.policy & sev::kPolicyNoKeyShare) || other->second.policy != policy) {
      return FirmwareStatus::kPolicyFailure;
    }
    guest.key = other->second.key;
    guest.tweak_key = other->second.tweak_key;
  }
  if (state == GuestState::kReceiveUpdate || command.dh_address != 0 || command.session_address != 0) {
    auto keys = open_session(command);
    if (const auto* failure = std::get_if<FirmwareStatus>(&keys)) return *failure;
    guest.transport = std::get<sev::TransportKeys>(keys);
  } else {
    random_.fill(*guest.transport.tek);
    random_.fill(*guest.transport.tik);
  }
  command.handle = next_handle_++;
  guests_.emplace(command.handle, std::move(guest));
  state_ = PlatformState::kWorking;
  call.out(command);
  return FirmwareStatus::kSuccess;
}

FirmwareStatus SecureProcessor::launch_start(Call& call) { return start_guest(call, GuestState::kLaunchUpdate); }

FirmwareStatus SecureProcessor::launch_update_data(Call& call) {
  const auto command = call.in<psp::LaunchRegion>();
  if (call.guest->asid == 0) return FirmwareStatus::kInactive;
  if (const auto status = check_region(command.address, command.length); status != FirmwareStatus::kSuccess) {
    return status;
  }
  const auto memory = memory_at(command.address, command.length);
  call.guest->digest.update(memory);
  memory_.encrypt_in_place(call.guest->asid, memory);
  return FirmwareStatus::kSuccess;
}

FirmwareStatus SecureProcessor::launch_update_vmsa(Call& call) {
  if (!(call.guest->policy & sev::kPolicyEs)) return FirmwareStatus::kPolicyFailure;
  if (call.in<psp::LaunchRegion>().length != kVmsaBytes) return FirmwareStatus::kInvalidLength;
  return launch_update_data(call);
}

FirmwareStatus SecureProcessor::launch_measure(Call& call) {
  auto command = call.in<psp::LaunchRegion>();
  Guest& guest = *call.guest;
  if (command.length < sev::kMeasurementSize) {
    command.length = sev::kMeasurementSize;
    call.out(command);
    return FirmwareStatus::kInvalidLength;
  }
  if (command.address == 0) return FirmwareStatus::kInvalidAddress;
  const sev::Nonce nonce = random_.key();
  guest.launch_digest = guest.digest.finish();
  const sev::Measurement blob =
      sev::make_measurement(*guest.transport.tik, kApi, guest.policy, guest.launch_digest, nonce);
  guest.measurement = blob;
  std::copy(blob.begin(), blob.end(), memory_at(command.address, blob.size()).begin());
  command.length = sev::kMeasurementSize;
  guest.state = GuestState::kLaunchSecret;
  call.out(command);
  return FirmwareStatus::kSuccess;
}

FirmwareStatus SecureProcessor::launch_secret(Call& call) {
  const auto command = call.in<psp::Packet>();
  Guest& guest = *call.guest;
  if (guest.asid == 0) return FirmwareStatus::kInactive;
  if (const auto status = check_region(command.guest_address, command.guest_length);
      status != FirmwareStatus::kSuccess) {
    return status;
  }
  if (command.header_address == 0 || command.packet_address == 0) return FirmwareStatus::kInvalidAddress;
  sev::SecretPacket packet;
  if (command.header_length != packet.header.size() || command.packet_length != command.guest_length) {
    return FirmwareStatus::kInvalidLength;
  }
  std::ranges::copy(memory_at(command.header_address, packet.header.size()), packet.header.begin());
  if (load<std::uint32_t>(packet.header.data()) != 0) return FirmwareStatus::kUnsupported;  // bit 0: compression
  const auto payload = memory_at(command.packet_address, command.packet_length);
  packet.payload.assign(payload.begin(), payload.end());
  const auto plain = sev::open_secret(guest.transport, kApi, guest.measurement, packet);
  if (!plain) return FirmwareStatus::kBadMeasurement;
  memory_.store(guest.asid, memory_at(command.guest_address, command.guest_length), *plain);
  return FirmwareStatus::kSuccess;
}

FirmwareStatus SecureProcessor::launch_finish(Call& call) {
  call.guest->transport = {};
  call.guest->state = GuestState::kRunning;
  return FirmwareStatus::kSuccess;
}

namespace {
// ATTESTATION's answer. SEV API table "Attestation report"; as the virtee/sev crate reads it.
#pragma pack(push, 1)
struct AttestationReport {
  std::uint8_t mnonce[16];
  sev::Digest launch_digest;
  std::uint32_t policy;
  std::uint32_t signature_usage;  // sev::KeyUsage, kPek
  std::uint32_t signature_algorithm;
  std::uint32_t reserved;
  std::byte r[72];  // of the signature over all before signature_usage; little-endian
  std::byte s[72];
};
#pragma pack(pop)
static_assert(sizeof(AttestationReport) == 208);
}  // namespace

FirmwareStatus SecureProcessor::attestation(Call& call) {
  auto command = call.in<psp::Attestation>();
  const std::uint32_t room = std::exchange(command.length, static_cast<std::uint32_t>(sizeof(AttestationReport)));
  call.out(command);
  if (room < sizeof(AttestationReport)) return FirmwareStatus::kInvalidLength;
  if (command.address == 0) return FirmwareStatus::kInvalidAddress;
  AttestationReport report{};
  std::ranges::copy(command.mnonce, report.mnonce);
  report.launch_digest = call.guest->launch_digest;
  report.policy = call.guest->policy;
  report.signature_usage = static_cast<std::uint32_t>(sev::KeyUsage::kPek);
  report.signature_algorithm = static_cast<std::uint32_t>(sev::KeyAlgorithm::kEcdsaSha256);
  const auto content = std::as_bytes(std::span(&report, 1)).first<offsetof(AttestationReport, signature_usage)>();
  const sev::EcSignature signature = keys_->pek_key.sign(sev::HashKind::kSha256, content);
  std::ranges::copy(signature.r, report.r);
  std::ranges::copy(signature.s, report.s);
  store(memory_at(command.address, sizeof report).data(), report);
  return FirmwareStatus::kSuccess;
}

}  // namespace sevisor::emulator
