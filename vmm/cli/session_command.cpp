#include "vmm/cli/session_command.hpp"

#include <cstdio>
#include <fmt/format.h>
#include <memory>
#include <string>
#include <unistd.h>

#include "base/error.hpp"
#include "sev/encoding.hpp"
#include "sev/policy.hpp"
#include "vmm/cli/certificate_files.hpp"
#include "vmm/cli/key_files.hpp"
#include "vmm/launch/owner_session.hpp"

namespace sevisor::cli {

namespace {

constexpr const char* kFooter =
    "Writes NAME_godh.b64 and NAME_session.b64, which go to the platform, and NAME_tik.bin and NAME_tek.bin, which "
    "stay\n"
    "with the guest's owner (mode 0600). The platform's certificates are verified first.\n"
    "\n"
    "Example:\n"
    "  sevisor session --host emulated --policy 0x5 --out guest\n"
    "  sevisor run --host emulated --dh-cert guest_godh.b64 --session guest_session.b64 --policy 0x5 ...\n";

struct SessionOptions {
  CertificateOptions source;
  std::string trust_root;
  std::string policy;
  std::string out;
  bool force = false;
};

[[noreturn]] void refuse(std::string came_back, std::string advice) {
  throw Error(ExitCode::kBadUsage, "make a session", std::move(came_back), std::move(advice));
}

int make(const SessionOptions& options) {
  if (options.out.empty()) refuse("--out is not given", "Name the files, as --out guest.");
  const std::uint32_t policy = sev::parse_policy(options.policy);
  if (policy & sev::kPolicyReserved) {
    throw Error(ExitCode::kBadUsage, fmt::format("use the policy {:#x} ({})", policy, sev::policy_text(policy)),
                sev::reserved_policy_text(policy), "Clear them; 0x5 (ES|NODBG) is the default.");
  }
  const std::string godh_file = options.out + "_godh.b64";
  const std::string session_file = options.out + "_session.b64";
  const std::string tik_file = options.out + "_tik.bin";
  const std::string tek_file = options.out + "_tek.bin";
  for (const std::string& file : {godh_file, session_file, tik_file, tek_file}) {
    if (!options.force && ::access(file.c_str(), F_OK) == 0) {
      refuse(fmt::format("'{}' exists already", file), "Use another --out, or --force to replace the keys.");
    }
  }
  const sev::CertificateChain chain = whole_chain(find_certificates(options.source));
  const sev::RootIdentity root = require_trusted(chain, options.source, options.trust_root);

  const auto owner = vmm::make_owner_session(chain.pdh, policy);
  if (!owner) refuse("the platform's PDH is not on the curve P-384", "Get its certificates again.");

  const Overwrite overwrite = options.force ? Overwrite::kYes : Overwrite::kNo;
  const auto write_text = [&](const std::string& file, std::span<const std::byte> bytes) {
    const std::string text = sev::to_base64(bytes);
    write_file(file, std::as_bytes(std::span(text)), Readable::kAll, overwrite);
  };
  write_file(tik_file, *owner->keys.tik, Readable::kOwnerOnly, overwrite);
  write_file(tek_file, *owner->keys.tek, Readable::kOwnerOnly, overwrite);
  write_text(godh_file, owner->certificate.bytes());
  write_text(session_file, owner->session);
  fmt::print("for the platform: {}, {}; to keep: {}, {}\n", godh_file, session_file, tik_file, tek_file);
  fmt::print("policy {:#x} ({}); the platform's root is {}\n", policy, sev::policy_text(policy), root.text);
  return 0;
}

}  // namespace

Command add_session_command(CLI::App& app) {
  const auto options = std::make_shared<SessionOptions>();
  CLI::App* session = app.add_subcommand("session", "Make keys for one guest on one platform");
  session->footer(kFooter);
  session->add_option("--host", options->source.host, "the platform to ask for its certificates")
      ->type_name("emulated|kernel");
  session->add_option("--certs", options->source.files, "or: its certificates in files")->type_name("FOLDER|FILE");
  session->add_option("--roots", options->source.roots, "AMD's ASK and ARK, in this order in one file")
      ->type_name("FILE");
  session->add_option("--trust-root", options->trust_root, "SHA-256 of the one root to trust")->type_name("HEX");
  options->policy = fmt::format("{:#x}", sev::kDefaultPolicy);
  session->add_option("--policy", options->policy, "the policy that the guest must be launched with")
      ->type_name("NUMBER")
      ->capture_default_str();
  session->add_option("--out", options->out, "what the files' names begin with")->type_name("NAME");
  session->add_flag("--force", options->force, "replace files");
  return {session, [options] { return make(*options); }};
}

}  // namespace sevisor::cli
