// Commands of the platform. AMD SEV API (55766) chapter 5.
#include <algorithm>
#include <utility>

#include "base/error.hpp"
#include "emulator/psp/call.hpp"
#include "emulator/psp/nvram.hpp"
#include "emulator/psp/secure_processor.hpp"
#include "sev/certificate_chain.hpp"

namespace sevisor::emulator {

using psp::PlatformState;
using sev::FirmwareStatus;

namespace {

constexpr std::uint32_t kTmrAlignment = 1 << 20;  // the trusted memory region for SEV-ES: 1 MiB, so aligned
constexpr std::size_t kSignedPart = 1044;         // of a certificate: all before its signatures, bytes

// PEK_CSR, GET_ID: one thing to hand out, or the room that it needs.
template <class Command>
FirmwareStatus hand_out(Command& command, std::span<const std::byte> bytes) {
  const std::uint32_t room = std::exchange(command.length, static_cast<std::uint32_t>(bytes.size()));
  if (room < bytes.size()) return FirmwareStatus::kInvalidLength;
  if (command.address == 0) return FirmwareStatus::kInvalidAddress;
  std::ranges::copy(bytes, memory_at(command.address, bytes.size()).begin());
  return FirmwareStatus::kSuccess;
}

std::optional<sev::Certificate> read_certificate(std::uint64_t address, const char* what) {
  try {
    return sev::Certificate::parse(memory_at(address, sev::kCertificateSize), what);
  } catch (const Error&) {
    return std::nullopt;
  }
}

}  // namespace

KeySource SecureProcessor::key_source() {
  if (seeded_keys_) return [this] { return make_ecdh_key(platform_random_); };
  return [] { return sev::PrivateKey::make_ec(sev::Curve::kP384); };
}

FirmwareStatus SecureProcessor::keep(PlatformKeys keys) {
  if (!nvram_->write(encode_keys(keys))) return FirmwareStatus::kHardwareErrorPlatform;
  keys_ = std::move(keys);
  return FirmwareStatus::kSuccess;
}

FirmwareStatus SecureProcessor::init(Call& call) {
  const auto command = call.in<psp::Init>();
  const bool es = (command.options & psp::kInitEs) != 0;
  if (command.options & ~psp::kInitEs) return FirmwareStatus::kInvalidParam;
  if (es && (command.tmr_address == 0 || command.tmr_address % kTmrAlignment != 0)) {
    return FirmwareStatus::kInvalidAddress;
  }
  if (es && command.tmr_length < kTmrAlignment) return FirmwareStatus::kInvalidLength;
  if (const sev::SecretBytes kept = nvram_->read(); !kept.empty()) {
    keys_ = decode_keys(kept, chip_);
    if (!keys_) {
      // What is there cannot be used. The next INIT finds nothing, and makes a new platform of it.
      return nvram_->write({}) ? FirmwareStatus::kSecureDataInvalid : FirmwareStatus::kHardwareErrorPlatform;
    }
  } else if (const auto status = keep(make_platform_keys(chip_, key_source())); status != FirmwareStatus::kSuccess) {
    return status;
  }
  es_enabled_ = es;
  state_ = PlatformState::kInit;
  return FirmwareStatus::kSuccess;
}

FirmwareStatus SecureProcessor::shutdown(Call&) {
  for (auto& [handle, guest] : guests_) release_asid(guest);
  guests_.clear();
  unflushed_asids_.clear();
  wbinvd_needed_ = false;
  es_enabled_ = false;
  keys_.reset();
  state_ = PlatformState::kUninit;
  return FirmwareStatus::kSuccess;
}

// The next INIT makes all keys anew, and the platform is nobody's.
FirmwareStatus SecureProcessor::platform_reset(Call&) {
  return nvram_->write({}) ? FirmwareStatus::kSuccess : FirmwareStatus::kHardwareErrorPlatform;
}

FirmwareStatus SecureProcessor::platform_status(Call& call) {
  const bool owned = keys_ && !keys_->oca_key;
  call.out(psp::PlatformStatus{.api_major = kApi.major,
                               .api_minor = kApi.minor,
                               .state = static_cast<std::uint8_t>(state_),
                               .flags = (es_enabled_ ? psp::kStatusEs : 0) | (owned ? psp::kStatusOwned : 0),
                               .build = kApi.build,
                               .guest_count = static_cast<std::uint32_t>(guests_.size())});
  return FirmwareStatus::kSuccess;
}

FirmwareStatus SecureProcessor::pek_gen(Call&) {
  if (!keys_->oca_key) return FirmwareStatus::kAlreadyOwned;
  return keep(make_platform_keys(chip_, key_source()));
}

FirmwareStatus SecureProcessor::pek_csr(Call& call) {
  if (!keys_->oca_key) return FirmwareStatus::kAlreadyOwned;
  auto command = call.in<psp::OneBuffer>();
  const FirmwareStatus status = hand_out(command, make_signing_request(*keys_).bytes());
  call.out(command);
  return status;
}

FirmwareStatus SecureProcessor::pek_cert_import(Call& call) {
  using sev::KeyUsage;
  if (!keys_->oca_key) return FirmwareStatus::kAlreadyOwned;
  const auto command = call.in<psp::PekCertImport>();
  if (command.pek_address == 0 || command.oca_address == 0) return FirmwareStatus::kInvalidAddress;
  if (command.pek_length != sev::kCertificateSize || command.oca_length != sev::kCertificateSize) {
    return FirmwareStatus::kInvalidLength;
  }
  auto pek = read_certificate(command.pek_address, "PEK");
  const auto oca = read_certificate(command.oca_address, "OCA");
  if (!pek || !oca || oca->usage() != KeyUsage::kOca) return FirmwareStatus::kInvalidCertificate;
  const sev::Certificate request = make_signing_request(*keys_);
  if (!std::ranges::equal(pek->bytes().first<kSignedPart>(), request.bytes().first<kSignedPart>()) ||
      pek->signers().size() != 1) {
    return FirmwareStatus::kInvalidCertificate;
  }
  if (!oca->is_signed_by(KeyUsage::kOca, oca->key()) || !pek->is_signed_by(KeyUsage::kOca, oca->key())) {
    return FirmwareStatus::kBadSignature;
  }
  pek->sign(KeyUsage::kCek, sev::KeyAlgorithm::kEcdsaSha256, chip_.cek_key);
  PlatformKeys keys = *keys_;
  keys.oca = *oca;
  keys.oca_key.reset();
  keys.pek = *pek;
  return keep(std::move(keys));
}

FirmwareStatus SecureProcessor::pdh_gen(Call&) {
  PlatformKeys keys = *keys_;
  replace_pdh(keys, key_source()());
  return keep(std::move(keys));
}

FirmwareStatus SecureProcessor::pdh_cert_export(Call& call) {
  auto command = call.in<psp::PdhCertExport>();
  const std::uint32_t pdh_room = std::exchange(command.pdh_length, sev::kCertificateSize);
  const std::uint32_t chain_room = std::exchange(command.chain_length, sev::kPlatformCertificatesSize);
  call.out(command);
  if (pdh_room < sev::kCertificateSize || chain_room < sev::kPlatformCertificatesSize) {
    return FirmwareStatus::kInvalidLength;
  }
  if (command.pdh_address == 0 || command.chain_address == 0) return FirmwareStatus::kInvalidAddress;
  std::ranges::copy(keys_->pdh.bytes(), memory_at(command.pdh_address, sev::kCertificateSize).begin());
  auto to = memory_at(command.chain_address, sev::kPlatformCertificatesSize).begin();
  for (const sev::Certificate* certificate : {&keys_->pek, &keys_->oca, &chip_.cek}) {
    to = std::ranges::copy(certificate->bytes(), to).out;
  }
  return FirmwareStatus::kSuccess;
}

FirmwareStatus SecureProcessor::get_id(Call& call) {
  auto command = call.in<psp::OneBuffer>();
  const FirmwareStatus status = hand_out(command, chip_.id);
  call.out(command);
  return status;
}

}  // namespace sevisor::emulator
