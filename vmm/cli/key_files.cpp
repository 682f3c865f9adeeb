#include "vmm/cli/key_files.hpp"

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <fcntl.h>
#include <fmt/format.h>
#include <iterator>
#include <sys/stat.h>
#include <unistd.h>
#include <utility>

#include "base/error.hpp"
#include "base/output_file.hpp"
#include "base/unique_fd.hpp"
#include "sev/encoding.hpp"

namespace sevisor::cli {

namespace {

constexpr std::size_t kMaxBlob = 1 << 20;  // bytes; the largest blob there is has 16 KiB

[[noreturn]] void refuse(std::string_view what, const std::string& path, std::string came_back,
                         std::string advice = {}) {
  throw Error(ExitCode::kBadUsage, fmt::format("read the {} '{}'", what, path), std::move(came_back),
              std::move(advice));
}

bool is_space(std::byte b) {
  const char c = static_cast<char>(b);
  return c == ' ' || c == '\n' || c == '\r' || c == '\t';
}

// What the bytes say as base64, line breaks aside; nothing if they are none.
std::optional<sev::SecretBytes> decode(const sev::SecretBytes& bytes) {
  sev::SecretBytes text;
  std::ranges::remove_copy_if(bytes, std::back_inserter(text), is_space);
  auto plain = sev::secret_from_base64({reinterpret_cast<const char*>(text.data()), text.size()});
  return plain && !plain->empty() ? std::move(plain) : std::nullopt;
}

}  // namespace

sev::SecretBytes read_secret_file(std::string_view what, const std::string& path, std::size_t max_size) {
  const UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd) refuse(what, path, errno_text(errno));
  sev::SecretBytes bytes;
  for (;;) {
    const std::size_t have = bytes.size();
    constexpr std::size_t kPiece = 4096;
    bytes.resize(have + kPiece);
    const ssize_t got = ::read(fd.get(), bytes.data() + have, kPiece);
    bytes.resize(have + (got > 0 ? static_cast<std::size_t>(got) : 0));
    if (got < 0 && errno != EINTR) refuse(what, path, errno_text(errno));
    if (bytes.size() > max_size) refuse(what, path, fmt::format("it has more than {} bytes", max_size));
    if (got == 0) return bytes;
  }
}

sev::Wiped<sev::TransportKey> read_key_file(std::string_view what, const std::string& path) {
  const sev::SecretBytes bytes = read_blob_file(what, path, sev::kTransportKeySize);
  sev::Wiped<sev::TransportKey> key;
  std::copy(bytes.begin(), bytes.end(), key->begin());
  return key;
}

std::optional<sev::TransportKeys> read_transport_keys(const KeyOptions& options) {
  if (options.tik.empty() && options.tek.empty() && options.tk.empty()) return std::nullopt;
  sev::TransportKeys keys;
  if (!options.tk.empty()) {
    if (!options.tik.empty() || !options.tek.empty()) {
      throw Error(ExitCode::kBadUsage, "read the transport keys", "--tk is given together with --tik or --tek",
                  "Give either --tk, or --tik and --tek.");
    }
    const sev::SecretBytes both = read_blob_file("TEK and TIK", options.tk, 2 * sev::kTransportKeySize);
    std::copy_n(both.begin(), sev::kTransportKeySize, keys.tek->begin());
    std::copy_n(both.begin() + sev::kTransportKeySize, sev::kTransportKeySize, keys.tik->begin());
    return keys;
  }
  if (options.tik.empty()) {
    throw Error(ExitCode::kBadUsage, "read the transport keys", "--tek is given without --tik",
                "Give --tik, or --tk with both.");
  }
  keys.tik = read_key_file("TIK", options.tik);
  if (!options.tek.empty()) keys.tek = read_key_file("TEK", options.tek);
  return keys;
}

sev::SecretBytes read_blob_file(std::string_view what, const std::string& path, std::size_t size) {
  sev::SecretBytes bytes = read_secret_file(what, path, kMaxBlob);
  std::optional<sev::SecretBytes> decoded = decode(bytes);
  if (size == 0) {
    if (bytes.empty()) refuse(what, path, "it is empty");
    return decoded ? *std::move(decoded) : std::move(bytes);
  }
  if (bytes.size() == size) return bytes;
  if (decoded && decoded->size() == size) return *std::move(decoded);
  refuse(what, path,
         decoded ? fmt::format("it holds base64 of {} bytes, not of {}", decoded->size(), size)
                 : fmt::format("it has {} bytes, not {}, and is not base64", bytes.size(), size),
         "Give the file as it was made.");
}

void write_file(const std::string& path, std::span<const std::byte> bytes, Readable readable, Overwrite overwrite) {
  const std::string tried = fmt::format("write '{}'", path);
  constexpr mode_t kMode = 0644;
  if (overwrite == Overwrite::kYes) {
    const int error = write_file_whole(path, bytes, readable == Readable::kAll ? kMode : 0600);
    if (error != 0) throw Error(ExitCode::kBadUsage, tried, errno_text(error), "Give a path that can be written.");
    return;
  }
  std::string temporary = path + ".XXXXXX";
  const UniqueFd fd(::mkostemp(temporary.data(), O_CLOEXEC));  // mode 0600
  if (!fd) throw Error(ExitCode::kBadUsage, tried, errno_text(errno), "Give a path that can be written.");
  try {
    if (const int error = write_whole(fd.get(), bytes); error != 0) {
      throw Error(ExitCode::kBadUsage, tried, errno_text(error));
    }
    if (readable == Readable::kAll) {
      const mode_t mask = ::umask(0);
      ::umask(mask);
      if (::fchmod(fd.get(), kMode & ~mask) != 0) throw Error(ExitCode::kBadUsage, tried, errno_text(errno));
    }
    // link(2) never replaces.
    if (::link(temporary.c_str(), path.c_str()) != 0) {
      if (errno == EEXIST) {
        throw Error(ExitCode::kBadUsage, tried, "it exists already", "Use another name, or --force to replace it.");
      }
      throw Error(ExitCode::kBadUsage, tried, errno_text(errno));
    }
    ::unlink(temporary.c_str());
  } catch (...) {
    ::unlink(temporary.c_str());
    throw;
  }
}

}  // namespace sevisor::cli
