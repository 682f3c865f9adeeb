#include "emulator/psp/platform_identity.hpp"

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <fcntl.h>
#include <filesystem>
#include <fmt/format.h>
#include <span>
#include <string_view>
#include <sys/stat.h>
#include <unistd.h>
#include <utility>

#include "base/error.hpp"
#include "base/unique_fd.hpp"
#include "emulator/psp/secure_processor.hpp"

namespace sevisor::emulator {

namespace {

namespace fs = std::filesystem;
using sev::Certificate;
using sev::KeyAlgorithm;
using sev::KeyUsage;
using sev::PrivateKey;
using sev::RootCertificate;

constexpr unsigned kRsaBits = 2048;            // as AMD's first generation has it, Naples
constexpr std::size_t kMaxFileSize = 1 << 16;  // bytes

constexpr const char* kKeyFile = "cek.key";  // the private number alone, 48 bytes, big-endian
constexpr const char* kNvramFile = "nvram";

RootCertificate::KeyId id_of(std::string_view text) {
  RootCertificate::KeyId id{};
  std::ranges::copy(std::as_bytes(std::span(text)).first(id.size()), id.begin());
  return id;
}

[[noreturn]] void refuse(const std::string& tried, std::string came_back, std::string advice = {}) {
  throw Error(ExitCode::kBadUsage, tried, std::move(came_back), std::move(advice));
}

void write_new(const fs::path& path, std::span<const std::byte> bytes, mode_t mode) {
  const UniqueFd fd(::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode));
  if (!fd || ::write(fd.get(), bytes.data(), bytes.size()) != static_cast<ssize_t>(bytes.size())) {
    refuse(fmt::format("write '{}'", path.string()), errno_text(errno));
  }
}

sev::SecretBytes read_whole(const fs::path& path) {
  const std::string tried = fmt::format("read '{}'", path.string());
  const UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd) {
    refuse(tried, errno_text(errno),
           "If the emulated platform's folder is damaged, remove it: a new one will be made.");
  }
  sev::SecretBytes bytes(kMaxFileSize);
  const ssize_t size = ::read(fd.get(), bytes.data(), bytes.size());
  if (size < 0) refuse(tried, errno_text(errno));
  bytes.resize(static_cast<std::size_t>(size));
  return bytes;
}

void save(const PlatformIdentity& identity, const fs::path& folder) {
  write_new(folder / "ark.cert", identity.ark.bytes(), 0644);
  write_new(folder / "ask.cert", identity.ask.bytes(), 0644);
  write_new(folder / "cek.cert", identity.chip.cek.bytes(), 0644);
  write_new(folder / "chip.id", identity.chip.id, 0644);
  write_new(folder / kKeyFile, identity.chip.cek_key.scalar(), 0600);
  const sev::SecretBytes keys = identity.nvram->read();
  write_new(folder / kNvramFile, keys, 0600);
}

PlatformIdentity load(const fs::path& folder) {
  const auto root = [&](const char* file, const char* what) {
    return RootCertificate::parse(read_whole(folder / file), what);
  };
  const std::string tried = fmt::format("read the emulated platform's folder '{}'", folder.string());
  constexpr const char* kRemove = "Remove the folder: a new one will be made.";
  auto key = PrivateKey::of_scalar(sev::Curve::kP384, read_whole(folder / kKeyFile));
  if (!key) refuse(tried, fmt::format("'{}' is no private key of curve P-384", kKeyFile), kRemove);
  PlatformIdentity identity{root("ark.cert", "ARK"), root("ask.cert", "ASK"),
                            ChipKeys{{}, Certificate::parse(read_whole(folder / "cek.cert"), "CEK"), *std::move(key)},
                            make_file_nvram(folder / kNvramFile)};
  const sev::SecretBytes id = read_whole(folder / "chip.id");
  if (id.size() != identity.chip.id.size()) refuse(tried, "'chip.id' has not 64 bytes", kRemove);
  std::ranges::copy(id, identity.chip.id.begin());
  const Certificate own = Certificate::make(KeyUsage::kCek, KeyAlgorithm::kEcdsaSha256, identity.chip.cek_key,
                                            identity.chip.cek.api_major(), identity.chip.cek.api_minor());
  constexpr std::size_t kSignedPart = 1044;
  if (!std::ranges::equal(own.bytes().first<kSignedPart>(), identity.chip.cek.bytes().first<kSignedPart>())) {
    refuse(tried, "the private key in it is not the CEK certificate's", kRemove);
  }
  return identity;
}

// Makes the folder whole under another name first, so that it is there whole or not at all.
void make_folder(const fs::path& folder) {
  const std::string tried = fmt::format("make the emulated platform's folder '{}'", folder.string());
  std::error_code error;
  fs::create_directories(folder.parent_path(), error);
  if (error) refuse(tried, error.message(), "Set XDG_DATA_HOME to a folder that can be written.");
  std::string temporary = folder.string() + ".XXXXXX";
  if (::mkdtemp(temporary.data()) == nullptr) refuse(tried, errno_text(errno));
  try {
    save(make_platform_identity(), temporary);
  } catch (...) {
    fs::remove_all(temporary, error);
    throw;
  }
  if (::rename(temporary.c_str(), folder.c_str()) != 0) {
    const int rename_error = errno;
    fs::remove_all(temporary, error);
    // Another process may have been faster; its folder is as good.
    if (rename_error != ENOTEMPTY && rename_error != EEXIST) refuse(tried, errno_text(rename_error));
  }
}

}  // namespace

sev::CertificateChain PlatformIdentity::chain() const {
  const auto keys = decode_keys(nvram->read(), chip);
  if (!keys) {
    refuse("read the emulated platform's NVRAM", "it is damaged, or another platform's",
           "Start a guest once: the firmware replaces it.");
  }
  return {ark, ask, chip.cek, keys->oca, keys->pek, keys->pdh};
}

PlatformIdentity make_platform_identity() {
  const PrivateKey ark_key = PrivateKey::make_rsa(kRsaBits);
  const PrivateKey ask_key = PrivateKey::make_rsa(kRsaBits);
  const KeySource new_key = [] { return PrivateKey::make_ec(sev::Curve::kP384); };
  const RootCertificate::KeyId root_id = id_of(sev::kSoftwareRootId);
  const PrivateKey cek_key = new_key();
  Certificate cek = make_platform_certificate(KeyUsage::kCek, KeyAlgorithm::kEcdsaSha256, cek_key);
  cek.sign(KeyUsage::kAsk, KeyAlgorithm::kRsaSha256, ask_key);
  PlatformIdentity identity{
      RootCertificate::make(KeyUsage::kArk, root_id, ark_key, root_id, ark_key),
      RootCertificate::make(KeyUsage::kAsk, id_of(sev::kSoftwareSigningId), ask_key, root_id, ark_key),
      ChipKeys{{}, cek, cek_key}, make_volatile_nvram()};
  sev::fill_random(identity.chip.id);
  if (!identity.nvram->write(encode_keys(make_platform_keys(identity.chip, new_key)))) {
    refuse("make an emulated platform", "its NVRAM cannot be written");
  }
  return identity;
}

std::shared_ptr<const PlatformIdentity> load_platform_identity(const std::string& folder) {
  struct stat status {};
  if (::stat(folder.c_str(), &status) != 0) make_folder(folder);
  return std::make_shared<const PlatformIdentity>(load(folder));
}

std::string platform_identity_folder() {
  const auto variable = [](const char* name) {
    const char* value = std::getenv(name);
    return std::string(value == nullptr ? "" : value);
  };
  std::string data = variable("XDG_DATA_HOME");
  if (data.empty() || data.front() != '/') {  // the specification: a relative path is invalid
    const std::string home = variable("HOME");
    if (home.empty()) {
      refuse("find the user's data folder", "neither XDG_DATA_HOME nor HOME is set", "Set one of them.");
    }
    data = home + "/.local/share";
  }
  return data + "/sevisor/emulated-platform";
}

}  // namespace sevisor::emulator
