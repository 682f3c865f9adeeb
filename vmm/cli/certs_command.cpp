#include "vmm/cli/certs_command.hpp"

#include <cstdio>
#include <filesystem>
#include <fmt/format.h>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "base/error.hpp"
#include "sev/encoding.hpp"
#include "vmm/cli/certificate_files.hpp"
#include "vmm/cli/key_files.hpp"

namespace sevisor::cli {

namespace {

constexpr int kNotVerified = 1;

constexpr const char* kFooter =
    "Certificates come from a platform (--host) or from files (--certs): a folder with ark.cert, ask.cert, cek.cert,\n"
    "oca.cert, pek.cert and pdh.cert, or with cert_chain.cert instead of the middle three, as sev-tool exports them; "
    "or one\n"
    "file as 'sevctl export' writes it. A platform does not export AMD's ASK "
    "and\n"
    "ARK; --roots names the file that AMD publishes.\n"
    "Exit codes: 0 done, or verified; 1 not verified; 35 bad arguments or files; 38 the platform does not answer.\n"
    "\n"
    "Examples:\n"
    "  sevisor certs export --host kernel --out platform\n"
    "  sevisor certs verify --certs platform --roots ask_ark_milan.cert\n";

struct CertsOptions {
  CertificateOptions source;
  std::string trust_root;
  std::string out;
  bool force = false;
};

std::string id_text(const sev::RootCertificate::KeyId& id) {
  std::string text;
  for (const std::byte b : id) {
    const char c = static_cast<char>(b);
    if (c < 0x20 || c > 0x7e) return sev::to_hex(id);
    text += c;
  }
  return fmt::format("'{}'", text);
}

void show(const char* name, const sev::RootCertificate& certificate) {
  fmt::print("{}  {}, RSA {} bits, id {}, signed by id {}\n     SHA-256 {}\n", name,
             sev::key_usage_text(certificate.usage()), certificate.bits(), id_text(certificate.id()),
             id_text(certificate.signer_id()), sev::to_hex(sev::sha256(certificate.bytes())));
}

void show(const char* name, const sev::Certificate& certificate) {
  std::vector<std::string> signers;
  for (const sev::KeyUsage usage : certificate.signers()) signers.push_back(sev::key_usage_text(usage));
  fmt::print("{}  {}, {}, API {}.{}, signed by {}\n     SHA-256 {}\n", name, sev::key_usage_text(certificate.usage()),
             sev::key_algorithm_text(certificate.algorithm()), certificate.api_major(), certificate.api_minor(),
             signers.empty() ? "nobody" : fmt::format("{}", fmt::join(signers, " and ")),
             sev::to_hex(sev::sha256(certificate.bytes())));
}

int show_all(const CertsOptions& options) {
  const FoundCertificates found = find_certificates(options.source);
  if (found.ark) {
    show("ARK", *found.ark);
    fmt::print("     {}\n", sev::identify_root(*found.ark).text);
  }
  if (found.ask) show("ASK", *found.ask);
  show("CEK", found.platform.cek);
  show("OCA", found.platform.oca);
  show("PEK", found.platform.pek);
  show("PDH", found.platform.pdh);
  return 0;
}

int verify_all(const CertsOptions& options) {
  const sev::CertificateChain chain = whole_chain(find_certificates(options.source));
  bool right = true;
  for (const sev::ChainStep& step : sev::check_chain(chain)) {
    fmt::print("{}  {}\n", step.right ? "yes" : "NO ", step.text);
    right = right && step.right;
  }
  const sev::RootIdentity root = sev::identify_root(chain.ark);
  fmt::print("root: {}\n      SHA-256 {}\n", root.text, sev::to_hex(root.fingerprint));
  if (!right) {
    fmt::print("NOT VERIFIED: do not use this platform\n");
    return kNotVerified;
  }
  try {
    (void)require_trusted(chain, options.source, options.trust_root);
  } catch (const Error& error) {
    fmt::print("NOT VERIFIED: the signatures are right, but {}. {}\n", error.came_back(), error.advice());
    return kNotVerified;
  }
  fmt::print("verified\n");
  return 0;
}

int export_all(const CertsOptions& options) {
  if (options.out.empty()) {
    throw Error(ExitCode::kBadUsage, "export certificates", "--out is not given", "Name a folder with --out.");
  }
  const FoundCertificates found = find_certificates(options.source);
  std::error_code error;
  std::filesystem::create_directories(options.out, error);
  if (error) throw Error(ExitCode::kBadUsage, fmt::format("make the folder '{}'", options.out), error.message());
  std::vector<std::pair<const char*, std::span<const std::byte>>> files;
  if (found.ark) files.emplace_back("ark.cert", found.ark->bytes());
  if (found.ask) files.emplace_back("ask.cert", found.ask->bytes());
  files.emplace_back("cek.cert", found.platform.cek.bytes());
  files.emplace_back("oca.cert", found.platform.oca.bytes());
  files.emplace_back("pek.cert", found.platform.pek.bytes());
  files.emplace_back("pdh.cert", found.platform.pdh.bytes());
  for (const auto& [name, bytes] : files) {
    write_file(fmt::format("{}/{}", options.out, name), bytes, Readable::kAll,
               options.force ? Overwrite::kYes : Overwrite::kNo);
  }
  fmt::print("{} certificates of {} in {}\n", files.size(), found.from, options.out);
  if (!found.ark) fmt::print("AMD's ASK and ARK, from which the chain starts, are not exported: AMD publishes them\n");
  return 0;
}

}  // namespace

Command add_certs_command(CLI::App& app) {
  const auto options = std::make_shared<CertsOptions>();
  CLI::App* certs = app.add_subcommand("certs", "Show, verify or export a platform's certificates");
  certs->require_subcommand(1);
  certs->footer(kFooter);
  const auto add = [&](const char* name, const char* help) {
    CLI::App* verb = certs->add_subcommand(name, help);
    verb->footer(kFooter);
    verb->add_option("--host", options->source.host, "the platform to ask")->type_name("emulated|kernel");
    verb->add_option("--certs", options->source.files, "its certificates in files")->type_name("FOLDER|FILE");
    verb->add_option("--roots", options->source.roots, "AMD's ASK and ARK")->type_name("FILE");
    return verb;
  };
  const CLI::App* show_verb = add("show", "Say what each certificate is");
  CLI::App* verify_verb = add("verify", "Check each signature from the root down, and whose root it is");
  verify_verb->add_option("--trust-root", options->trust_root, "SHA-256 of the one root to trust")->type_name("HEX");
  CLI::App* export_verb = add("export", "Write the certificates into a folder");
  export_verb->add_option("--out", options->out, "the folder")->type_name("FOLDER");
  export_verb->add_flag("--force", options->force, "replace files");
  return {certs, [options, show_verb, verify_verb] {
            if (show_verb->parsed()) return show_all(*options);
            return verify_verb->parsed() ? verify_all(*options) : export_all(*options);
          }};
}

}  // namespace sevisor::cli
