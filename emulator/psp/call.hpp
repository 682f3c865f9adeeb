// What the handlers of commands share. Part of the Secure Processor's implementation.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "base/bytes.hpp"
#include "emulator/psp/secure_processor.hpp"
#include "sev/policy.hpp"

namespace sevisor::emulator {

// The table has checked the buffer's size.
template <class Buffer>
Buffer SecureProcessor::Call::in() const {
  return load<Buffer>(buffer.data());
}
template <class Buffer>
void SecureProcessor::Call::out(const Buffer& value) const {
  sevisor::store(buffer.data(), value);
}

// An address in a command is one of this process: the emulated host's DRAM.
inline std::span<std::byte> memory_at(std::uint64_t address, std::size_t length) {
  return {reinterpret_cast<std::byte*>(address), length};
}

inline constexpr std::uint32_t kBlock = 16;  // bytes: what addresses and lengths of guest memory are multiples of
inline constexpr std::uint32_t kVmsaBytes = 4096;

// Of guest memory.
[[nodiscard]] inline sev::FirmwareStatus check_region(std::uint64_t address, std::uint32_t length) {
  constexpr std::uint32_t kMaxTransfer = 1U << 31;
  if (address == 0 || address % kBlock != 0) return sev::FirmwareStatus::kInvalidAddress;
  if (length == 0 || length % kBlock != 0 || length > kMaxTransfer) return sev::FirmwareStatus::kInvalidLength;
  return sev::FirmwareStatus::kSuccess;
}

// Whether a firmware of this version may have a guest of this policy.
[[nodiscard]] inline bool api_allowed(std::uint32_t policy, std::uint8_t major, std::uint8_t minor) {
  const auto least_major = static_cast<std::uint8_t>(policy >> sev::kPolicyApiMajorShift);
  const auto least_minor = static_cast<std::uint8_t>(policy >> sev::kPolicyApiMinorShift);
  return major > least_major || (major == least_major && minor >= least_minor);
}

// --- packets of SEND_UPDATE_* and RECEIVE_UPDATE_* (packet.cpp) ---

#pragma pack(push, 1)
struct PacketHeader {
  std::uint32_t flags;  // bit 0: compressed
  std::byte iv[16];
  std::byte mac[32];
};
#pragma pack(pop)
static_assert(sizeof(PacketHeader) == 52);

// First byte of what the MAC covers: what the packet is for (SEV API sections on LAUNCH_SECRET, 1; SEND_UPDATE_DATA, 2;
// SEND_UPDATE_VMSA, 3; LAUNCH_MEASURE, 4). AMD's own sev-tool has 1 and 4, and the header's layout (src/commands.cpp,
// src/sevapi.h); no public program makes or takes packets of the other two.
inline constexpr std::byte kUpdateDataContext{0x02};
inline constexpr std::byte kUpdateVmsaContext{0x03};

[[nodiscard]] sev::Digest packet_mac(const sev::TransportKey& tik, std::byte context, const PacketHeader& header,
                                     std::uint32_t guest_length, std::span<const std::byte> packet);

}  // namespace sevisor::emulator
