// What the VMs of one emulated host share: the Secure Processor, the ASIDs, the descriptors.
#pragma once

#include <cstdint>
#include <map>
#include <mutex>
#include <set>

#include "base/mapping.hpp"
#include "emulator/kvm/descriptor_table.hpp"
#include "emulator/kvm/emulated_host.hpp"
#include "emulator/kvm/machine_lock.hpp"
#include "emulator/memory/guest_memory.hpp"
#include "emulator/psp/secure_processor.hpp"

namespace sevisor::emulator {

class Platform final : public MemoryController {
 public:
  explicit Platform(const EmulatedHostOptions& options);
  ~Platform() override = default;

  // ASIDs below the minimum are for SEV-ES guests, the others for those with SEV alone: CPUID 0x8000001F ECX and EDX
  // say so. An EPYC of the third generation has as many; where the two part is the machine's firmware's choice.
  static constexpr PlatformLimits kLimits{.max_asid = 509, .min_plain_sev_asid = 410};

  [[nodiscard]] const EmulatedHostOptions& options() const noexcept { return options_; }
  [[nodiscard]] const Personality& personality() const noexcept { return *options_.personality; }
  [[nodiscard]] DescriptorTable& descriptors() noexcept { return descriptors_; }
  // Over the state of all VMs: one runs at a time. Two of them may share memory and key.
  [[nodiscard]] MachineLock& machine_lock() noexcept { return machine_lock_; }

  // One command at a time, as on the mailbox. `error` gets the status.
  template <class Buffer>
  sev::FirmwareStatus firmware(psp::Command command, Buffer& buffer) {
    const std::lock_guard lock(mutex_);
    return run(command, std::as_writable_bytes(std::span(&buffer, 1)));
  }
  sev::FirmwareStatus firmware(psp::Command command) {
    const std::lock_guard lock(mutex_);
    return run(command, {});
  }
  [[nodiscard]] psp::PlatformState state() const {
    const std::lock_guard lock(mutex_);
    return firmware_.state();
  }
  // INIT with SEV-ES, if the platform is not initialised.
  sev::FirmwareStatus initialise();

  // An ASID for `memory`'s guest; 0 when none of its kind is left.
  std::uint32_t take_asid(GuestMemory& memory, bool es);
  // The ASID's guest has become another VM's.
  void move_asid(std::uint32_t asid, GuestMemory& memory);
  // After DEACTIVATE.
  void give_back_asid(std::uint32_t asid);

 private:
  // With the lock held.
  sev::FirmwareStatus run(psp::Command command, std::span<std::byte> buffer);
  void install_key(std::uint32_t asid, const Key128& key, const Key128& tweak_key) override;
  void remove_key(std::uint32_t asid) override;
  void encrypt_in_place(std::uint32_t asid, std::span<std::byte> memory) override;
  void decrypt(std::uint32_t asid, std::span<const std::byte> memory, std::span<std::byte> plain) override;
  void store(std::uint32_t asid, std::span<std::byte> memory, std::span<const std::byte> plain) override;

  EmulatedHostOptions options_;
  DescriptorTable descriptors_;
  MachineLock machine_lock_;
  mutable std::mutex mutex_;
  Mapping tmr_;  // the trusted memory region: reserved for the Secure Processor, never looked at
  std::map<std::uint32_t, GuestMemory*> guests_;  // by ASID
  std::set<std::uint32_t> used_asids_;            // since the last DF_FLUSH
  SecureProcessor firmware_;
};

}  // namespace sevisor::emulator
