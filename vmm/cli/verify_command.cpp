#include "vmm/cli/verify_command.hpp"

#include <algorithm>
#include <cstdio>
#include <fmt/format.h>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "base/bytes.hpp"
#include "base/error.hpp"
#include "sev/cpu_type.hpp"
#include "sev/encoding.hpp"
#include "sev/policy.hpp"
#include "sev/verification.hpp"
#include "vmm/cli/distinct_files.hpp"
#include "vmm/cli/guest_description.hpp"
#include "vmm/cli/key_files.hpp"
#include "vmm/cli/option_values.hpp"
#include "vmm/cli/secret_files.hpp"

namespace sevisor::cli {

namespace {

constexpr std::size_t kMaxReport = 16 << 20;  // bytes
constexpr int kMismatch = 1;                  // virt-qemu-sev-validate's, too

constexpr const char* kFooter =
    "Exit codes: 0 the measurement matches, 1 it does not (what may differ is said), 35 bad arguments or files.\n"
    "\n"
    "Examples:\n"
    "  sevisor verify --report report.json --tik guest_tik.bin --kernel vmlinuz --cmdline console=ttyS0 \\\n"
    "      --num-cpus 2 --cpu-type EPYC-v4\n"
    "  sevisor verify --measurement BASE64 --api-major 1 --api-minor 55 --build-id 21 --policy 5 \\\n"
    "      --tik guest_tik.bin --tek guest_tek.bin --kernel vmlinuz --cmdline console=ttyS0 --num-cpus 2 \\\n"
    "      --cpu-type EPYC-v4 --inject-secret luks-key:key --secret-header h.b64 --secret-payload p.b64\n";

struct VerifyOptions {
  std::string report;
  std::string measurement;
  std::string api_major;
  std::string api_minor;
  std::string build_id;
  std::string policy;
  KeyOptions keys;
  std::string firmware;
  std::string kernel;
  std::string initrd;
  std::string cmdline;
  std::string num_cpus;
  std::string vmsa_cpu0;
  std::string vmsa_cpu1;
  std::string cpu_family;
  std::string cpu_model;
  std::string cpu_stepping;
  std::string cpu_type;
  std::string init_api = "es-init";
  std::string vmsa_features = "0";
  std::vector<std::string> secrets;
  std::string secret_header;
  std::string secret_payload;
  bool force = false;
  bool quiet = false;
  std::string reported_digest;  // hexadecimal, of --report; nobody has signed it
};

[[noreturn]] void refuse(std::string came_back, std::string advice = {}) {
  throw Error(ExitCode::kBadUsage, "verify the measurement", std::move(came_back), std::move(advice));
}

// What a run's report says where no option does.
void read_report(VerifyOptions& options) {
  const auto refuse_report = [&](std::string came_back) {
    throw Error(ExitCode::kBadUsage, fmt::format("read the report '{}'", options.report), std::move(came_back),
                "Give what 'sevisor run' wrote for --json or --launch-report.");
  };
  const sev::SecretBytes bytes = read_secret_file("report", options.report, kMaxReport);
  const auto report = nlohmann::json::parse(reinterpret_cast<const char*>(bytes.data()),
                                            reinterpret_cast<const char*>(bytes.data()) + bytes.size(), nullptr, false);
  if (!report.is_object()) refuse_report("it is no JSON object");
  const auto number = [&](const char* key, std::string& option) {
    if (!option.empty()) return;
    const auto value = report.find(key);
    if (value == report.end() || !value->is_number_unsigned()) refuse_report(fmt::format("it has no number '{}'", key));
    option = std::to_string(value->get<std::uint64_t>());
  };
  number("api_major", options.api_major);
  number("api_minor", options.api_minor);
  number("build_id", options.build_id);
  number("policy", options.policy);
  if (options.measurement.empty()) {
    const auto value = report.find("measurement");
    if (value == report.end() || !value->is_string())
      refuse_report("it has no 'measurement': the guest was not measured");
    options.measurement = value->get<std::string>();
  }
  const auto digest = report.find("launch_digest");
  if (digest != report.end() && digest->is_string()) options.reported_digest = digest->get<std::string>();
}

sev::LaunchClaim read_claim(const CLI::App& command, const VerifyOptions& options) {
  for (const char* needed : {"--measurement", "--api-major", "--api-minor", "--build-id", "--policy"}) {
    if (options.report.empty() && command.count(needed) == 0) {
      refuse(fmt::format("{} is not given", needed),
             "The platform's owner tells these; --report takes them from the report of a run.");
    }
  }
  const auto byte = [](const char* option, const std::string& text) {
    return static_cast<std::uint8_t>(parse_integer(option, text, 0, UINT8_MAX));
  };
  sev::LaunchClaim claim;
  claim.api = {byte("--api-major", options.api_major), byte("--api-minor", options.api_minor),
               byte("--build-id", options.build_id)};
  claim.policy = sev::parse_policy(options.policy);
  if (claim.policy & sev::kPolicyReserved) warn_of_reserved_bits(claim.policy);
  const auto bytes = parse_base64("--measurement", options.measurement, claim.measurement.size());
  std::copy(bytes.begin(), bytes.end(), claim.measurement.begin());
  return claim;
}

sev::Vmsa read_vmsa(const std::string& path) {
  const sev::SecretBytes bytes = read_secret_file("VMSA", path, sizeof(sev::Vmsa));
  if (bytes.size() != sizeof(sev::Vmsa)) {
    refuse(fmt::format("the VMSA '{}' has {} bytes, not {}", path, bytes.size(), sizeof(sev::Vmsa)));
  }
  return load<sev::Vmsa>(bytes.data());
}

std::uint32_t cpu_signature_of(const CLI::App& command, const VerifyOptions& options) {
  const std::size_t parts =
      command.count("--cpu-family") + command.count("--cpu-model") + command.count("--cpu-stepping");
  if (parts == 0 && command.count("--cpu-type") != 0) return sev::cpu_signature(sev::find_cpu_type(options.cpu_type));
  if (parts == 0) {
    refuse("the policy asks for SEV-ES, and no CPU is given, whose signature is measured",
           "Give --cpu-type, or --cpu-family, --cpu-model and --cpu-stepping, or VMSA files.");
  }
  if (parts != 3) refuse("a CPU takes --cpu-family, --cpu-model and --cpu-stepping, all three");
  return sev::cpu_signature(static_cast<unsigned>(parse_integer("--cpu-family", options.cpu_family, 0, 270)),
                            static_cast<unsigned>(parse_integer("--cpu-model", options.cpu_model, 0, 255)),
                            static_cast<unsigned>(parse_integer("--cpu-stepping", options.cpu_stepping, 0, 15)));
}

void read_vcpus(const CLI::App& command, const VerifyOptions& options, const sev::FirmwareImage& firmware,
                sev::ExpectedGuest& guest) {
  if (command.count("--num-cpus") == 0) refuse("the policy asks for SEV-ES, and --num-cpus is not given");
  guest.vcpus = static_cast<unsigned>(parse_integer("--num-cpus", options.num_cpus, 1, kMaxMeasuredVcpus));
  const bool vmsa0 = command.count("--vmsa-cpu0") != 0;
  const bool vmsa1 = command.count("--vmsa-cpu1") != 0;
  if (vmsa1 && !vmsa0) refuse("--vmsa-cpu1 is given without --vmsa-cpu0");
  if (vmsa0) {
    if (command.count("--cpu-family") + command.count("--cpu-model") + command.count("--cpu-stepping") +
            command.count("--cpu-type") !=
        0) {
      refuse("VMSA files and a CPU are given, and each says what the VMSAs are", "Leave out one of them.");
    }
    if (guest.vcpus > 1 && !vmsa1) refuse("more than one vCPU needs --vmsa-cpu1");
    const sev::Vmsa bsp = read_vmsa(options.vmsa_cpu0);
    guest.vmsa_pages = {bsp, vmsa1 ? read_vmsa(options.vmsa_cpu1) : bsp};
    return;
  }
  guest.vmsa_kind.cpu_signature = cpu_signature_of(command, options);
  if (options.init_api != "es-init" && options.init_api != "init2") {
    refuse(fmt::format("--init-api '{}' is unknown", options.init_api), "Choose es-init or init2.");
  }
  guest.vmsa_kind.form = options.init_api == "init2" ? sev::VmsaForm::kInit2 : sev::VmsaForm::kEsInit;
  guest.vmsa_kind.features = parse_integer("--vmsa-features", options.vmsa_features, 0, UINT64_MAX);
  guest.ap_reset_address = ap_reset_address_of(firmware, guest.vcpus);
  if (const auto& table = firmware.facts().table; guest.vcpus == 1 && table) {  // to be able to say that it has two
    guest.ap_reset_address = table->ap_reset_address().value_or(0);
  }
}

sev::ExpectedGuest read_guest(const CLI::App& command, const VerifyOptions& options, const sev::FirmwareImage& firmware,
                              std::uint32_t policy) {
  sev::ExpectedGuest guest;
  guest.firmware = firmware.bytes();
  guest.es = (policy & sev::kPolicyEs) != 0;
  if (guest.es) read_vcpus(command, options, firmware, guest);
  if (command.count("--kernel") == 0) {
    if (command.count("--initrd") + command.count("--cmdline") != 0) {
      refuse("--initrd and --cmdline go with a kernel, and none is given", "Give it with --kernel.");
    }
    return guest;
  }
  (void)firmware.hashes_area();  // a host can measure no hashes otherwise
  KernelFiles files{.kernel = options.kernel, .initrd = {}, .cmdline = options.cmdline};
  if (command.count("--initrd") != 0) files.initrd = options.initrd;
  guest.kernel = hash_kernel_files(files, firmware).hashes;
  return guest;
}

// The report's digest is not signed, but a hint when it is what the measurement was made of.
void tell_reported_digest(const VerifyOptions& options, const sev::LaunchClaim& claim, const sev::TransportKeys& keys) {
  const auto bytes = sev::from_hex(options.reported_digest);
  sev::Digest digest{};
  if (!bytes || bytes->size() != digest.size()) return;
  std::copy(bytes->begin(), bytes->end(), digest.begin());
  fmt::print(
      stderr, "  the report's launch digest: {}, {}\n", options.reported_digest,
      sev::matches(claim, *keys.tik, digest)
          ? "which was signed with this TIK: it is the files or the description that differ"
          : "which was not signed with this TIK: the keys are of another session, or the report is of another run");
}

int tell_mismatch(const VerifyOptions& options, const sev::ExpectedGuest& guest, const sev::LaunchClaim& claim,
                  const sev::TransportKeys& keys, const sev::Digest& digest) {
  if (options.quiet) return kMismatch;
  sev::MismatchClues clues{.cmdline = options.cmdline, .tek = {}};
  if (!options.keys.tek.empty() || !options.keys.tk.empty()) clues.tek = keys.tek;
  unsigned tried = 0;
  const std::vector<std::string> differences = sev::explain_mismatch(guest, claim, *keys.tik, clues, tried);
  fmt::print(stderr, "sevisor: the measurement does not match: the guest that was launched is not the one described\n");
  fmt::print(stderr, "  expected launch digest: {}\n", sev::to_hex(digest));
  for (const std::string& difference : differences) fmt::print(stderr, "  it would match if: {}\n", difference);
  if (differences.empty()) tell_reported_digest(options, claim, keys);
  if (differences.empty()) {
    fmt::print(
        stderr,
        "  none of {} known variants matches either: firmware, kernel, initrd or command line have other content, "
        "or it was signed with another TIK\n",
        tried);
  }
  return kMismatch;
}

int verify(const CLI::App& command, VerifyOptions options) {
  require_distinct_files(
      command,
      {"--report", "--tik", "--tek", "--tk", "--firmware", "--kernel", "--initrd", "--vmsa-cpu0", "--vmsa-cpu1"},
      {"--secret-header", "--secret-payload"});
  if (!options.report.empty()) read_report(options);
  const sev::LaunchClaim claim = read_claim(command, options);
  const auto keys = read_transport_keys(options.keys);
  if (!keys) refuse("no key is given to check it with", "Give --tik, or --tk.");
  std::vector<sev::SecretEntry> secrets;
  if (!options.secrets.empty()) {
    if (options.secret_header.empty() || options.secret_payload.empty()) {
      refuse("--inject-secret needs --secret-header and --secret-payload, the files to write");
    }
    if (options.keys.tek.empty() && options.keys.tk.empty()) refuse("a secret is encrypted with the TEK: give --tek");
    secrets = read_secrets(options.secrets);
  } else if (!options.secret_header.empty() || !options.secret_payload.empty()) {
    refuse("there is nothing to write into --secret-header and --secret-payload",
           "Name a secret with --inject-secret.");
  }
  const sev::FirmwareImage firmware = options.firmware.empty() ? built_in_firmware() : read_firmware(options.firmware);
  const sev::ExpectedGuest guest = read_guest(command, options, firmware, claim.policy);

  const sev::Digest digest = sev::expected_digest(guest);
  if (!sev::matches(claim, *keys->tik, digest)) return tell_mismatch(options, guest, claim, *keys, digest);
  if (!secrets.empty()) {
    const sev::SecretBytes table = sev::build_secret_table(secrets);
    sev::Nonce iv;
    sev::fill_random(iv);
    write_packet(sev::seal_secret(*keys, claim.api, claim.measurement, iv, table), options.secret_header,
                 options.secret_payload, PacketForm::kBase64, options.force ? Overwrite::kYes : Overwrite::kNo);
  }
  if (options.quiet) return 0;
  fmt::print("OK: the measurement matches, launch digest {}\n", sev::to_hex(digest));
  if (!secrets.empty()) {
    fmt::print("OK: {} secret{} packaged for this guest\n", secrets.size(), secrets.size() == 1 ? "" : "s");
  }
  return 0;
}

}  // namespace

Command add_verify_command(CLI::App& app) {
  const auto options = std::make_shared<VerifyOptions>();
  CLI::App* verify_app = app.add_subcommand("verify", "Check a launch measurement, and explain a mismatch");
  verify_app->footer(kFooter);
  const auto add = [verify_app](const char* name, std::string& value, const char* type, const std::string& help) {
    return verify_app->add_option(name, value, help)->type_name(type);
  };
  add("--report", options->report, "FILE",
      "report of a run (--json or --launch-report): measurement, API version, build and policy, unless they are given");
  add("-m,--measurement", options->measurement, "BASE64", "what LAUNCH_MEASURE returned");
  add("--api-major", options->api_major, "N", "the platform's API version");
  add("--api-minor", options->api_minor, "N", "the same");
  add("--build-id", options->build_id, "N", "the platform's firmware build");
  add("--policy", options->policy, "NUMBER", "the guest's policy; bit 2 asks for SEV-ES");
  add("--tik", options->keys.tik, "FILE", "the guest's integrity key, 16 bytes");
  add("--tek", options->keys.tek, "FILE", "its encryption key, 16 bytes; needed for secrets");
  add("--tk", options->keys.tk, "FILE", "TEK and TIK in one file");
  add("-f,--firmware", options->firmware, "FILE", "firmware image (default: sevisor's own)");
  add("-k,--kernel", options->kernel, "FILE", "kernel of measured direct boot");
  add("-r,--initrd", options->initrd, "FILE", "its initial RAM disk");
  add("-e,--cmdline", options->cmdline, "TEXT", "its command line");
  add("-n,--num-cpus", options->num_cpus, "N", "number of vCPUs");
  add("-0,--vmsa-cpu0", options->vmsa_cpu0, "FILE", "VMSA of the first vCPU, 4096 bytes");
  add("-1,--vmsa-cpu1", options->vmsa_cpu1, "FILE", "VMSA of each other vCPU");
  add("--cpu-family", options->cpu_family, "NUMBER", "the CPU's family, as 23 for EPYC");
  add("--cpu-model", options->cpu_model, "NUMBER", "its model");
  add("--cpu-stepping", options->cpu_stepping, "NUMBER", "its stepping");
  add("--cpu-type", options->cpu_type, "NAME", "the CPU by name: " + sev::cpu_type_names());
  add("--init-api", options->init_api, "es-init|init2", "which KVM call made the guest")->capture_default_str();
  add("--vmsa-features", options->vmsa_features, "NUMBER", "SEV_FEATURES in each VMSA")->capture_default_str();
  verify_app->add_option("-s,--inject-secret", options->secrets, "secret to package once the measurement matches")
      ->type_name("GUID:FILE")
      ->expected(1)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
  add("--secret-header", options->secret_header, "FILE", "where the packet's header goes (base64)");
  add("--secret-payload", options->secret_payload, "FILE", "where its payload goes (base64)");
  verify_app->add_flag("--force", options->force, "replace these two files");
  verify_app->add_flag("-q,--quiet", options->quiet, "say nothing of the result");
  return {verify_app, [verify_app, options] { return verify(*verify_app, *options); }};
}

}  // namespace sevisor::cli
