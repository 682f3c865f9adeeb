// The table of commands, and those that activate guests.
#include "emulator/psp/secure_processor.hpp"

#include <algorithm>
#include <iterator>
#include <utility>

#include "base/bytes.hpp"
#include "emulator/psp/call.hpp"
#include "emulator/psp/nvram.hpp"
#include "emulator/psp/platform_identity.hpp"
#include "sev/policy.hpp"

namespace sevisor::emulator {

using psp::Command;
using psp::GuestState;
using psp::PlatformState;
using sev::FirmwareStatus;

namespace {

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
constexpr unsigned kUninit = bit(PlatformState::kUninit);
constexpr unsigned kInit = bit(PlatformState::kInit);
// Guests whose memory is theirs still; one that was sent can only be taken down.
constexpr unsigned kPresent = any_of(GuestState::kLaunchUpdate, GuestState::kLaunchSecret, GuestState::kRunning,
                                     GuestState::kSendUpdate, GuestState::kReceiveUpdate);
constexpr unsigned kAnyGuest = kPresent | bit(GuestState::kSent);
constexpr unsigned kLaunching = bit(GuestState::kLaunchUpdate);
constexpr unsigned kMeasured = bit(GuestState::kLaunchSecret);
constexpr unsigned kRunning = bit(GuestState::kRunning);
constexpr unsigned kSending = bit(GuestState::kSendUpdate);
constexpr unsigned kReceiving = bit(GuestState::kReceiveUpdate);

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
    {Command::kInit, sizeof(psp::Init), kUninit, kNoGuest, &SecureProcessor::init},
    {Command::kShutdown, 0, kInitialised, kNoGuest, &SecureProcessor::shutdown},
    {Command::kPlatformReset, 0, kUninit, kNoGuest, &SecureProcessor::platform_reset},
    {Command::kPlatformStatus, sizeof(psp::PlatformStatus), kAnyPlatform, kNoGuest, &SecureProcessor::platform_status},
    {Command::kPekGen, 0, kInit, kNoGuest, &SecureProcessor::pek_gen},
    {Command::kPekCsr, sizeof(psp::OneBuffer), kInit, kNoGuest, &SecureProcessor::pek_csr},
    {Command::kPekCertImport, sizeof(psp::PekCertImport), kInit, kNoGuest, &SecureProcessor::pek_cert_import},
    {Command::kPdhCertExport, sizeof(psp::PdhCertExport), kInitialised, kNoGuest, &SecureProcessor::pdh_cert_export},
    {Command::kPdhGen, 0, kInitialised, kNoGuest, &SecureProcessor::pdh_gen},
    {Command::kDfFlush, 0, kInitialised, kNoGuest, &SecureProcessor::df_flush},
    {Command::kGetId, sizeof(psp::OneBuffer), kAnyPlatform, kNoGuest, &SecureProcessor::get_id},
    {Command::kDecommission, sizeof(psp::HandleOnly), kWorking, kAnyGuest, &SecureProcessor::decommission},
    {Command::kActivate, sizeof(psp::Activate), kWorking, kAnyGuest, &SecureProcessor::activate},
    {Command::kDeactivate, sizeof(psp::HandleOnly), kWorking, kAnyGuest, &SecureProcessor::deactivate},
    {Command::kGuestStatus, sizeof(psp::GuestStatus), kWorking, kAnyGuest, &SecureProcessor::guest_status},
    {Command::kCopy, sizeof(psp::Copy), kWorking, kRunning, &SecureProcessor::copy},
    {Command::kLaunchStart, sizeof(psp::LaunchStart), kInitialised, kNoGuest, &SecureProcessor::launch_start},
    {Command::kLaunchUpdateData, sizeof(psp::LaunchRegion), kWorking, kLaunching, &SecureProcessor::launch_update_data},
    {Command::kLaunchUpdateVmsa, sizeof(psp::LaunchRegion), kWorking, kLaunching, &SecureProcessor::launch_update_vmsa},
    {Command::kLaunchMeasure, sizeof(psp::LaunchRegion), kWorking, kLaunching, &SecureProcessor::launch_measure},
    {Command::kLaunchSecret, sizeof(psp::Packet), kWorking, kMeasured, &SecureProcessor::launch_secret},
    {Command::kLaunchFinish, sizeof(psp::HandleOnly), kWorking, kMeasured, &SecureProcessor::launch_finish},
    {Command::kAttestation, sizeof(psp::Attestation), kWorking, kMeasured | kRunning | kSending,
     &SecureProcessor::attestation},
    {Command::kDbgDecrypt, sizeof(psp::Dbg), kWorking, kPresent, &SecureProcessor::dbg_decrypt},
    {Command::kDbgEncrypt, sizeof(psp::Dbg), kWorking, kPresent, &SecureProcessor::dbg_encrypt},
    {Command::kSendStart, sizeof(psp::SendStart), kWorking, kRunning, &SecureProcessor::send_start},
    {Command::kSendUpdateData, sizeof(psp::Packet), kWorking, kSending, &SecureProcessor::send_update_data},
    {Command::kSendUpdateVmsa, sizeof(psp::Packet), kWorking, kSending, &SecureProcessor::send_update_vmsa},
    {Command::kSendFinish, sizeof(psp::HandleOnly), kWorking, kSending, &SecureProcessor::send_finish},
    {Command::kSendCancel, sizeof(psp::HandleOnly), kWorking, kSending, &SecureProcessor::send_cancel},
    {Command::kReceiveStart, sizeof(psp::LaunchStart), kInitialised, kNoGuest, &SecureProcessor::receive_start},
    {Command::kReceiveUpdateData, sizeof(psp::Packet), kWorking, kReceiving, &SecureProcessor::receive_update_data},
    {Command::kReceiveUpdateVmsa, sizeof(psp::Packet), kWorking, kReceiving, &SecureProcessor::receive_update_vmsa},
    {Command::kReceiveFinish, sizeof(psp::HandleOnly), kWorking, kReceiving, &SecureProcessor::receive_finish},
};

namespace {

// The chip of a platform without an identity: nobody signed its CEK.
ChipKeys make_seeded_chip(SeededRandom& random) {
  const sev::PrivateKey key = make_ecdh_key(random);
  ChipKeys chip{{}, make_platform_certificate(sev::KeyUsage::kCek, sev::KeyAlgorithm::kEcdsaSha256, key), key};
  random.fill(chip.id);
  return chip;
}

constexpr std::uint64_t kGuestStream = 0;
constexpr std::uint64_t kPlatformStream = 1;

}  // namespace

SecureProcessor::SecureProcessor(std::uint64_t seed, const PlatformLimits& limits, MemoryController& memory,
                                 const std::shared_ptr<const PlatformIdentity>& identity)
    : random_(seed, kGuestStream),
      platform_random_(seed, kPlatformStream),
      limits_(limits),
      memory_(memory),
      seeded_keys_(identity == nullptr),
      chip_(identity == nullptr ? make_seeded_chip(platform_random_) : identity->chip),
      nvram_(identity == nullptr ? make_volatile_nvram() : identity->nvram) {}

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
