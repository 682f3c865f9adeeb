#include "vmm/cli/measure_command.hpp"

#include <algorithm>
#include <cstdio>
#include <fmt/format.h>
#include <future>
#include <iterator>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>

#include "base/error.hpp"
#include "sev/cpu_type.hpp"
#include "sev/encoding.hpp"
#include "sev/launch_digest.hpp"
#include "sev/policy.hpp"
#include "vmm/cli/guest_description.hpp"
#include "vmm/cli/key_files.hpp"
#include "vmm/cli/option_values.hpp"

namespace sevisor::cli {

namespace {

constexpr const char* kFooter =
    "Prints the launch digest. --vcpu-type and the like are needed with --mode seves and --vmm-type QEMU; of the "
    "three\n"
    "ways to give the CPU, --vcpu-family wins over --vcpu-sig, and that over --vcpu-type.\n"
    "With --tik, --api-major, --api-minor, --build-id, --policy and --nonce, --output-format json also tells the\n"
    "measurement that LAUNCH_MEASURE would return.\n"
    "\n"
    "Examples:\n"
    "  sevisor measure --mode seves --vcpus 2 --vcpu-type EPYC-v4 --kernel vmlinuz --append console=ttyS0\n"
    "  sevisor measure --mode seves --vcpus 4 --vcpu-type EPYC-Milan --ovmf OVMF_CODE.fd --init-api init2\n";

struct MeasureOptions {
  std::string mode;
  std::string vcpus;
  std::string vcpu_type;
  std::string vcpu_sig;
  std::string vcpu_family;
  std::string vcpu_model;
  std::string vcpu_stepping;
  std::string vmm_type = "QEMU";
  std::string ovmf;
  std::string ovmf_hash;
  std::string kernel;
  std::string initrd;
  std::string append;
  std::string guest_features;  // SEV-SNP's
  std::string init_api = "es-init";
  std::string vmsa_features = "0";
  std::string output_format = "hex";
  bool dump_vmsa = false;
  bool verbose = false;
  std::string tik;
  std::string api_major;
  std::string api_minor;
  std::string build_id;
  std::string policy;
  std::string nonce;
};

struct VmmName {
  const char* name;
  sev::VmmType type;
};
constexpr VmmName kVmmNames[] = {
    {"QEMU", sev::VmmType::kQemu}, {"ec2", sev::VmmType::kEc2}, {"gce", sev::VmmType::kGce}};

[[noreturn]] void refuse(std::string tried, std::string came_back, std::string advice) {
  throw Error(ExitCode::kBadUsage, std::move(tried), std::move(came_back), std::move(advice));
}

void require_choice(const char* option, const std::string& value, std::initializer_list<const char*> choices) {
  if (std::find(choices.begin(), choices.end(), value) != choices.end()) return;
  refuse(fmt::format("read {} '{}'", option, value), "no such choice",
         fmt::format("Choose one of {}.", fmt::join(choices, ", ")));
}

// Everything that the digest covers.
struct Measured {
  bool es = false;
  sev::Digest firmware_hash{};
  std::optional<KernelFileHashes> kernel;
  std::optional<sev::FooterArea> hashes_area;
  sev::HashesTable hashes_table{};
  unsigned vcpus = 0;
  sev::VmsaKind kind;
  std::uint32_t ap_reset_address = 0;
  sev::VmsaPages pages{};
  sev::Digest digest{};
  std::optional<sev::Measurement> measurement;
};

std::uint32_t cpu_signature_of(const CLI::App& command, const MeasureOptions& options) {
  const std::size_t parts =
      command.count("--vcpu-family") + command.count("--vcpu-model") + command.count("--vcpu-stepping");
  if (parts != 0) {
    if (parts != 3) {
      refuse("measure a SEV-ES guest", "only a part of the CPU's signature is given",
             "Give --vcpu-family, --vcpu-model and --vcpu-stepping, all three.");
    }
    const auto family = parse_integer("--vcpu-family", options.vcpu_family, 0, 270);
    const auto model = parse_integer("--vcpu-model", options.vcpu_model, 0, 255);
    const auto stepping = parse_integer("--vcpu-stepping", options.vcpu_stepping, 0, 15);
    return sev::cpu_signature(static_cast<unsigned>(family), static_cast<unsigned>(model),
                              static_cast<unsigned>(stepping));
  }
  if (command.count("--vcpu-sig") != 0) {
    return static_cast<std::uint32_t>(parse_integer("--vcpu-sig", options.vcpu_sig, 0, UINT32_MAX));
  }
  if (command.count("--vcpu-type") != 0) return sev::cpu_signature(sev::find_cpu_type(options.vcpu_type));
  refuse("measure a SEV-ES guest", "no CPU is given, and its signature is measured",
         "Give --vcpu-type, --vcpu-sig or --vcpu-family.");
}

void read_vmsa_options(const CLI::App& command, const MeasureOptions& options, Measured& measured) {
  if (command.count("--vcpus") == 0) {
    refuse("measure a SEV-ES guest", "no number of vCPUs is given", "Give it with --vcpus.");
  }
  measured.vcpus = static_cast<unsigned>(parse_integer("--vcpus", options.vcpus, 1, kMaxMeasuredVcpus));
  require_choice("--vmm-type", options.vmm_type, {"QEMU", "ec2", "gce"});
  measured.kind.vmm = std::find_if(std::begin(kVmmNames), std::end(kVmmNames), [&](const VmmName& entry) {
                        return options.vmm_type == entry.name;
                      })->type;
  require_choice("--init-api", options.init_api, {"es-init", "init2"});
  measured.kind.form = options.init_api == "init2" ? sev::VmsaForm::kInit2 : sev::VmsaForm::kEsInit;
  measured.kind.features = parse_integer("--vmsa-features", options.vmsa_features, 0, UINT64_MAX);
  if (measured.kind.vmm == sev::VmmType::kQemu) measured.kind.cpu_signature = cpu_signature_of(command, options);
}

void compute(const sev::FirmwareImage& firmware, Measured& measured) {
  sev::Sha256 hash;
  hash.update(firmware.bytes());
  measured.firmware_hash = hash.peek();
  if (measured.kernel) {
    measured.hashes_table = sev::make_hashes_table(measured.kernel->hashes);
    hash.update(measured.hashes_table);
  }
  if (measured.es) {
    measured.pages = sev::initial_vmsas(measured.kind, measured.ap_reset_address);
    sev::add_vmsas(hash, measured.pages, measured.vcpus);
  }
  measured.digest = hash.finish();
}

// Replaces files, as sev-snp-measure does.
void dump_vmsas(const Measured& measured) {
  for (unsigned index = 0; index < measured.vcpus; ++index) {
    const sev::Vmsa& page = index == 0 ? measured.pages.bsp : measured.pages.ap;
    write_file(fmt::format("vmsa{}.bin", index), std::as_bytes(std::span(&page, 1)), Readable::kAll, Overwrite::kYes);
  }
}

void add_measurement(const CLI::App& command, const MeasureOptions& options, Measured& measured) {
  if (command.count("--tik") == 0) return;
  for (const char* needed : {"--api-major", "--api-minor", "--build-id", "--policy", "--nonce"}) {
    if (command.count(needed) == 0) {
      refuse("compute the measurement", fmt::format("{} is not given", needed),
             "It takes --tik, --api-major, --api-minor, --build-id, --policy and --nonce.");
    }
  }
  if (options.output_format != "json") {
    refuse("print the measurement", "only json output has a place for it", "Add --output-format json.");
  }
  const sev::Wiped<sev::TransportKey> tik = read_key_file("TIK", options.tik);
  const auto byte = [](const char* option, const std::string& text) {
    return static_cast<std::uint8_t>(parse_integer(option, text, 0, UINT8_MAX));
  };
  const sev::ApiVersion api = {byte("--api-major", options.api_major), byte("--api-minor", options.api_minor),
                               byte("--build-id", options.build_id)};
  sev::Nonce nonce{};
  const auto nonce_bytes = parse_hex("--nonce", options.nonce, nonce.size());
  std::copy(nonce_bytes.begin(), nonce_bytes.end(), nonce.begin());
  const std::uint32_t policy = sev::parse_policy(options.policy);
  if (policy & sev::kPolicyReserved) warn_of_reserved_bits(policy);
  measured.measurement = sev::make_measurement(*tik, api, policy, measured.digest, nonce);
}

std::string hex_number(std::uint64_t value) { return fmt::format("{:#x}", value); }

nlohmann::ordered_json vmsa_json(const sev::Vmsa& page, std::uint32_t reset_address, unsigned count) {
  return {{"sha256", sev::to_hex(sev::sha256(std::as_bytes(std::span(&page, 1))))},
          {"reset_address", hex_number(reset_address)},
          {"count", count}};
}

std::string json_text(const sev::FirmwareImage& firmware, const MeasureOptions& options, const Measured& measured) {
  nlohmann::ordered_json json;
  json["mode"] = options.mode;
  json["launch_digest"] = sev::to_hex(measured.digest);
  json["firmware"] = {
      {"file", firmware.name()}, {"size", firmware.size()}, {"sha256", sev::to_hex(measured.firmware_hash)}};
  if (measured.kernel) {
    const sev::KernelHashes& hashes = measured.kernel->hashes;
    json["hashes_table"] = {{"address", hex_number(measured.hashes_area->base)},
                            {"sha256", sev::to_hex(sev::sha256(measured.hashes_table))},
                            {"bytes", sev::to_hex(measured.hashes_table)},
                            {"kernel_sha256", sev::to_hex(hashes.kernel)},
                            {"initrd_sha256", sev::to_hex(hashes.initrd)},
                            {"cmdline_sha256", sev::to_hex(hashes.cmdline)}};
  }
  if (measured.es) {
    json["vmsa"] = {{"vmm_type", options.vmm_type},
                    {"init_api", options.init_api},
                    {"features", hex_number(measured.kind.features)},
                    {"cpu_signature", hex_number(measured.pages.bsp.rdx)},
                    {"first_vcpu", vmsa_json(measured.pages.bsp, sev::kBspResetAddress, 1)}};
    if (measured.vcpus > 1) {
      json["vmsa"]["other_vcpus"] = vmsa_json(measured.pages.ap, measured.ap_reset_address, measured.vcpus - 1);
    }
  }
  if (measured.measurement) json["measurement"] = sev::to_base64(*measured.measurement);
  return json.dump(2, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
}

int measure(const CLI::App& command, const MeasureOptions& options) {
  require_choice("--mode", options.mode, {"sev", "seves"});
  require_choice("--output-format", options.output_format, {"hex", "base64", "json"});
  Measured measured;
  measured.es = options.mode == "seves";
  if (measured.es) read_vmsa_options(command, options, measured);
  if (!measured.es && options.dump_vmsa) {
    refuse("write the VMSAs", "a SEV guest has none that is measured", "Leave out --dump-vmsa, or use --mode seves.");
  }
  if (command.count("--kernel") == 0 && (command.count("--initrd") != 0 || !options.append.empty())) {
    refuse("use --initrd and --append", "they go with a kernel, and none is given", "Give it with --kernel.");
  }

  if (command.count("--ovmf") != 0 && options.ovmf.empty()) refuse("read --ovmf", "the path is empty", {});
  const sev::FirmwareImage firmware = options.ovmf.empty() ? built_in_firmware() : read_firmware(options.ovmf);
  // Everything that can be refused is, before the large files are read.
  if (measured.es) measured.ap_reset_address = ap_reset_address_of(firmware, measured.vcpus);
  if (command.count("--kernel") != 0) {
    measured.hashes_area = firmware.hashes_area();
    KernelFiles files{.kernel = options.kernel, .initrd = {}, .cmdline = options.append};
    if (command.count("--initrd") != 0) files.initrd = options.initrd;
    measured.kernel = hash_kernel_files(files, firmware);
  }
  compute(firmware, measured);
  if (command.count("--ovmf-hash") != 0 &&
      !std::ranges::equal(parse_hex("--ovmf-hash", options.ovmf_hash, sizeof(sev::Digest)), measured.firmware_hash)) {
    refuse(fmt::format("use the firmware '{}'", firmware.name()),
           fmt::format("its SHA-256 is {}, not what --ovmf-hash says", sev::to_hex(measured.firmware_hash)),
           "Find out which of the two is right.");
  }
  add_measurement(command, options, measured);
  if (options.dump_vmsa) dump_vmsas(measured);

  std::string text = sev::to_hex(measured.digest);
  if (options.output_format == "base64") text = sev::to_base64(measured.digest);
  if (options.output_format == "json") text = json_text(firmware, options, measured);
  if (options.verbose && options.output_format != "json") {
    text = fmt::format("Calculated {} guest measurement: {}", measured.es ? "SEV_ES" : "SEV", text);
  }
  fmt::print("{}\n", text);
  return 0;
}

}  // namespace

Command add_measure_command(CLI::App& app) {
  const auto options = std::make_shared<MeasureOptions>();
  CLI::App* measure_app = app.add_subcommand("measure", "Compute the launch digest of a guest from its files");
  measure_app->footer(kFooter);
  const auto add = [measure_app](const char* name, std::string& value, const char* type, const std::string& help) {
    return measure_app->add_option(name, value, help)->type_name(type);
  };
  add("--mode", options->mode, "sev|seves", "which kind of guest")->required();
  add("--vcpus", options->vcpus, "N", "number of vCPUs");
  add("--vcpu-type", options->vcpu_type, "NAME", "CPU type: " + sev::cpu_type_names());
  add("--vcpu-sig", options->vcpu_sig, "NUMBER", "the CPU's signature, CPUID Fn0000_0001_EAX");
  add("--vcpu-family", options->vcpu_family, "NUMBER", "the CPU's family, as 23 for EPYC");
  add("--vcpu-model", options->vcpu_model, "NUMBER", "the CPU's model");
  add("--vcpu-stepping", options->vcpu_stepping, "NUMBER", "the CPU's stepping");
  add("--vmm-type", options->vmm_type, "QEMU|ec2|gce", "whose register values; sevisor's are QEMU's")
      ->capture_default_str();
  add("--ovmf,--firmware", options->ovmf, "FILE", "firmware image (default: sevisor's own)");
  add("--ovmf-hash", options->ovmf_hash, "HEX", "refuse unless the firmware image has this SHA-256");
  add("--kernel", options->kernel, "FILE", "kernel of measured direct boot");
  add("--initrd", options->initrd, "FILE", "its initial RAM disk");
  add("--append", options->append, "TEXT", "its command line");
  add("--init-api", options->init_api, "es-init|init2",
      "which KVM call makes the guest; sev-snp-measure 0.0.10 and later compute init2")
      ->capture_default_str();
  add("--vmsa-features", options->vmsa_features, "NUMBER", "SEV_FEATURES in each VMSA; 0x20 is DebugSwap")
      ->capture_default_str();
  add("--guest-features", options->guest_features, "NUMBER", "SEV-SNP's; accepted and of no effect here");
  add("--output-format", options->output_format, "hex|base64|json", "json tells all parts")->capture_default_str();
  measure_app->add_flag("--dump-vmsa", options->dump_vmsa, "write each measured VMSA to vmsaN.bin in this folder");
  measure_app->add_flag("-v,--verbose", options->verbose, "say in words what is printed");
  add("--tik", options->tik, "FILE", "the guest's integrity key, to compute the measurement");
  add("--api-major", options->api_major, "N", "the platform's API version");
  add("--api-minor", options->api_minor, "N", "the same");
  add("--build-id", options->build_id, "N", "the platform's firmware build");
  add("--policy", options->policy, "NUMBER", "the guest's policy");
  add("--nonce", options->nonce, "HEX", "the 16 bytes of MNONCE");
  return {measure_app, [measure_app, options] { return measure(*measure_app, *options); }};
}

}  // namespace sevisor::cli
