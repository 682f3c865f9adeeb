// Secret tables, and packets and sessions that somebody else made: the input is each of them.
#include "sev/launch_secret.hpp"

#include <algorithm>
#include <array>

#include "base/error.hpp"
#include "check.hpp"

using namespace sevisor;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::span bytes(reinterpret_cast<const std::byte*>(data), size);
  try {
    const std::vector<sev::SecretEntry> entries = sev::parse_secret_table(bytes);
    std::size_t total = 20;
    for (const sev::SecretEntry& entry : entries) total += 20 + entry.data.size();
    FUZZ_CHECK(total <= size);
    const sev::SecretBytes again = sev::build_secret_table(entries);
    FUZZ_CHECK(std::ranges::equal(std::span(again).first(total), bytes.first(total)));
  } catch (const Error&) {  // no table; or one that we do not make, with no entry or with two of one name
  }
  const sev::TransportKeys keys;
  if (size >= sev::kSecretHeaderSize) {
    sev::SecretPacket packet;
    std::copy_n(bytes.begin(), packet.header.size(), packet.header.begin());
    packet.payload.assign(bytes.begin() + sev::kSecretHeaderSize, bytes.end());
    FUZZ_CHECK(!sev::open_secret(keys, {1, 55, 21}, {}, packet));
  }
  if (size >= sev::kSessionSize) {
    const std::array<std::byte, 48> shared_secret{};
    FUZZ_CHECK(!sev::open_session(shared_secret, bytes.first<sev::kSessionSize>(), 5));
  }
  return 0;
}
