// Sending guests to other platforms and receiving them. AMD SEV API (55766) chapter 6, SEND_* and RECEIVE_*. Each
// packet is bound to its session by TIK; nothing says that all packets were received, or in which order: that is the
// two owners' business, as on silicon.
#include <algorithm>
#include <optional>
#include <utility>

#include "base/bytes.hpp"
#include "base/error.hpp"
#include "emulator/psp/call.hpp"
#include "emulator/psp/secure_processor.hpp"
#include "sev/certificate_chain.hpp"
#include "sev/policy.hpp"

namespace sevisor::emulator {

using psp::GuestState;
using sev::FirmwareStatus;
using sev::KeyUsage;

namespace {

constexpr std::size_t kSignedPart = 1044;  // of a certificate: all before its signatures, bytes

std::optional<sev::PlatformCertificates> read_platform(const psp::SendStart& command) {
  try {
    return sev::parse_platform_certificates(
        memory_at(command.pdh_address, command.pdh_length),
        memory_at(command.platform_certificates_address, command.platform_certificates_length));
  } catch (const Error&) {
    return std::nullopt;
  }
}

// ASK, then ARK. Both signed as they should be, by a root that is AMD's or says that it is software's.
FirmwareStatus check_maker(const sev::PlatformCertificates& platform, std::span<const std::byte> certificates) {
  try {
    const sev::RootCertificate ask = sev::RootCertificate::parse(certificates, "ASK");
    const sev::RootCertificate ark = sev::RootCertificate::parse(certificates.subspan(ask.size()), "ARK");
    if (sev::identify_root(ark).kind == sev::RootKind::kUnknown) return FirmwareStatus::kInvalidCertificate;
    const auto steps = sev::check_chain({ark, ask, platform.cek, platform.oca, platform.pek, platform.pdh});
    const bool right = std::ranges::all_of(steps, [](const sev::ChainStep& step) { return step.right; });
    return right ? FirmwareStatus::kSuccess : FirmwareStatus::kBadSignature;
  } catch (const Error&) {
    return FirmwareStatus::kInvalidCertificate;
  }
}

}  // namespace

// The key that the session is to be made with, once it is known whose it is.
std::variant<sev::PublicKey, FirmwareStatus> SecureProcessor::check_receiver(const psp::SendStart& command,
                                                                             std::uint32_t policy) const {
  if (command.pdh_address == 0 || command.platform_certificates_address == 0) return FirmwareStatus::kInvalidAddress;
  if (command.pdh_length != sev::kCertificateSize ||
      command.platform_certificates_length != sev::kPlatformCertificatesSize) {
    return FirmwareStatus::kInvalidLength;
  }
  const auto platform = read_platform(command);
  if (!platform || platform->pdh.usage() != KeyUsage::kPdh || platform->pek.usage() != KeyUsage::kPek ||
      platform->oca.usage() != KeyUsage::kOca || platform->cek.usage() != KeyUsage::kCek) {
    return FirmwareStatus::kInvalidCertificate;
  }
  const sev::PlatformCertificates& to = *platform;
  if (!to.pdh.is_signed_by(KeyUsage::kPek, to.pek.key()) || !to.pek.is_signed_by(KeyUsage::kOca, to.oca.key()) ||
      !to.pek.is_signed_by(KeyUsage::kCek, to.cek.key())) {
    return FirmwareStatus::kBadSignature;
  }
  if (!api_allowed(policy, to.pdh.api_major(), to.pdh.api_minor())) return FirmwareStatus::kPolicyFailure;
  if ((policy & sev::kPolicyDomain) &&
      !std::ranges::equal(to.oca.bytes().first<kSignedPart>(), keys_->oca.bytes().first<kSignedPart>())) {
    return FirmwareStatus::kPolicyFailure;
  }
  if (policy & sev::kPolicySev) {
    if (command.amd_certificates_address == 0) return FirmwareStatus::kInvalidAddress;
    const auto maker = check_maker(to, memory_at(command.amd_certificates_address, command.amd_certificates_length));
    if (maker != FirmwareStatus::kSuccess) return maker;
  }
  return to.pdh.key();
}

FirmwareStatus SecureProcessor::send_start(Call& call) {
  auto command = call.in<psp::SendStart>();
  Guest& guest = *call.guest;
  if (guest.policy & sev::kPolicyNoSend) return FirmwareStatus::kPolicyFailure;
  const std::uint32_t room = std::exchange(command.session_length, static_cast<std::uint32_t>(sev::kSessionSize));
  if (room < sev::kSessionSize) {
    call.out(command);
    return FirmwareStatus::kInvalidLength;
  }
  if (command.session_address == 0) return FirmwareStatus::kInvalidAddress;
  const auto receiver = check_receiver(command, guest.policy);
  if (const auto* failure = std::get_if<FirmwareStatus>(&receiver)) return *failure;
  const auto secret = keys_->pdh_key.shared_secret(std::get<sev::PublicKey>(receiver));
  if (!secret) return FirmwareStatus::kInvalidCertificate;  // of another curve
  sev::TransportKeys transport;
  random_.fill(*transport.tek);
  random_.fill(*transport.tik);
  const sev::Nonce nonce = random_.key();
  const sev::Nonce iv = random_.key();
  const sev::Session session =
      sev::make_session(*sev::session_master_secret(*secret, nonce), nonce, iv, transport, guest.policy);
  std::ranges::copy(session, memory_at(command.session_address, session.size()).begin());
  guest.transport = transport;
  guest.state = GuestState::kSendUpdate;
  command.policy = guest.policy;
  call.out(command);
  return FirmwareStatus::kSuccess;
}

FirmwareStatus SecureProcessor::send_packet(Call& call, std::byte context) {
  auto command = call.in<psp::Packet>();
  const Guest& guest = *call.guest;
  // The lengths may be asked for without naming memory.
  const std::uint32_t header_room =
      std::exchange(command.header_length, static_cast<std::uint32_t>(sizeof(PacketHeader)));
  const std::uint32_t packet_room = std::exchange(command.packet_length, command.guest_length);
  if (header_room < sizeof(PacketHeader) || packet_room < command.guest_length || packet_room == 0) {
    call.out(command);
    return FirmwareStatus::kInvalidLength;
  }
  if (guest.asid == 0) return FirmwareStatus::kInactive;
  if (const auto status = check_region(command.guest_address, command.guest_length);
      status != FirmwareStatus::kSuccess) {
    return status;
  }
  if (command.header_address == 0 || command.packet_address == 0) return FirmwareStatus::kInvalidAddress;
  PacketHeader header{};
  random_.fill(header.iv);
  sev::SecretBytes plain(command.guest_length);
  memory_.decrypt(guest.asid, memory_at(command.guest_address, command.guest_length), plain);
  const auto packet = memory_at(command.packet_address, command.packet_length);
  sev::aes128_ctr(*guest.transport.tek, header.iv, plain, packet);
  const sev::Digest mac = packet_mac(*guest.transport.tik, context, header, command.guest_length, packet);
  std::ranges::copy(mac, header.mac);
  store(memory_at(command.header_address, sizeof header).data(), header);
  call.out(command);
  return FirmwareStatus::kSuccess;
}

FirmwareStatus SecureProcessor::send_update_data(Call& call) { return send_packet(call, kUpdateDataContext); }

FirmwareStatus SecureProcessor::send_update_vmsa(Call& call) {
  if (!(call.guest->policy & sev::kPolicyEs)) return FirmwareStatus::kPolicyFailure;
  const std::uint32_t length = call.in<psp::Packet>().guest_length;
  if (length != 0 && length != kVmsaBytes) return FirmwareStatus::kInvalidLength;
  return send_packet(call, kUpdateVmsaContext);
}

FirmwareStatus SecureProcessor::send_finish(Call& call) {
  call.guest->transport = {};
  call.guest->state = GuestState::kSent;
  return FirmwareStatus::kSuccess;
}

FirmwareStatus SecureProcessor::send_cancel(Call& call) {
  call.guest->transport = {};
  call.guest->state = GuestState::kRunning;
  return FirmwareStatus::kSuccess;
}

FirmwareStatus SecureProcessor::receive_start(Call& call) { return start_guest(call, GuestState::kReceiveUpdate); }

FirmwareStatus SecureProcessor::receive_packet(Call& call, std::byte context) {
  const auto command = call.in<psp::Packet>();
  const Guest& guest = *call.guest;
  if (guest.asid == 0) return FirmwareStatus::kInactive;
  if (const auto status = check_region(command.guest_address, command.guest_length);
      status != FirmwareStatus::kSuccess) {
    return status;
  }
  if (command.header_address == 0 || command.packet_address == 0) return FirmwareStatus::kInvalidAddress;
  if (command.header_length != sizeof(PacketHeader) || command.packet_length != command.guest_length) {
    return FirmwareStatus::kInvalidLength;
  }
  const auto header = load<PacketHeader>(memory_at(command.header_address, sizeof(PacketHeader)).data());
  if (header.flags != 0) return FirmwareStatus::kUnsupported;  // compression
  const auto packet = memory_at(command.packet_address, command.packet_length);
  const sev::Digest mac = packet_mac(*guest.transport.tik, context, header, command.guest_length, packet);
  if (!sev::same_bytes(mac, header.mac)) return FirmwareStatus::kBadMeasurement;
  sev::SecretBytes plain(packet.size());
  sev::aes128_ctr(*guest.transport.tek, header.iv, packet, plain);
  memory_.store(guest.asid, memory_at(command.guest_address, command.guest_length), plain);
  return FirmwareStatus::kSuccess;
}

FirmwareStatus SecureProcessor::receive_update_data(Call& call) { return receive_packet(call, kUpdateDataContext); }

FirmwareStatus SecureProcessor::receive_update_vmsa(Call& call) {
  if (!(call.guest->policy & sev::kPolicyEs)) return FirmwareStatus::kPolicyFailure;
  if (call.in<psp::Packet>().guest_length != kVmsaBytes) return FirmwareStatus::kInvalidLength;
  return receive_packet(call, kUpdateVmsaContext);
}

FirmwareStatus SecureProcessor::receive_finish(Call& call) {
  call.guest->transport = {};
  call.guest->state = GuestState::kRunning;
  return FirmwareStatus::kSuccess;
}

}  // namespace sevisor::emulator
