#include "vmm/cli/secret_command.hpp"

#include <algorithm>
#include <cstdio>
#include <fmt/format.h>
#include <memory>
#include <string>
#include <vector>

#include "base/error.hpp"
#include "sev/launch_secret.hpp"
#include "vmm/cli/option_values.hpp"
#include "vmm/cli/secret_files.hpp"

namespace sevisor::cli {

namespace {

constexpr const char* kFooter =
    "Writes NAME_header.bin and NAME_payload.bin, or with --format base64 NAME_header.b64 and NAME_payload.b64. The\n"
    "packet is bound to the launch that --measurement is of; check that first, with 'sevisor verify'.\n"
    "\n"
    "Example:\n"
    "  sevisor secret --secret luks-key:key --tik guest_tik.bin --tek guest_tek.bin --measurement BASE64 --out guest\n"
    "  sevisor run ... --secret guest\n";

struct SecretOptions {
  std::vector<std::string> secrets;
  std::string table;
  KeyOptions keys;
  std::string measurement;
  std::string api_major = "1";
  std::string api_minor = "0";
  std::string out;
  std::string format = "raw";
  bool table_only = false;
  bool force = false;
};

[[noreturn]] void refuse(std::string came_back, std::string advice = {}) {
  throw Error(ExitCode::kBadUsage, "package the secret", std::move(came_back), std::move(advice));
}

sev::SecretBytes read_table(const SecretOptions& options) {
  if (options.secrets.empty() == options.table.empty()) {
    refuse("either secrets or a table are needed", "Give --secret, once or more, or --table.");
  }
  if (options.table.empty()) return sev::build_secret_table(read_secrets(options.secrets));
  sev::SecretBytes table = read_secret_file("secret table", options.table, sev::kMaxSecretSize);
  (void)sev::parse_secret_table(table);
  table.resize((table.size() + 15) / 16 * 16);
  return table;
}

sev::SecretPacket seal(const SecretOptions& options, const sev::SecretBytes& table) {
  if (options.keys.tk.empty() && (options.keys.tik.empty() || options.keys.tek.empty())) {
    refuse("both keys are needed", "Give --tik and --tek, or --tk.");
  }
  const auto keys = read_transport_keys(options.keys);
  if (options.measurement.empty()) {
    refuse("the packet is bound to a launch, and --measurement is not given", "Give what LAUNCH_MEASURE returned.");
  }
  sev::Measurement measurement{};
  const auto bytes = parse_base64("--measurement", options.measurement, measurement.size());
  std::copy(bytes.begin(), bytes.end(), measurement.begin());
  const sev::ApiVersion api = {static_cast<std::uint8_t>(parse_integer("--api-major", options.api_major, 0, UINT8_MAX)),
                               static_cast<std::uint8_t>(parse_integer("--api-minor", options.api_minor, 0, UINT8_MAX)),
                               0};
  sev::Nonce iv;
  sev::fill_random(iv);
  return sev::seal_secret(*keys, api, measurement, iv, table);
}

int package(const SecretOptions& options) {
  if (options.out.empty()) refuse("--out is not given", "Name the files, as --out guest.");
  if (options.format != "raw" && options.format != "base64") {
    refuse(fmt::format("--format '{}' is unknown", options.format), "Choose raw or base64.");
  }
  const Overwrite overwrite = options.force ? Overwrite::kYes : Overwrite::kNo;
  const sev::SecretBytes table = read_table(options);
  if (options.table_only) {
    const std::string file = options.out + "_table.bin";
    write_file(file, table, Readable::kOwnerOnly, overwrite);
    fmt::print("{}: {} bytes, not encrypted\n", file, table.size());
    return 0;
  }
  const sev::SecretPacket packet = seal(options, table);
  const char* suffix = options.format == "raw" ? ".bin" : ".b64";
  const std::string header = options.out + "_header" + suffix;
  const std::string payload = options.out + "_payload" + suffix;
  write_packet(packet, header, payload, options.format == "raw" ? PacketForm::kRaw : PacketForm::kBase64, overwrite);
  fmt::print("{}, {}: {} bytes for the guest\n", header, payload, packet.payload.size());
  return 0;
}

}  // namespace

Command add_secret_command(CLI::App& app) {
  const auto options = std::make_shared<SecretOptions>();
  CLI::App* secret = app.add_subcommand("secret", "Package secrets for a measured guest");
  secret->footer(kFooter);
  const auto add = [secret](const char* name, std::string& value, const char* type, const std::string& help) {
    return secret->add_option(name, value, help)->type_name(type);
  };
  secret
      ->add_option("--secret", options->secrets, "a secret and the GUID by which the guest finds it; 'luks-key' is one")
      ->type_name("GUID:FILE")
      ->expected(1)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
  add("--table", options->table, "FILE", "a secret table made before, instead of --secret");
  add("--tik", options->keys.tik, "FILE", "the guest's integrity key, 16 bytes");
  add("--tek", options->keys.tek, "FILE", "its encryption key, 16 bytes");
  add("--tk", options->keys.tk, "FILE", "TEK and TIK in one file");
  add("--measurement", options->measurement, "BASE64", "what LAUNCH_MEASURE returned for the guest");
  add("--api-major", options->api_major, "N", "the platform's API version; before 0.17 packets were bound to no launch")
      ->capture_default_str();
  add("--api-minor", options->api_minor, "N", "the same")->capture_default_str();
  add("--out", options->out, "NAME", "what the files' names begin with");
  add("--format", options->format, "raw|base64", "base64 is what QMP and libvirt take")->capture_default_str();
  secret->add_flag("--table-only", options->table_only, "write the table, not encrypted, to NAME_table.bin");
  secret->add_flag("--force", options->force, "replace files");
  return {secret, [options] { return package(*options); }};
}

}  // namespace sevisor::cli
