#include "vmm/cli/secret_files.hpp"

#include <algorithm>
#include <fmt/format.h>
#include <utility>

#include "base/error.hpp"
#include "sev/encoding.hpp"

namespace sevisor::cli {

std::vector<sev::SecretEntry> read_secrets(const std::vector<std::string>& specifications) {
  std::vector<sev::SecretEntry> entries;
  for (const std::string& specification : specifications) {
    const std::size_t colon = specification.find(':');
    const auto guid = sev::parse_secret_name(std::string_view(specification).substr(0, colon));
    if (colon == std::string::npos || !guid) {
      throw Error(ExitCode::kBadUsage, fmt::format("read the secret '{}'", specification),
                  "it does not have the form GUID:FILE", "Give a GUID, or luks-key, then a colon and the file's path.");
    }
    const std::string path = specification.substr(colon + 1);
    sev::SecretBytes bytes = read_secret_file("secret", path, sev::kMaxSecretSize);
    if (bytes.empty()) {
      throw Error(ExitCode::kBadUsage, fmt::format("read the secret '{}'", path), "it is empty",
                  "A guest would take the empty text for its key: give the file that has it.");
    }
    entries.push_back({*guid, std::move(bytes)});
  }
  return entries;
}

void write_packet(const sev::SecretPacket& packet, const std::string& header_file, const std::string& payload_file,
                  PacketForm form, Overwrite overwrite) {
  const auto write = [&](const std::string& path, std::span<const std::byte> bytes) {
    if (form == PacketForm::kRaw) {
      write_file(path, bytes, Readable::kOwnerOnly, overwrite);
    } else {
      const std::string text = sev::to_base64(bytes);
      write_file(path, std::as_bytes(std::span(text)), Readable::kOwnerOnly, overwrite);
    }
  };
  // Whoever waits for the header finds the payload there already.
  write(payload_file, packet.payload);
  write(header_file, packet.header);
}

sev::SecretPacket read_packet(const std::string& header_file, const std::string& payload_file) {
  const sev::SecretBytes header = read_blob_file("secret's header", header_file, sev::kSecretHeaderSize);
  const sev::SecretBytes payload = read_blob_file("secret's payload", payload_file, 0);
  if (payload.size() % 16 != 0 || payload.size() > sev::kMaxSecretSize) {
    throw Error(
        ExitCode::kBadUsage, fmt::format("read the secret's payload '{}'", payload_file),
        fmt::format("it has {} bytes; a multiple of 16 up to {} is needed", payload.size(), sev::kMaxSecretSize),
        "Give the file as it was made.");
  }
  constexpr std::size_t kFlagsSize = 4;  // bit 0 would say that it is compressed, which no platform takes
  if (std::any_of(header.begin(), header.begin() + kFlagsSize, [](std::byte b) { return b != std::byte{0}; })) {
    throw Error(ExitCode::kBadUsage, fmt::format("read the secret's header '{}'", header_file), "its flags are not 0",
                "Give the file as it was made.");
  }
  sev::SecretPacket packet;
  std::copy(header.begin(), header.end(), packet.header.begin());
  packet.payload.assign(payload.begin(), payload.end());
  return packet;
}

}  // namespace sevisor::cli
