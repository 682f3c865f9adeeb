// Files of the guest owner: keys, blobs that may be base64, and writing what nobody else may read.
#pragma once

#include <cstddef>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "sev/measurement.hpp"
#include "sev/secret_memory.hpp"
#include "sev/session.hpp"

namespace sevisor::cli {

// At most `max_size` bytes, wiped after use. The file may be a pipe. Throws Error (kBadUsage).
[[nodiscard]] sev::SecretBytes read_secret_file(std::string_view what, const std::string& path, std::size_t max_size);

// 16 bytes. Throws Error (kBadUsage) that does not tell the content.
[[nodiscard]] sev::Wiped<sev::TransportKey> read_key_file(std::string_view what, const std::string& path);

// As virt-qemu-sev-validate takes them: --tik and --tek (16 bytes each), or --tk (TEK, then TIK). Nothing when none of
// the three is given. Throws Error (kBadUsage) when they contradict each other or a file is wrong.
struct KeyOptions {
  std::string tik;
  std::string tek;
  std::string tk;
};
[[nodiscard]] std::optional<sev::TransportKeys> read_transport_keys(const KeyOptions& options);

// The file's bytes, of which there must be `size`; if it holds base64 of that many, what that says. `size` 0: any
// number, and base64 when the whole file is. Throws Error (kBadUsage).
[[nodiscard]] sev::SecretBytes read_blob_file(std::string_view what, const std::string& path, std::size_t size);

enum class Overwrite : bool { kNo, kYes };

// Writes the whole file or nothing, readable by its owner only when `secret` (mode 0600). Throws Error (kBadUsage); if
// the file exists and may not be replaced, that it does.
enum class Readable : bool { kOwnerOnly, kAll };
void write_file(const std::string& path, std::span<const std::byte> bytes, Readable readable, Overwrite overwrite);

}  // namespace sevisor::cli
