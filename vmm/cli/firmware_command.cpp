#include "vmm/cli/firmware_command.hpp"

#include <array>
#include <cstdint>
#include <cstdio>
#include <fmt/format.h>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "base/bytes.hpp"
#include "sev/encoding.hpp"
#include "sev/firmware_facts.hpp"
#include "sev/sha256.hpp"
#include "vmm/cli/guest_description.hpp"

namespace sevisor::cli {

namespace {

constexpr const char* kFooter =
    "Exit codes: 0 the image can be a SEV-ES guest's firmware, 1 it cannot (why is said), 35 it cannot be read.\n"
    "\n"
    "Examples:\n"
    "  sevisor firmware /usr/share/OVMF/OVMF_CODE.fd\n"
    "  sevisor firmware --json | jq .can\n";

struct FirmwareOptions {
  std::string file;
  bool json = false;
};

struct EntryName {
  sev::Guid guid;
  const char* name;
};
constexpr EntryName kEntryNames[] = {
    {sev::kSevEsResetGuid, "SEV-ES reset block"}, {sev::kSecretAreaGuid, "launch secret area"},
    {sev::kHashesAreaGuid, "kernel hashes area"}, {sev::kSnpMetadataGuid, "SNP metadata"},
    {sev::kTdxMetadataGuid, "TDX metadata"},      {sev::kIgvmMetadataGuid, "IGVM parameters"},
    {sev::kSvsmInfoGuid, "SVSM information"},
};

const char* entry_name(const sev::Guid& guid) {
  for (const EntryName& entry : kEntryNames) {
    if (entry.guid == guid) return entry.name;
  }
  return "unknown";
}

// The parser has checked that entries of these kinds have this much data.
std::string entry_value(const sev::FooterEntry& entry) {
  const std::byte* end = entry.data.data() + entry.data.size();
  if (entry.guid == sev::kSecretAreaGuid || entry.guid == sev::kHashesAreaGuid) {
    return fmt::format("base {:#x}, size {:#x}", load<std::uint32_t>(end - 8), load<std::uint32_t>(end - 4));
  }
  if (entry.guid == sev::kSevEsResetGuid) return fmt::format("{:#x}", load<std::uint32_t>(end - 4));
  if (entry.guid == sev::kSnpMetadataGuid || entry.guid == sev::kTdxMetadataGuid ||
      entry.guid == sev::kIgvmMetadataGuid) {
    return fmt::format("{:#x} bytes before the end", load<std::uint32_t>(end - 4));
  }
  return sev::to_hex(entry.data);
}

std::string section_name(std::uint32_t type) {
  const std::string_view name = sev::snp_section_name(type);
  return name.empty() ? fmt::format("type {:#x}", type) : std::string(name);
}

struct NamedAbility {
  const char* key;
  const char* words;
  const sev::Ability& ability;
};
std::array<NamedAbility, 4> abilities(const sev::FirmwareFacts& facts) {
  return {{{"sev_es", "run as a SEV-ES guest", facts.sev_es},
           {"more_vcpus", "start more vCPUs under SEV-ES", facts.more_vcpus},
           {"measured_direct_boot", "boot a measured kernel", facts.direct_boot},
           {"launch_secret", "receive a launch secret", facts.launch_secret}}};
}

void print_text(const sev::FirmwareImage& file) {
  const sev::FirmwareFacts& facts = file.facts();
  fmt::print("firmware  {}\nsize      {} bytes, from {:#x} to 4 GiB\nSHA-256   {}\n", file.name(), file.size(),
             (std::uint64_t{1} << 32) - file.size(), sev::to_hex(sev::sha256(file.bytes())));
  if (facts.edk2) fmt::print("built of  edk2, SEC stage {}\n", facts.starts_in_32_bit_code ? "IA32" : "X64");
  if (facts.table) {
    fmt::print("\nfooter table{}\n", facts.table->bare_reset_block ? " (older form: the reset block alone)" : "");
    for (const sev::FooterEntry& entry : facts.table->entries) {
      fmt::print("  {}  {:<20} {}\n", entry.guid.to_string(), entry_name(entry.guid), entry_value(entry));
    }
  } else {
    fmt::print("\nfooter table: {}\n", facts.table_error);
  }
  if (!facts.snp_sections.empty()) {
    fmt::print("\nSNP metadata (SEV-ES uses none of it)\n");
    for (const sev::SnpSection& section : facts.snp_sections) {
      fmt::print("  {:#010x} + {:#x}  {}\n", section.base, section.size, section_name(section.type));
    }
  }
  if (!facts.snp_error.empty()) fmt::print("\nSNP metadata: {}\n", facts.snp_error);
  fmt::print("\nCan it ...\n");
  for (const NamedAbility& entry : abilities(facts)) {
    fmt::print("  {}? {}: {}.\n", entry.words, entry.ability.can ? "Yes" : "No", entry.ability.why);
  }
}

void print_json(const sev::FirmwareImage& file) {
  const sev::FirmwareFacts& facts = file.facts();
  nlohmann::ordered_json json;
  json["file"] = file.name();
  json["size"] = file.size();
  json["sha256"] = sev::to_hex(sev::sha256(file.bytes()));
  json["edk2"] = facts.edk2;
  json["footer_table"] = nlohmann::ordered_json::array();
  if (facts.table) {
    for (const sev::FooterEntry& entry : facts.table->entries) {
      json["footer_table"].push_back({{"guid", entry.guid.to_string()},
                                      {"name", entry_name(entry.guid)},
                                      {"offset", entry.offset},
                                      {"data", sev::to_hex(entry.data)}});
    }
  }
  json["snp_metadata"] = nlohmann::ordered_json::array();
  for (const sev::SnpSection& section : facts.snp_sections) {
    json["snp_metadata"].push_back({{"base", section.base}, {"size", section.size}, {"type", section.type}});
  }
  for (const NamedAbility& entry : abilities(facts)) {
    json["can"][entry.key] = {{"answer", entry.ability.can}, {"why", entry.ability.why}};
  }
  fmt::print("{}\n", json.dump(2, ' ', false, nlohmann::ordered_json::error_handler_t::replace));
}

int read_aloud(const FirmwareOptions& options) {
  const sev::FirmwareImage file = options.file.empty() ? built_in_firmware() : read_firmware(options.file);
  if (options.json) {
    print_json(file);
  } else {
    print_text(file);
  }
  return file.facts().sev_es.can ? 0 : 1;
}

}  // namespace

Command add_firmware_command(CLI::App& app) {
  const auto options = std::make_shared<FirmwareOptions>();
  CLI::App* firmware = app.add_subcommand("firmware", "Read a firmware image's tables aloud");
  firmware->footer(kFooter);
  firmware->add_option("FILE", options->file, "firmware image (default: sevisor's own)");
  firmware->add_flag("--json", options->json, "as one JSON object");
  return {firmware, [options] { return read_aloud(*options); }};
}

}  // namespace sevisor::cli
