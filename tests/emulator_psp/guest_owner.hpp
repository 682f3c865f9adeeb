// A guest owner, who makes a session for a platform and packs secrets: the other side of LAUNCH_START and
// LAUNCH_SECRET.
#pragma once

#include <algorithm>
#include <span>
#include <vector>

#include "emulator/psp/crypto.hpp"
#include "emulator/psp/secure_processor.hpp"
#include "sev/certificate.hpp"
#include "sev/launch_secret.hpp"
#include "sev/session.hpp"

namespace sevisor::test {

struct GuestOwner {
  GuestOwner() {
    random.fill(*keys.tek);
    random.fill(*keys.tik);
  }

  emulator::SeededRandom random{4711};
  sev::PrivateKey key = emulator::make_ecdh_key(random);
  sev::TransportKeys keys;

  [[nodiscard]] std::vector<std::byte> certificate() const {
    const auto made = sev::Certificate::make(sev::KeyUsage::kPdh, sev::KeyAlgorithm::kEcdhSha256, key, 1, 55);
    return {made.bytes().begin(), made.bytes().end()};
  }

  [[nodiscard]] std::vector<std::byte> session(const sev::PublicKey& pdh, std::uint32_t policy) {
    const sev::Nonce nonce = random.key();
    const sev::Nonce iv = random.key();
    const auto master = sev::session_master_secret(*key.shared_secret(pdh), nonce);
    const sev::Session session = sev::make_session(*master, nonce, iv, keys, policy);
    return {session.begin(), session.end()};
  }

  [[nodiscard]] sev::SecretPacket pack(std::span<const std::byte> secret, const sev::Measurement& measurement) {
    return sev::seal_secret(keys, emulator::SecureProcessor::kApi, measurement, random.key(), secret);
  }
};

}  // namespace sevisor::test
