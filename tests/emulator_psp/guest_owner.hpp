// A guest owner, who makes a session for a platform and packs secrets: the other side of LAUNCH_START and
// LAUNCH_SECRET.
#pragma once

#include <algorithm>
#include <array>
#include <cstring>
#include <vector>

#include "base/bytes.hpp"
#include "emulator/psp/session.hpp"
#include "sev/sha256.hpp"

namespace sevisor::test {

struct GuestOwner {
  emulator::SeededRandom random{4711};
  emulator::P384Key key{random};
  emulator::TransportKeys keys{.tek = random.key(), .tik = random.key()};

  [[nodiscard]] std::vector<std::byte> certificate() const {
    std::vector<std::byte> bytes(emulator::kCertificateBytes);
    store(bytes.data(), std::uint32_t{1});           // version
    store(bytes.data() + 8, std::uint32_t{0x1003});  // usage: PDH
    store(bytes.data() + 12, std::uint32_t{3});      // ECDH with SHA-256
    store(bytes.data() + 16, std::uint32_t{2});      // P-384
    const auto& point = key.public_point();
    std::reverse_copy(point.x.begin(), point.x.end(), bytes.begin() + 20);
    std::reverse_copy(point.y.begin(), point.y.end(), bytes.begin() + 92);
    return bytes;
  }

  [[nodiscard]] std::vector<std::byte> session(const emulator::P384Point& pdh, std::uint32_t policy) {
    const emulator::Key128 nonce = random.key();
    const emulator::Key128 iv = random.key();
    const auto secret = key.shared_secret(pdh);
    const emulator::Key128 master = emulator::derive_key(*secret, "sev-master-secret", nonce);
    const emulator::Key128 kek = emulator::derive_key(master, "sev-kek", {});
    const emulator::Key128 kik = emulator::derive_key(master, "sev-kik", {});
    std::array<std::byte, 32> both;
    std::copy(keys.tek.begin(), keys.tek.end(), both.begin());
    std::copy(keys.tik.begin(), keys.tik.end(), both.begin() + 16);
    std::array<std::byte, 32> wrapped;
    emulator::aes128_ctr(kek, iv, both, wrapped);
    std::vector<std::byte> bytes;
    const auto append = [&](auto part) { bytes.insert(bytes.end(), part.begin(), part.end()); };
    append(nonce);
    append(wrapped);
    append(iv);
    append(sev::hmac_sha256(kik, wrapped));
    append(sev::hmac_sha256(keys.tik, std::as_bytes(std::span(&policy, 1))));
    return bytes;
  }

  struct Packet {
    std::vector<std::byte> header;
    std::vector<std::byte> data;
  };
  [[nodiscard]] Packet pack(std::span<const std::byte> secret, std::span<const std::byte> measurement) {
    Packet packet{.header = std::vector<std::byte>(52), .data = std::vector<std::byte>(secret.size())};
    const emulator::Key128 iv = random.key();
    emulator::aes128_ctr(keys.tek, iv, secret, packet.data);
    std::copy(iv.begin(), iv.end(), packet.header.begin() + 4);
    const auto length = static_cast<std::uint32_t>(secret.size());
    std::vector<std::byte> text{std::byte{1}};
    const auto append = [&](std::span<const std::byte> part) { text.insert(text.end(), part.begin(), part.end()); };
    append(std::span(packet.header).first(20));
    append(std::as_bytes(std::span(&length, 1)));
    append(std::as_bytes(std::span(&length, 1)));
    append(packet.data);
    append(measurement);
    const sev::Digest mac = sev::hmac_sha256(keys.tik, text);
    std::copy(mac.begin(), mac.end(), packet.header.begin() + 20);
    return packet;
  }
};

}  // namespace sevisor::test
