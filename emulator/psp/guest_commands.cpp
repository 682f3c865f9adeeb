// Launch and debugging of guests. AMD SEV API (55766) chapter 6.
#include <algorithm>
#include <vector>

#include "base/bytes.hpp"
#include "emulator/psp/call.hpp"
#include "emulator/psp/owner_certificate.hpp"
#include "emulator/psp/secure_processor.hpp"
#include "sev/certificate.hpp"
#include "sev/launch_secret.hpp"
#include "sev/policy.hpp"

namespace sevisor::emulator {

using psp::GuestState;
using psp::PlatformState;
using sev::FirmwareStatus;

namespace {

constexpr std::uint32_t kBlock = 16;  // bytes: what addresses and lengths of guest memory are multiples of
constexpr std::uint32_t kVmsaBytes = 4096;
constexpr std::uint64_t kMaxTransfer = 1U << 31;

std::span<std::byte> memory_at(std::uint64_t address, std::size_t length) {
  return {reinterpret_cast<std::byte*>(address), length};
}

FirmwareStatus check_region(std::uint64_t address, std::uint32_t length) {
  if (address == 0 || address % kBlock != 0) return FirmwareStatus::kInvalidAddress;
  if (length == 0 || length % kBlock != 0 || length > kMaxTransfer) return FirmwareStatus::kInvalidLength;
  return FirmwareStatus::kSuccess;
}

}  // namespace

FirmwareStatus SecureProcessor::launch_start(Call& call) {
  auto command = call.in<psp::LaunchStart>();
  const std::uint32_t policy = command.policy;
  const auto least_major = static_cast<std::uint8_t>(policy >> sev::kPolicyApiMajorShift);
  const auto least_minor = static_cast<std::uint8_t>(policy >> sev::kPolicyApiMinorShift);
  if (least_major > kApi.major || (least_major == kApi.major && least_minor > kApi.minor)) {
    return FirmwareStatus::kPolicyFailure;
  }
  if (policy & sev::kPolicyReserved) return FirmwareStatus::kPolicyFailure;
  if ((policy & sev::kPolicyEs) && !es_enabled_) return FirmwareStatus::kPolicyFailure;

  Guest guest;
  guest.policy = policy;
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
  if (command.dh_address != 0 || command.session_address != 0) {
    if (command.dh_address == 0 || command.session_address == 0) return FirmwareStatus::kInvalidAddress;
    if (command.dh_length != sev::kCertificateSize || command.session_length != sev::kSessionSize) {
      return FirmwareStatus::kInvalidLength;
    }
    const auto owner = parse_owner_certificate(memory_at(command.dh_address, sev::kCertificateSize));
    if (!owner) return FirmwareStatus::kInvalidCertificate;
    const auto secret = pdh_.shared_secret(*owner);
    if (!secret) return FirmwareStatus::kInvalidCertificate;
    const auto session = memory_at(command.session_address, sev::kSessionSize).first<sev::kSessionSize>();
    const auto keys = sev::open_session(*secret, session, policy);
    if (!keys) return FirmwareStatus::kBadMeasurement;
    guest.transport = *keys;
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
  guest.measurement = sev::make_measurement(*guest.transport.tik, kApi, guest.policy, guest.digest.finish(), nonce);
  std::ranges::copy(guest.measurement, memory_at(command.address, guest.measurement.size()).begin());
  command.length = sev::kMeasurementSize;
  guest.state = GuestState::kLaunchSecret;
  call.out(command);
  return FirmwareStatus::kSuccess;
}

FirmwareStatus SecureProcessor::launch_secret(Call& call) {
  const auto command = call.in<psp::LaunchSecret>();
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

FirmwareStatus SecureProcessor::check_debug(const Call& call, std::uint64_t guest_address, std::uint32_t length) const {
  if (call.guest->policy & sev::kPolicyNoDebug) return FirmwareStatus::kPolicyFailure;
  if (call.guest->asid == 0) return FirmwareStatus::kInactive;
  return check_region(guest_address, length);
}

FirmwareStatus SecureProcessor::dbg_decrypt(Call& call) {
  const auto command = call.in<psp::Dbg>();
  if (const auto status = check_debug(call, command.source, command.length); status != FirmwareStatus::kSuccess) {
    return status;
  }
  memory_.decrypt(call.guest->asid, memory_at(command.source, command.length),
                  memory_at(command.destination, command.length));
  return FirmwareStatus::kSuccess;
}

FirmwareStatus SecureProcessor::dbg_encrypt(Call& call) {
  const auto command = call.in<psp::Dbg>();
  if (const auto status = check_debug(call, command.destination, command.length); status != FirmwareStatus::kSuccess) {
    return status;
  }
  memory_.store(call.guest->asid, memory_at(command.destination, command.length),
                memory_at(command.source, command.length));
  return FirmwareStatus::kSuccess;
}

}  // namespace sevisor::emulator
