#include "sev/launch_secret.hpp"

#include <algorithm>
#include <cstring>
#include <fmt/format.h>
#include <stdexcept>

#include "base/bytes.hpp"
#include "base/error.hpp"
#include "sev/crypto.hpp"

namespace sevisor::sev {

namespace {

constexpr std::size_t kEntryOverhead = Guid::kSize + 4;  // GUID, u32 length
constexpr std::size_t kBlock = 16;                       // bytes: what LAUNCH_SECRET works in

// The packet's header: flags, of which bit 0 would say that the payload is compressed; IV; MAC.
constexpr std::size_t kIvAt = 4;
constexpr std::size_t kMacAt = 20;
constexpr std::byte kSecretContext{0x01};  // first byte of what the MAC covers

[[noreturn]] void refuse(const char* tried, std::string came_back) {
  throw Error(ExitCode::kBadUsage, tried, std::move(came_back));
}

void put_entry_header(SecretBytes& table, const Guid& guid, std::size_t length) {
  const auto stored = std::as_bytes(std::span(guid.bytes));
  table.insert(table.end(), stored.begin(), stored.end());
  table.resize(table.size() + 4);
  store(table.data() + table.size() - 4, static_cast<std::uint32_t>(length));
}

Digest packet_mac(const TransportKey& tik, const ApiVersion& api, const Measurement& measurement,
                  std::span<const std::byte> header, std::span<const std::byte> payload) {
  std::vector<std::byte> text{kSecretContext};
  const auto append = [&text](std::span<const std::byte> bytes) {
    text.insert(text.end(), bytes.begin(), bytes.end());
  };
  append(header.first(kMacAt));
  const auto length = static_cast<std::uint32_t>(payload.size());
  append(std::as_bytes(std::span(&length, 1)));  // in the guest
  append(std::as_bytes(std::span(&length, 1)));  // in the packet; it would be less if compressed
  append(payload);
  if (api.major > 0 || api.minor >= 17) append(std::span(measurement).first<sizeof(Digest)>());
  return hmac_sha256(tik, text);
}

}  // namespace

std::optional<Guid> parse_secret_name(std::string_view text) {
  if (text == "luks-key") return kLuksKeyGuid;
  try {
    return Guid::parse(text);
  } catch (const std::invalid_argument&) {
    return std::nullopt;
  }
}

SecretBytes build_secret_table(std::span<const SecretEntry> entries) {
  constexpr const char* kTried = "build the secret table";
  if (entries.empty()) refuse(kTried, "there are no secrets to put into it");
  std::size_t total = kEntryOverhead;
  for (const SecretEntry& entry : entries) {
    if (entry.data.size() > kMaxSecretSize) {
      refuse(kTried, fmt::format("secret {} has {} bytes", entry.guid.to_string(), entry.data.size()));
    }
    total += kEntryOverhead + entry.data.size();
    if (total > kMaxSecretSize) refuse(kTried, fmt::format("it would have more than {} bytes", kMaxSecretSize));
    const auto same = [&entry](const SecretEntry& other) { return other.guid == entry.guid; };
    if (std::ranges::count_if(entries, same) > 1) {
      refuse(kTried, fmt::format("secret {} is given twice", entry.guid.to_string()));
    }
  }
  SecretBytes table;
  table.reserve(align_up(total, kBlock));
  put_entry_header(table, kSecretTableGuid, total);
  for (const SecretEntry& entry : entries) {
    put_entry_header(table, entry.guid, kEntryOverhead + entry.data.size());
    table.insert(table.end(), entry.data.begin(), entry.data.end());
  }
  table.resize(align_up(table.size(), kBlock));
  return table;
}

std::vector<SecretEntry> parse_secret_table(std::span<const std::byte> table) {
  constexpr const char* kTried = "read the secret table";
  const auto guid_at = [&](std::size_t at) { return Guid::from_bytes(table.subspan(at).first<Guid::kSize>()); };
  if (table.size() < kEntryOverhead || guid_at(0) != kSecretTableGuid) refuse(kTried, "it does not begin as one");
  const std::size_t total = load<std::uint32_t>(&table[Guid::kSize]);
  if (total < kEntryOverhead || total > table.size()) {
    refuse(kTried, fmt::format("it says it has {} bytes, {} to {} are possible", total, kEntryOverhead, table.size()));
  }
  std::vector<SecretEntry> entries;
  // Each entry takes at least 20 bytes, so this ends.
  for (std::size_t at = kEntryOverhead; at < total;) {
    if (total - at < kEntryOverhead) refuse(kTried, fmt::format("{} bytes are left for an entry", total - at));
    const std::size_t length = load<std::uint32_t>(&table[at + Guid::kSize]);
    if (length < kEntryOverhead || length > total - at) {
      refuse(kTried, fmt::format("entry {} says it has {} bytes, {} to {} are possible", guid_at(at).to_string(),
                                 length, kEntryOverhead, total - at));
    }
    const auto data = table.subspan(at + kEntryOverhead, length - kEntryOverhead);
    entries.push_back({guid_at(at), SecretBytes(data.begin(), data.end())});
    at += length;
  }
  return entries;
}

SecretPacket seal_secret(const TransportKeys& keys, const ApiVersion& api, const Measurement& measurement,
                         const Nonce& iv, std::span<const std::byte> plain) {
  constexpr const char* kTried = "package the secret";
  if (plain.empty() || plain.size() % kBlock != 0 || plain.size() > kMaxSecretSize) {
    refuse(kTried,
           fmt::format("it has {} bytes; a multiple of {} up to {} is needed", plain.size(), kBlock, kMaxSecretSize));
  }
  SecretPacket packet;
  packet.payload.resize(plain.size());
  aes128_ctr(*keys.tek, iv, plain, packet.payload);
  std::copy(iv.begin(), iv.end(), packet.header.begin() + kIvAt);
  const Digest mac = packet_mac(*keys.tik, api, measurement, packet.header, packet.payload);
  std::copy(mac.begin(), mac.end(), packet.header.begin() + kMacAt);
  return packet;
}

std::optional<SecretBytes> open_secret(const TransportKeys& keys, const ApiVersion& api, const Measurement& measurement,
                                       const SecretPacket& packet) {
  const Digest mac = packet_mac(*keys.tik, api, measurement, packet.header, packet.payload);
  if (!same_bytes(mac, std::span(packet.header).subspan(kMacAt))) return std::nullopt;
  SecretBytes plain(packet.payload.size());
  aes128_ctr(*keys.tek, std::span(packet.header).subspan<kIvAt, kNonceSize>(), packet.payload, plain);
  return plain;
}

}  // namespace sevisor::sev
