// The AMD Secure Processor as its SEV firmware behaves: platform and guest state machines, launch, measurement, sending
// guests to other platforms. AMD SEV API (55766). Its keys follow from a seed or from an identity that says it is
// software's (platform_identity.hpp): it can never be taken for AMD's.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <variant>

#include "emulator/psp/commands.hpp"
#include "emulator/psp/crypto.hpp"
#include "emulator/psp/platform_keys.hpp"
#include "sev/firmware_status.hpp"
#include "sev/measurement.hpp"
#include "sev/session.hpp"
#include "sev/sha256.hpp"

namespace sevisor::emulator {

class Nvram;
struct PlatformIdentity;

// The memory controllers, to whom the Secure Processor gives each guest's key by ASID.
class MemoryController {
 public:
  virtual ~MemoryController() = default;
  virtual void install_key(std::uint32_t asid, const Key128& key, const Key128& tweak_key) = 0;
  virtual void remove_key(std::uint32_t asid) = 0;
  // Address and size are multiples of 16.
  virtual void encrypt_in_place(std::uint32_t asid, std::span<std::byte> memory) = 0;
  virtual void decrypt(std::uint32_t asid, std::span<const std::byte> memory, std::span<std::byte> plain) = 0;
  virtual void store(std::uint32_t asid, std::span<std::byte> memory, std::span<const std::byte> plain) = 0;
};

struct PlatformLimits {
  std::uint32_t max_asid = 509;          // CPUID 0x8000001F ECX
  std::uint32_t min_plain_sev_asid = 8;  // CPUID 0x8000001F EDX: below it SEV-ES guests only
};

class SecureProcessor {
 public:
  static constexpr sev::ApiVersion kApi{.major = 1, .minor = 55, .build = 21};

  // The keys of guests follow from the seed. Those of the platform are the identity's; without one they follow from the
  // seed too, and the chain of certificates ends at a CEK that nobody signed.
  SecureProcessor(std::uint64_t seed, const PlatformLimits& limits, MemoryController& memory,
                  const std::shared_ptr<const PlatformIdentity>& identity = nullptr);

  // Runs one command on its command buffer (commands.hpp), which must have the command's size; another size is
  // kInvalidLength, an unknown command kInvalidCommand. State is checked before arguments.
  sev::FirmwareStatus run(psp::Command command, std::span<std::byte> buffer);
  template <class Buffer>
  sev::FirmwareStatus run(psp::Command command, Buffer& buffer) {
    return run(command, std::as_writable_bytes(std::span(&buffer, 1)));
  }
  sev::FirmwareStatus run(psp::Command command) { return run(command, std::span<std::byte>()); }

  // WBINVD on all cores, which DF_FLUSH wants to have seen since the last DEACTIVATE.
  void caches_written_back() noexcept { wbinvd_needed_ = false; }

  [[nodiscard]] psp::PlatformState state() const noexcept { return state_; }
  // The platform's ECDH key, that guest owners make sessions with. Only while it is initialised.
  [[nodiscard]] sev::PublicKey pdh() const { return keys_.value().pdh_key.public_key(); }

 private:
  struct Guest {
    std::uint32_t policy = 0;
    std::uint32_t asid = 0;  // 0: not activated
    psp::GuestState state = psp::GuestState::kLaunchUpdate;
    Key128 key{};
    Key128 tweak_key{};
    sev::TransportKeys transport;
    sev::Sha256 digest;
    sev::Digest launch_digest{};  // from LAUNCH_MEASURE on; of a guest that was received: zeros
    sev::Measurement measurement{};
  };
  // What a handler gets: the command buffer as it came, which it may change, and the guest that it names.
  struct Call {
    std::span<std::byte> buffer;
    Guest* guest = nullptr;
    std::uint32_t handle = 0;
    template <class Buffer>
    [[nodiscard]] Buffer in() const;
    template <class Buffer>
    void out(const Buffer& value) const;
  };
  struct Row;
  static const Row kRows[];

  // --- platform_commands.cpp ---
  sev::FirmwareStatus init(Call& call);
  sev::FirmwareStatus shutdown(Call& call);
  sev::FirmwareStatus platform_reset(Call& call);
  sev::FirmwareStatus platform_status(Call& call);
  sev::FirmwareStatus pek_gen(Call& call);
  sev::FirmwareStatus pek_csr(Call& call);
  sev::FirmwareStatus pek_cert_import(Call& call);
  sev::FirmwareStatus pdh_cert_export(Call& call);
  sev::FirmwareStatus pdh_gen(Call& call);
  sev::FirmwareStatus get_id(Call& call);
  [[nodiscard]] KeySource key_source();
  // Into NVRAM first: if that fails nothing has changed.
  sev::FirmwareStatus keep(PlatformKeys keys);

  // --- secure_processor.cpp ---
  sev::FirmwareStatus df_flush(Call& call);
  sev::FirmwareStatus decommission(Call& call);
  sev::FirmwareStatus activate(Call& call);
  sev::FirmwareStatus deactivate(Call& call);
  sev::FirmwareStatus guest_status(Call& call);
  void release_asid(Guest& guest);

  // --- launch_commands.cpp ---
  sev::FirmwareStatus launch_start(Call& call);
  sev::FirmwareStatus launch_update_data(Call& call);
  sev::FirmwareStatus launch_update_vmsa(Call& call);
  sev::FirmwareStatus launch_measure(Call& call);
  sev::FirmwareStatus launch_secret(Call& call);
  sev::FirmwareStatus launch_finish(Call& call);
  sev::FirmwareStatus attestation(Call& call);
  // What LAUNCH_START and RECEIVE_START have in common: the guest in its first state.
  sev::FirmwareStatus start_guest(Call& call, psp::GuestState state);
  [[nodiscard]] std::variant<sev::TransportKeys, sev::FirmwareStatus> open_session(
      const psp::LaunchStart& command) const;

  // --- debug_commands.cpp ---
  sev::FirmwareStatus dbg_decrypt(Call& call);
  sev::FirmwareStatus dbg_encrypt(Call& call);
  sev::FirmwareStatus copy(Call& call);
  [[nodiscard]] static sev::FirmwareStatus check_debug(const Call& call, std::uint64_t guest_address,
                                                       std::uint32_t length);

  // --- migration_commands.cpp ---
  sev::FirmwareStatus send_start(Call& call);
  sev::FirmwareStatus send_update_data(Call& call);
  sev::FirmwareStatus send_update_vmsa(Call& call);
  sev::FirmwareStatus send_finish(Call& call);
  sev::FirmwareStatus send_cancel(Call& call);
  sev::FirmwareStatus receive_start(Call& call);
  sev::FirmwareStatus receive_update_data(Call& call);
  sev::FirmwareStatus receive_update_vmsa(Call& call);
  sev::FirmwareStatus receive_finish(Call& call);
  sev::FirmwareStatus send_packet(Call& call, std::byte context);
  sev::FirmwareStatus receive_packet(Call& call, std::byte context);
  [[nodiscard]] std::variant<sev::PublicKey, sev::FirmwareStatus> check_receiver(const psp::SendStart& command,
                                                                                 std::uint32_t policy) const;

  SeededRandom random_;           // of guests
  SeededRandom platform_random_;  // of a platform without an identity
  PlatformLimits limits_;
  MemoryController& memory_;
  bool seeded_keys_;
  ChipKeys chip_;
  std::shared_ptr<Nvram> nvram_;
  std::optional<PlatformKeys> keys_;  // while the platform is initialised
  psp::PlatformState state_ = psp::PlatformState::kUninit;
  bool es_enabled_ = false;
  bool wbinvd_needed_ = false;
  std::uint32_t next_handle_ = 1;
  std::map<std::uint32_t, Guest> guests_;  // by handle
  std::set<std::uint32_t> owned_asids_;
  std::set<std::uint32_t> unflushed_asids_;  // deactivated since the last DF_FLUSH
};

}  // namespace sevisor::emulator
