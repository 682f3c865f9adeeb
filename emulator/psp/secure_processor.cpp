// The table of commands, and those of the platform.
#include "emulator/psp/secure_processor.hpp"

#include <algorithm>
#include <iterator>
#include <utility>

#include "base/bytes.hpp"
#include "emulator/psp/call.hpp"
#include "emulator/psp/platform_identity.hpp"
#include "sev/policy.hpp"

namespace sevisor::emulator {

using psp::Command;
using psp::GuestState;
using psp::PlatformState;
using sev::FirmwareStatus;

namespace {

constexpr std::uint32_t kTmrAlignment = 1 << 20;  // the trusted memory region for SEV-ES: 1 MiB, so aligned

template <class State>
constexpr unsigned bit(State state) {
  return 1U << static_cast<unsigned>(state);
}
template <class... States>
constexpr unsigned any_of(States... states) {
  return (bit(states) | ...);
}

constexpr unsigned kAnyPlatform = any_of(PlatformState::kUninit, PlatformState::kInit, PlatformState::kWorking);
constexpr unsigned kInitialised = any_of(PlatformState::kInit, PlatformState::kWorking);
constexpr unsigned kWorking = bit(PlatformState::kWorking);
constexpr unsigned kNoGuest = 0;  // the command names no guest that must exist
constexpr unsigned kAnyGuest = any_of(GuestState::kLaunchUpdate, GuestState::kLaunchSecret, GuestState::kRunning);

}  // namespace

struct SecureProcessor::Row {
  Command command;
  std::size_t size;          // of the command buffer, bytes; it begins with the handle when a guest is named
  unsigned platform_states;  // one bit a state in which the command is allowed
  unsigned guest_states;     // the same of the guest it names, or kNoGuest
  FirmwareStatus (SecureProcessor::*handler)(Call&);
};

// SEV API (55766) tables "Platform States", "Guest States".
const SecureProcessor::Row SecureProcessor::kRows[] = {
    {Command::kInit, sizeof(psp::Init), bit(PlatformState::kUninit), kNoGuest, &SecureProcessor::init},
    {Command::kShutdown, 0, kAnyPlatform, kNoGuest, &SecureProcessor::shutdown},
    {Command::kPlatformReset, 0, bit(PlatformState::kUninit), kNoGuest, &SecureProcessor::platform_reset},
    {Command::kPlatformStatus, sizeof(psp::PlatformStatus), kAnyPlatform, kNoGuest, &SecureProcessor::platform_status},
    {Command::kPdhCertExport, sizeof(psp::PdhCertExport), kInitialised, kNoGuest, &SecureProcessor::pdh_cert_export},
    {Command::kDfFlush, 0, kInitialised, kNoGuest, &SecureProcessor::df_flush},
    {Command::kDecommission, sizeof(psp::HandleOnly), kWorking, kAnyGuest, &SecureProcessor::decommission},
    {Command::kActivate, sizeof(psp::Activate), kWorking, kAnyGuest, &SecureProcessor::activate},
    {Command::kDeactivate, sizeof(psp::HandleOnly), kWorking, kAnyGuest, &SecureProcessor::deactivate},
    {Command::kGuestStatus, sizeof(psp::GuestStatus), kWorking, kAnyGuest, &SecureProcessor::guest_status},
    {Command::kLaunchStart, sizeof(psp::LaunchStart), kInitialised, kNoGuest, &SecureProcessor::launch_start},
    {Command::kLaunchUpdateData, sizeof(psp::LaunchRegion), kWorking, bit(GuestState::kLaunchUpdate),
     &SecureProcessor::launch_update_data},
    {Command::kLaunchUpdateVmsa, sizeof(psp::LaunchRegion), kWorking, bit(GuestState::kLaunchUpdate),
     &SecureProcessor::launch_update_vmsa},
    {Command::kLaunchMeasure, sizeof(psp::LaunchRegion), kWorking, bit(GuestState::kLaunchUpdate),
     &SecureProcessor::launch_measure},
    {Command::kLaunchSecret, sizeof(psp::LaunchSecret), kWorking, bit(GuestState::kLaunchSecret),
     &SecureProcessor::launch_secret},
    {Command::kLaunchFinish, sizeof(psp::HandleOnly), kWorking, bit(GuestState::kLaunchSecret),
     &SecureProcessor::launch_finish},
    {Command::kDbgDecrypt, sizeof(psp::Dbg), kWorking, kAnyGuest, &SecureProcessor::dbg_decrypt},
    {Command::kDbgEncrypt, sizeof(psp::Dbg), kWorking, kAnyGuest, &SecureProcessor::dbg_encrypt},
};

SecureProcessor::SecureProcessor(std::uint64_t seed, const PlatformLimits& limits, MemoryController& memory,
                                 std::shared_ptr<const PlatformIdentity> identity)
    : random_(seed),
      limits_(limits),
      memory_(memory),
      pdh_(make_ecdh_key(random_)),  // always: what comes from the generator later does not depend on it
      identity_(std::move(identity)) {
  if (identity_ != nullptr) pdh_ = identity_->pdh;
}

FirmwareStatus SecureProcessor::run(Command command, std::span<std::byte> buffer) {
  const Row* row = std::find_if(std::begin(kRows), std::end(kRows), [&](const Row& r) { return r.command == command; });
  if (row == std::end(kRows)) return FirmwareStatus::kInvalidCommand;
  if (buffer.size() != row->size) return FirmwareStatus::kInvalidLength;
  if (!(row->platform_states & bit(state_))) return FirmwareStatus::kInvalidPlatformState;
  Call call{.buffer = buffer};
  if (row->guest_states != kNoGuest) {
    call.handle = load<std::uint32_t>(buffer.data());
    const auto found = guests_.find(call.handle);
    if (found == guests_.end()) return FirmwareStatus::kInvalidGuest;
    call.guest = &found->second;
    if (!(row->guest_states & bit(call.guest->state))) return FirmwareStatus::kInvalidGuestState;
  }
  return (this->*row->handler)(call);
}

FirmwareStatus SecureProcessor::init(Call& call) {
  const auto command = call.in<psp::Init>();
  const bool es = (command.options & psp::kInitEs) != 0;
  if (command.options & ~psp::kInitEs) return FirmwareStatus::kInvalidParam;
  if (es && (command.tmr_address == 0 || command.tmr_address % kTmrAlignment != 0)) {
    return FirmwareStatus::kInvalidAddress;
  }
  if (es && command.tmr_length < kTmrAlignment) return FirmwareStatus::kInvalidLength;
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
  state_ = PlatformState::kUninit;
  return FirmwareStatus::kSuccess;
}

FirmwareStatus SecureProcessor::platform_reset(Call&) {
  pdh_ = make_ecdh_key(random_);
  identity_.reset();  // until the next start: the certificates on disk stay
  return FirmwareStatus::kSuccess;
}

FirmwareStatus SecureProcessor::pdh_cert_export(Call& call) {
  if (identity_ == nullptr) return FirmwareStatus::kUnsupported;
  auto command = call.in<psp::PdhCertExport>();
  const sev::CertificateChain& chain = identity_->chain;
  const std::uint32_t pdh_room = std::exchange(command.pdh_length, sev::kCertificateSize);
  const std::uint32_t chain_room = std::exchange(command.chain_length, sev::kPlatformCertificatesSize);
  call.out(command);
  if (pdh_room < sev::kCertificateSize || chain_room < sev::kPlatformCertificatesSize) {
    return FirmwareStatus::kInvalidLength;
  }
  if (command.pdh_address == 0 || command.chain_address == 0) return FirmwareStatus::kInvalidAddress;
  std::ranges::copy(chain.pdh.bytes(), reinterpret_cast<std::byte*>(command.pdh_address));
  auto* to = reinterpret_cast<std::byte*>(command.chain_address);
  for (const sev::Certificate* certificate : {&chain.pek, &chain.oca, &chain.cek}) {
    to = std::ranges::copy(certificate->bytes(), to).out;
  }
  return FirmwareStatus::kSuccess;
}

FirmwareStatus SecureProcessor::platform_status(Call& call) {
  call.out(psp::PlatformStatus{.api_major = kApi.major,
                               .api_minor = kApi.minor,
                               .state = static_cast<std::uint8_t>(state_),
                               .flags = es_enabled_ ? psp::kStatusEs : 0,
                               .build = kApi.build,
                               .guest_count = static_cast<std::uint32_t>(guests_.size())});
  return FirmwareStatus::kSuccess;
}

FirmwareStatus SecureProcessor::df_flush(Call&) {
  if (wbinvd_needed_) return FirmwareStatus::kWbinvdRequired;
  unflushed_asids_.clear();
  return FirmwareStatus::kSuccess;
}

void SecureProcessor::release_asid(Guest& guest) {
  if (guest.asid == 0) return;
  memory_.remove_key(guest.asid);
  owned_asids_.erase(guest.asid);
  unflushed_asids_.insert(guest.asid);
  wbinvd_needed_ = true;
  guest.asid = 0;
}

FirmwareStatus SecureProcessor::decommission(Call& call) {
  if (call.guest->asid != 0) return FirmwareStatus::kActive;
  guests_.erase(call.handle);
  if (guests_.empty()) state_ = PlatformState::kInit;
  return FirmwareStatus::kSuccess;
}

FirmwareStatus SecureProcessor::activate(Call& call) {
  const std::uint32_t asid = call.in<psp::Activate>().asid;
  Guest& guest = *call.guest;
  if (guest.asid != 0) return FirmwareStatus::kActive;
  const bool es = (guest.policy & sev::kPolicyEs) != 0;
  if (asid == 0 || asid > limits_.max_asid || (!es && asid < limits_.min_plain_sev_asid)) {
    return FirmwareStatus::kInvalidAsid;
  }
  if (owned_asids_.contains(asid)) return FirmwareStatus::kAsidOwned;
  if (unflushed_asids_.contains(asid)) {
    return wbinvd_needed_ ? FirmwareStatus::kWbinvdRequired : FirmwareStatus::kDfFlushRequired;
  }
  memory_.install_key(asid, guest.key, guest.tweak_key);
  owned_asids_.insert(asid);
  guest.asid = asid;
  return FirmwareStatus::kSuccess;
}

FirmwareStatus SecureProcessor::deactivate(Call& call) {
  if (call.guest->asid == 0) return FirmwareStatus::kInactive;
  release_asid(*call.guest);
  return FirmwareStatus::kSuccess;
}

FirmwareStatus SecureProcessor::guest_status(Call& call) {
  call.out(psp::GuestStatus{.handle = call.handle,
                            .policy = call.guest->policy,
                            .asid = call.guest->asid,
                            .state = static_cast<std::uint8_t>(call.guest->state)});
  return FirmwareStatus::kSuccess;
}

}  // namespace sevisor::emulator
