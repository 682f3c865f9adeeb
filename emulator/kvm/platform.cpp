#include "emulator/kvm/platform.hpp"

#include <spdlog/spdlog.h>
#include <sys/mman.h>

#include "base/bytes.hpp"
#include "emulator/psp/command_name.hpp"

namespace sevisor::emulator {

namespace {
constexpr std::uint32_t kFirstGuestCommand = 0x20;  // from here on a buffer begins with the guest's handle
constexpr std::uint32_t kTmrBytes = 1 << 20;  // for SEV-ES; as much alignment (Linux drivers/crypto/ccp/sev-dev.c)
}  // namespace

Platform::Platform(const EmulatedHostOptions& options)
    : options_(options),
      tmr_(Mapping::anonymous(2 * std::size_t{kTmrBytes}, PROT_READ | PROT_WRITE)),
      firmware_(options.seed, kLimits, *this, options.identity) {
  (void)initialise();
}

sev::FirmwareStatus Platform::initialise() {
  if (state() != psp::PlatformState::kUninit) return sev::FirmwareStatus::kSuccess;
  psp::Init init{.options = psp::kInitEs,
                 .reserved = 0,
                 .tmr_address = align_up(reinterpret_cast<std::uintptr_t>(tmr_.data()), kTmrBytes),
                 .tmr_length = kTmrBytes};
  const auto status = firmware(psp::Command::kInit, init);
  if (status != sev::FirmwareStatus::kSecureDataInvalid) return status;
  // The firmware has thrown away what it could not use, and starts anew (Linux sev-dev.c __sev_platform_init_locked()).
  spdlog::warn("the emulated platform's NVRAM is damaged: its keys are made anew, and older sessions are for nobody");
  return firmware(psp::Command::kInit, init);
}

sev::FirmwareStatus Platform::run(psp::Command command, std::span<std::byte> buffer) {
  const sev::FirmwareStatus status = firmware_.run(command, buffer);
  if (options_.observer != nullptr) {
    const auto id = static_cast<std::uint32_t>(command);
    const bool names_guest = id >= kFirstGuestCommand && buffer.size() >= sizeof(std::uint32_t);
    options_.observer->observe({}, kvm::FirmwareCommand{.id = id,
                                                        .name = psp::command_name(id),
                                                        .handle = names_guest ? load<std::uint32_t>(buffer.data()) : 0,
                                                        .status = static_cast<std::uint32_t>(status)});
  }
  return status;
}

std::uint32_t Platform::take_asid(GuestMemory& memory, bool es) {
  const std::lock_guard lock(mutex_);
  const std::uint32_t first = es ? 1 : kLimits.min_plain_sev_asid;
  const std::uint32_t last = es ? kLimits.min_plain_sev_asid - 1 : kLimits.max_asid;
  const auto find_free = [this, first, last]() -> std::uint32_t {
    for (std::uint32_t asid = first; asid <= last; ++asid) {
      if (!used_asids_.contains(asid)) return asid;
    }
    return 0;
  };
  std::uint32_t asid = find_free();
  if (asid == 0) {
    // As KVM does when it runs out: WBINVD everywhere, DF_FLUSH, and what was given back is free again.
    firmware_.caches_written_back();
    if (run(psp::Command::kDfFlush, {}) != sev::FirmwareStatus::kSuccess) return 0;
    std::erase_if(used_asids_, [this](std::uint32_t used) { return !guests_.contains(used); });
    asid = find_free();
  }
  if (asid != 0) {
    used_asids_.insert(asid);
    guests_[asid] = &memory;
  }
  return asid;
}

void Platform::move_asid(std::uint32_t asid, GuestMemory& memory) {
  const std::lock_guard lock(mutex_);
  guests_[asid] = &memory;
}

void Platform::give_back_asid(std::uint32_t asid) {
  const std::lock_guard lock(mutex_);
  guests_.erase(asid);
}

// The Secure Processor calls these while a command runs, so the lock is held.
void Platform::install_key(std::uint32_t asid, const Key128& key, const Key128& tweak_key) {
  if (const auto guest = guests_.find(asid); guest != guests_.end()) guest->second->set_key(key, tweak_key);
}
void Platform::remove_key(std::uint32_t asid) {
  if (const auto guest = guests_.find(asid); guest != guests_.end()) guest->second->clear_key();
}
void Platform::encrypt_in_place(std::uint32_t asid, std::span<std::byte> memory) {
  guests_.at(asid)->encrypt_host(memory.data(), memory.size());
}
void Platform::decrypt(std::uint32_t asid, std::span<const std::byte> memory, std::span<std::byte> plain) {
  guests_.at(asid)->decrypt_host(memory.data(), plain);
}
void Platform::store(std::uint32_t asid, std::span<std::byte> memory, std::span<const std::byte> plain) {
  guests_.at(asid)->store_private(memory.data(), plain);
  if (options_.observer != nullptr) options_.observer->observe({}, kvm::PrivateStore{plain});
}

}  // namespace sevisor::emulator
