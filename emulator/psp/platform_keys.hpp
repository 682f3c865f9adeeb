// The keys of a platform: those in the chip from its making, and those that the firmware makes and keeps in NVRAM.
// AMD SEV API (55766) section 1.2.4 and chapter 5.
#pragma once

#include <array>
#include <cstddef>
#include <functional>
#include <optional>
#include <span>

#include "sev/certificate.hpp"
#include "sev/public_key.hpp"
#include "sev/secret_memory.hpp"

namespace sevisor::emulator {

// Makes an EC key of P-384.
using KeySource = std::function<sev::PrivateKey()>;

struct ChipKeys {
  std::array<std::byte, 64> id{};  // what GET_ID answers: AMD's servers know the CEK's certificate by it
  sev::Certificate cek;
  sev::PrivateKey cek_key;
};

struct PlatformKeys {
  sev::Certificate oca;
  std::optional<sev::PrivateKey> oca_key;  // nothing: the platform is owned from outside
  sev::Certificate pek;
  sev::PrivateKey pek_key;
  sev::Certificate pdh;
  sev::PrivateKey pdh_key;
};

// A certificate of this firmware's version, without signatures.
[[nodiscard]] sev::Certificate make_platform_certificate(sev::KeyUsage usage, sev::KeyAlgorithm algorithm,
                                                         const sev::PrivateKey& key);
// A platform that nobody owns: PDH, PEK and OCA are made in this order.
[[nodiscard]] PlatformKeys make_platform_keys(const ChipKeys& chip, const KeySource& new_key);
// PDH_GEN.
void replace_pdh(PlatformKeys& keys, sev::PrivateKey pdh_key);
// What PEK_CSR gives out.
[[nodiscard]] sev::Certificate make_signing_request(const PlatformKeys& keys);

// For NVRAM, with a checksum.
[[nodiscard]] sev::SecretBytes encode_keys(const PlatformKeys& keys);
// Nothing when a byte is missing or wrong, or the keys are not this chip's.
[[nodiscard]] std::optional<PlatformKeys> decode_keys(std::span<const std::byte> bytes, const ChipKeys& chip);

}  // namespace sevisor::emulator
