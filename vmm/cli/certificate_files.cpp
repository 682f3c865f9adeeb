#include "vmm/cli/certificate_files.hpp"

#include <algorithm>
#include <filesystem>
#include <fmt/format.h>
#include <memory>
#include <optional>
#include <span>
#include <utility>

#include "base/error.hpp"
#include "emulator/kvm/emulated_host.hpp"
#include "kvm/handles.hpp"
#include "kvm/kernel_host.hpp"
#include "sev/encoding.hpp"
#include "vmm/cli/key_files.hpp"

namespace sevisor::cli {

namespace {

namespace fs = std::filesystem;
using sev::Certificate;
using sev::RootCertificate;

constexpr std::size_t kMaxFile = 4 * sev::kCertificateSize + 2 * RootCertificate::kLargestSize;  // bytes: all of them

[[noreturn]] void refuse(std::string came_back, std::string advice) {
  throw Error(ExitCode::kBadUsage, "find the platform's certificates", std::move(came_back), std::move(advice));
}

sev::SecretBytes read(const fs::path& path) { return read_secret_file("certificate", path.string(), kMaxFile); }

// ASK, then ARK.
void read_roots(std::span<const std::byte> bytes, FoundCertificates& found) {
  found.ask = RootCertificate::parse(bytes, "ASK");
  found.ark = RootCertificate::parse(bytes.subspan(found.ask->size()), "ARK");
  const std::size_t size = found.ask->size() + found.ark->size();
  if (bytes.size() != size) {
    refuse(fmt::format("{} bytes follow the ARK's certificate", bytes.size() - size),
           "Give a file with the ASK's and the ARK's certificate alone.");
  }
}

// As sev-tool --pdh_cert_export writes them: PEK, OCA and CEK in one file.
sev::PlatformCertificates from_sev_tool(const fs::path& folder) {
  const sev::SecretBytes chain = read(folder / "cert_chain.cert");
  if (chain.size() != sev::kPlatformCertificatesSize) {
    refuse(fmt::format("'{}' has {} bytes, not {}", (folder / "cert_chain.cert").string(), chain.size(),
                       sev::kPlatformCertificatesSize),
           "Give the file as it was exported: PEK, OCA and CEK.");
  }
  const sev::SecretBytes pdh = read(folder / "pdh.cert");
  (void)Certificate::parse(pdh, "PDH");  // which says what is wrong with its size
  return sev::parse_platform_certificates(pdh, chain);
}

// "ask_ark.cert", or the file of one generation under AMD's name, as "ask_ark_rome.cert".
std::optional<fs::path> find_roots(const fs::path& folder) {
  if (fs::exists(folder / "ask_ark.cert")) return folder / "ask_ark.cert";
  std::optional<fs::path> found;
  for (const auto& entry : fs::directory_iterator(folder)) {
    const std::string name = entry.path().filename().string();
    if (!name.starts_with("ask_ark_") || !name.ends_with(".cert")) continue;
    if (found) {
      refuse(fmt::format("'{}' has {} and {}", folder.string(), found->filename().string(), name),
             "Say with --roots which of them is of the platform's generation.");
    }
    found = entry.path();
  }
  return found;
}

FoundCertificates from_folder(const fs::path& folder) {
  const auto certificate = [&](const char* file, const char* what) {
    return Certificate::parse(read(folder / file), what);
  };
  const bool one_file = fs::exists(folder / "cert_chain.cert") && !fs::exists(folder / "pek.cert");
  FoundCertificates found{
      folder.string(),
      one_file ? from_sev_tool(folder)
               : sev::PlatformCertificates{certificate("pdh.cert", "PDH"), certificate("pek.cert", "PEK"),
                                           certificate("oca.cert", "OCA"), certificate("cek.cert", "CEK")},
      {},
      {}};
  if (const auto roots = find_roots(folder)) read_roots(read(*roots), found);
  if (fs::exists(folder / "ask.cert")) found.ask = RootCertificate::parse(read(folder / "ask.cert"), "ASK");
  if (fs::exists(folder / "ark.cert")) found.ark = RootCertificate::parse(read(folder / "ark.cert"), "ARK");
  return found;
}

// PDH, PEK, OCA, CEK and, from 'sevctl export --full', ASK and ARK.
FoundCertificates from_file(const std::string& path) {
  const sev::SecretBytes bytes = read(path);
  constexpr std::size_t kPlatformPart = sev::kCertificateSize + sev::kPlatformCertificatesSize;
  if (bytes.size() < kPlatformPart) {
    refuse(fmt::format("'{}' has {} bytes, at least {} are needed", path, bytes.size(), kPlatformPart),
           "Give what 'sevctl export' wrote.");
  }
  const std::span<const std::byte> all = bytes;
  FoundCertificates found{
      path,
      sev::parse_platform_certificates(all.first<sev::kCertificateSize>(),
                                       all.subspan<sev::kCertificateSize, sev::kPlatformCertificatesSize>()),
      {},
      {}};
  if (bytes.size() > kPlatformPart) read_roots(all.subspan(kPlatformPart), found);
  return found;
}

FoundCertificates from_host(const std::string& name) {
  if (name != "emulated" && name != "kernel") {
    refuse(fmt::format("there is no host '{}' to ask", name), "Choose kernel or emulated.");
  }
  std::shared_ptr<const emulator::PlatformIdentity> identity;
  std::unique_ptr<kvm::Host> host;
  if (name == "emulated") {
    identity = emulator::load_platform_identity(emulator::platform_identity_folder());
    emulator::EmulatedHostOptions options;
    options.identity = identity;
    host = emulator::make_emulated_host(options);
  } else {
    host = kvm::make_kernel_host();
  }
  const kvm::ExportedCertificates exported = kvm::SevDevice::open(*host).export_certificates();
  FoundCertificates found{
      fmt::format("the {} host", name), sev::parse_platform_certificates(exported.pdh, exported.chain), {}, {}};
  if (identity != nullptr) {  // the platform does not export these; AMD hands out its own
    found.ask = identity->ask;
    found.ark = identity->ark;
  }
  return found;
}

}  // namespace

FoundCertificates find_certificates(const CertificateOptions& options) {
  if (options.host.empty() == options.files.empty()) {
    refuse("either a host or files are needed",
           "Give --host emulated, --host kernel, or --certs with a folder or file.");
  }
  FoundCertificates found = !options.host.empty()             ? from_host(options.host)
                            : fs::is_directory(options.files) ? from_folder(options.files)
                                                              : from_file(options.files);
  if (!options.roots.empty()) read_roots(read(options.roots), found);
  return found;
}

sev::CertificateChain whole_chain(const FoundCertificates& found) {
  if (!found.ask || !found.ark) {
    throw Error(ExitCode::kBadUsage, fmt::format("verify the certificates of {}", found.from),
                "AMD's ASK and ARK are missing, from which the chain starts",
                "Give them with --roots, as one file (AMD publishes it as ask_ark for each generation).");
  }
  return {*found.ark, *found.ask, found.platform.cek, found.platform.oca, found.platform.pek, found.platform.pdh};
}

sev::RootIdentity require_trusted(const sev::CertificateChain& chain, const CertificateOptions& options,
                                  const std::string& trust_root) {
  sev::require_chain(chain);
  sev::RootIdentity root = sev::identify_root(chain.ark);
  const std::string fingerprint = sev::to_hex(root.fingerprint);
  if (!trust_root.empty()) {
    std::string lower = trust_root;
    std::ranges::transform(lower, lower.begin(),
                           [](char c) { return c >= 'A' && c <= 'F' ? static_cast<char>(c + 32) : c; });
    if (lower == fingerprint) return root;
    throw Error(ExitCode::kBadUsage, "verify the platform's certificates",
                fmt::format("the root's SHA-256 is {}, not what --trust-root says", fingerprint),
                "Find out which of the two is right.");
  }
  if (root.kind == sev::RootKind::kAmd) return root;
  if (root.kind == sev::RootKind::kSoftware && options.host == "emulated") return root;
  throw Error(ExitCode::kBadUsage, "verify the platform's certificates", fmt::format("the root is {}", root.text),
              fmt::format("If you trust it all the same, give --trust-root {}.", fingerprint));
}

}  // namespace sevisor::cli
