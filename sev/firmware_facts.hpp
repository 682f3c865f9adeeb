// What a firmware image can do for a SEV-ES guest, as far as its bytes tell.
#pragma once

#include <cstddef>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "sev/footer_table.hpp"
#include "sev/snp_metadata.hpp"

namespace sevisor::sev {

// Whether it can, and a sentence that says why or why not.
struct Ability {
  bool can = false;
  std::string why;
};

struct FirmwareFacts {
  std::optional<FooterTable> table;  // nothing: there is none, or it is damaged
  std::string table_error;           // why not
  std::vector<SnpSection> snp_sections;
  std::string snp_error;               // why they could not be read
  bool edk2 = false;                   // built of edk2 (OVMF): its reset code says so
  bool starts_in_32_bit_code = false;  // edk2's first stage after reset (SEC) is IA32, not X64

  Ability sev_es;         // be the firmware of a SEV-ES guest with one vCPU
  Ability more_vcpus;     // start further vCPUs
  Ability direct_boot;    // verify a kernel by measured hashes
  Ability launch_secret;  // receive a secret in a place of its own
};

[[nodiscard]] FirmwareFacts examine_firmware(std::span<const std::byte> image);

}  // namespace sevisor::sev
