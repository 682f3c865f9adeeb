// AMD SEV API (55766) SEND_UPDATE_DATA, SEND_UPDATE_VMSA: how a packet is authenticated.
#include <vector>

#include "emulator/psp/call.hpp"

namespace sevisor::emulator {

sev::Digest packet_mac(const sev::TransportKey& tik, std::byte context, const PacketHeader& header,
                       std::uint32_t guest_length, std::span<const std::byte> packet) {
  std::vector<std::byte> text{context};
  const auto append = [&text](std::span<const std::byte> bytes) {
    text.insert(text.end(), bytes.begin(), bytes.end());
  };
  const auto append_word = [&](std::uint32_t word) { append(std::as_bytes(std::span(&word, 1))); };
  append_word(header.flags);
  append(header.iv);
  append_word(guest_length);
  append_word(static_cast<std::uint32_t>(packet.size()));
  append(packet);
  return sev::hmac_sha256(tik, text);
}

}  // namespace sevisor::emulator
