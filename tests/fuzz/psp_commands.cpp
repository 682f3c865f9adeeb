// Commands to two Secure Processors, in any order and with any command buffers. Addresses in them are made to point
// into one arena, as the firmware takes physical memory for granted; all else is the input's. Packets and sessions that
// one platform makes lie in the arena for the other.
#include <algorithm>
#include <array>
#include <cstring>
#include <map>
#include <memory>
#include <optional>
#include <vector>

#include "base/bytes.hpp"
#include "check.hpp"
#include "emulator/memory/guest_memory.hpp"
#include "emulator/psp/nvram.hpp"
#include "emulator/psp/platform_identity.hpp"
#include "emulator/psp/secure_processor.hpp"
#include "input.hpp"
#include "remembered_keys.hpp"

using namespace sevisor;
using namespace sevisor::emulator;
using psp::Command;
using Status = sev::FirmwareStatus;

namespace {

constexpr std::size_t kArenaSize = 0x10000;
constexpr std::size_t kMaxCommands = 64;
constexpr std::size_t kLargestBuffer = 128;

// Where a command buffer has an address, and the length of what is there.
struct Range {
  std::size_t address_at;
  std::size_t length_at;
};
struct Kind {
  Command command;
  std::size_t size;
  bool of_guest;  // begins with a handle of a guest that must exist
  std::array<Range, 4> ranges;
};
#define RANGE(type, address, length) \
  { offsetof(psp::type, address), offsetof(psp::type, length) }
const Kind kKinds[] = {
    {Command::kInit, sizeof(psp::Init), false, {}},
    {Command::kShutdown, 0, false, {}},
    {Command::kPlatformReset, 0, false, {}},
    {Command::kPlatformStatus, sizeof(psp::PlatformStatus), false, {}},
    {Command::kPekGen, 0, false, {}},
    {Command::kPekCsr, sizeof(psp::OneBuffer), false, {{RANGE(OneBuffer, address, length)}}},
    {Command::kPekCertImport,
     sizeof(psp::PekCertImport),
     false,
     {{RANGE(PekCertImport, pek_address, pek_length), RANGE(PekCertImport, oca_address, oca_length)}}},
    {Command::kPdhCertExport,
     sizeof(psp::PdhCertExport),
     false,
     {{RANGE(PdhCertExport, pdh_address, pdh_length), RANGE(PdhCertExport, chain_address, chain_length)}}},
    {Command::kPdhGen, 0, false, {}},
    {Command::kDfFlush, 0, false, {}},
    {Command::kGetId, sizeof(psp::OneBuffer), false, {{RANGE(OneBuffer, address, length)}}},
    {Command::kDecommission, sizeof(psp::HandleOnly), true, {}},
    {Command::kActivate, sizeof(psp::Activate), true, {}},
    {Command::kDeactivate, sizeof(psp::HandleOnly), true, {}},
    {Command::kGuestStatus, sizeof(psp::GuestStatus), true, {}},
    {Command::kCopy, sizeof(psp::Copy), true, {{RANGE(Copy, source, length), RANGE(Copy, destination, length)}}},
    {Command::kLaunchStart,
     sizeof(psp::LaunchStart),
     false,
     {{RANGE(LaunchStart, dh_address, dh_length), RANGE(LaunchStart, session_address, session_length)}}},
    {Command::kLaunchUpdateData, sizeof(psp::LaunchRegion), true, {{RANGE(LaunchRegion, address, length)}}},
    {Command::kLaunchUpdateVmsa, sizeof(psp::LaunchRegion), true, {{RANGE(LaunchRegion, address, length)}}},
    {Command::kLaunchMeasure, sizeof(psp::LaunchRegion), true, {{RANGE(LaunchRegion, address, length)}}},
    {Command::kLaunchSecret,
     sizeof(psp::Packet),
     true,
     {{RANGE(Packet, header_address, header_length), RANGE(Packet, guest_address, guest_length),
       RANGE(Packet, packet_address, packet_length)}}},
    {Command::kLaunchFinish, sizeof(psp::HandleOnly), true, {}},
    {Command::kAttestation, sizeof(psp::Attestation), true, {{RANGE(Attestation, address, length)}}},
    {Command::kDbgDecrypt, sizeof(psp::Dbg), true, {{RANGE(Dbg, source, length), RANGE(Dbg, destination, length)}}},
    {Command::kDbgEncrypt, sizeof(psp::Dbg), true, {{RANGE(Dbg, source, length), RANGE(Dbg, destination, length)}}},
    {Command::kSendStart,
     sizeof(psp::SendStart),
     true,
     {{RANGE(SendStart, pdh_address, pdh_length),
       RANGE(SendStart, platform_certificates_address, platform_certificates_length),
       RANGE(SendStart, amd_certificates_address, amd_certificates_length),
       RANGE(SendStart, session_address, session_length)}}},
    {Command::kSendUpdateData,
     sizeof(psp::Packet),
     true,
     {{RANGE(Packet, header_address, header_length), RANGE(Packet, guest_address, guest_length),
       RANGE(Packet, packet_address, packet_length)}}},
    {Command::kSendUpdateVmsa,
     sizeof(psp::Packet),
     true,
     {{RANGE(Packet, header_address, header_length), RANGE(Packet, guest_address, guest_length),
       RANGE(Packet, packet_address, packet_length)}}},
    {Command::kSendFinish, sizeof(psp::HandleOnly), true, {}},
    {Command::kSendCancel, sizeof(psp::HandleOnly), true, {}},
    {Command::kReceiveStart,
     sizeof(psp::LaunchStart),
     false,
     {{RANGE(LaunchStart, dh_address, dh_length), RANGE(LaunchStart, session_address, session_length)}}},
    {Command::kReceiveUpdateData,
     sizeof(psp::Packet),
     true,
     {{RANGE(Packet, header_address, header_length), RANGE(Packet, guest_address, guest_length),
       RANGE(Packet, packet_address, packet_length)}}},
    {Command::kReceiveUpdateVmsa,
     sizeof(psp::Packet),
     true,
     {{RANGE(Packet, header_address, header_length), RANGE(Packet, guest_address, guest_length),
       RANGE(Packet, packet_address, packet_length)}}},
    {Command::kReceiveFinish, sizeof(psp::HandleOnly), true, {}},
    {static_cast<Command>(0xffff), 8, false, {}},
};
#undef RANGE

struct Controller : MemoryController {
  std::map<std::uint32_t, GuestMemory> guests;
  void install_key(std::uint32_t asid, const Key128& key, const Key128& tweak_key) override {
    guests[asid].set_key(key, tweak_key);
  }
  void remove_key(std::uint32_t asid) override { FUZZ_CHECK(guests.erase(asid) == 1); }
  void encrypt_in_place(std::uint32_t asid, std::span<std::byte> memory) override {
    guests.at(asid).encrypt_host(memory.data(), memory.size());
  }
  void decrypt(std::uint32_t asid, std::span<const std::byte> memory, std::span<std::byte> plain) override {
    guests.at(asid).decrypt_host(memory.data(), plain);
  }
  void store(std::uint32_t asid, std::span<std::byte> memory, std::span<const std::byte> plain) override {
    guests.at(asid).store_private(memory.data(), plain);
  }
};

// NVRAM that has the same content at the start of each input. The bytes are no secret here.
class SharedNvram final : public Nvram {
 public:
  explicit SharedNvram(std::span<const std::byte> first) : first_(first) {}
  [[nodiscard]] sev::SecretBytes read() const override {
    const std::span<const std::byte> now = written_ ? std::span<const std::byte>(*written_) : first_;
    return {now.begin(), now.end()};
  }
  [[nodiscard]] bool write(std::span<const std::byte> bytes) override {
    written_.emplace(bytes.size());
    if (!bytes.empty()) std::memcpy(written_->data(), bytes.data(), bytes.size());
    return true;
  }

 private:
  std::span<const std::byte> first_;
  std::optional<std::vector<std::byte>> written_;
};

// All inputs begin with copies of two.
std::shared_ptr<const PlatformIdentity> identity_of(std::size_t platform) {
  static const std::array<PlatformIdentity, 2> kMade{make_platform_identity(), make_platform_identity()};
  static const std::array<sev::SecretBytes, 2> kKept{kMade[0].nvram->read(), kMade[1].nvram->read()};
  auto identity = std::make_shared<PlatformIdentity>(kMade[platform]);
  identity->nvram = std::make_shared<SharedNvram>(kKept[platform]);
  return identity;
}

struct Platform {
  explicit Platform(std::size_t index)
      : processor(index, {.max_asid = 4, .min_plain_sev_asid = 3}, memory, identity_of(index)) {}
  std::optional<psp::GuestStatus> guest(std::uint32_t handle) {
    psp::GuestStatus status{};
    status.handle = handle;
    if (processor.run(Command::kGuestStatus, status) != Status::kSuccess) return std::nullopt;
    return status;
  }
  Controller memory;
  SecureProcessor processor;
};

// An address of the input's choice: none, or one in the arena, with a length that ends in it. What the input says of
// both is kept as far as it can be.
void aim(std::span<std::byte> buffer, const Range& range, std::span<std::byte> arena) {
  const auto wanted = load<std::uint64_t>(&buffer[range.address_at]);
  if (wanted == 0) return;
  const std::size_t offset = wanted % arena.size();
  store(&buffer[range.address_at], static_cast<std::uint64_t>(reinterpret_cast<std::uintptr_t>(&arena[offset])));
  const auto length = load<std::uint32_t>(&buffer[range.length_at]);
  store(&buffer[range.length_at], static_cast<std::uint32_t>(std::min<std::size_t>(length, arena.size() - offset)));
}

// INIT of the input's choice, with the memory region that SEV-ES needs where it is asked for.
void aim_init(std::span<std::byte> buffer) {
  constexpr std::uint32_t kTmr = 1 << 20;
  if (load<std::uint32_t>(buffer.data()) != psp::kInitEs) return;
  store(&buffer[offsetof(psp::Init, tmr_address)], std::uint64_t{kTmr});
  store(&buffer[offsetof(psp::Init, tmr_length)], kTmr);
}

// What a command would find in the arena: all certificates of both platforms.
std::array<std::byte, kArenaSize> certificates() {
  std::array<std::byte, kArenaSize> arena{};
  for (std::size_t i = 0; i < 2; ++i) {
    const sev::CertificateChain chain = identity_of(i)->chain();
    auto to = arena.begin() + static_cast<std::ptrdiff_t>(i * 0x4000);
    for (const sev::Certificate* certificate : {&chain.pdh, &chain.pek, &chain.oca, &chain.cek}) {
      to = std::ranges::copy(certificate->bytes(), to).out;
    }
    to = std::ranges::copy(chain.ask.bytes(), to).out;
    std::ranges::copy(chain.ark.bytes(), to);
  }
  return arena;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  fuzz::Input input(data, size);
  alignas(kPageSize) static std::array<std::byte, kArenaSize> arena;
  static const std::array<std::byte, kArenaSize> kFirst = certificates();
  arena = kFirst;
  fuzz::restart_new_keys();
  std::array<Platform, 2> platforms{Platform(0), Platform(1)};
  for (std::size_t count = 0; count < kMaxCommands && !input.empty(); ++count) {
    const auto choice = input.take<std::uint8_t>();
    Platform& platform = platforms[choice >> 7];
    const Kind& kind = kKinds[(choice & 0x7f) % std::size(kKinds)];
    alignas(8) std::array<std::byte, kLargestBuffer> storage{};
    const auto buffer = std::span(storage).first(kind.size);
    std::ranges::copy(input.bytes(kind.size), buffer.begin());
    if (kind.command == Command::kInit) aim_init(buffer);
    for (const Range& range : kind.ranges) {
      if (range.length_at != 0) aim(buffer, range, arena);
    }
    // Two ranges may share a length: the second may have made it shorter, never longer.
    const std::uint32_t handle = kind.of_guest ? load<std::uint32_t>(buffer.data()) : 0;
    const auto before = platform.guest(handle);
    const auto state = platform.processor.state();
    if ((choice & 0x7f) == 0x7f) platform.processor.caches_written_back();
    const Status status = platform.processor.run(kind.command, buffer);
    FUZZ_CHECK(status <= Status::kSecureDataInvalid);
    if (kind.of_guest && !before) FUZZ_CHECK(status != Status::kSuccess);
    if (status == Status::kSuccess) continue;
    // A command that fails changes no state.
    FUZZ_CHECK(platform.processor.state() == state);
    const auto after = platform.guest(handle);
    FUZZ_CHECK(before.has_value() == after.has_value());
    if (before) {
      FUZZ_CHECK(before->state == after->state && before->asid == after->asid && before->policy == after->policy);
    }
  }
  return 0;
}
