// The list of regions that a firmware image wants prepared for SEV-SNP. SEV and SEV-ES use none of it; it is read to be
// told. OVMF OvmfPkg/ResetVector/X64/OvmfSevMetadata.asm. The image is untrusted input.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "sev/footer_table.hpp"

namespace sevisor::sev {

struct SnpSection {
  std::uint32_t base = 0;  // guest-physical
  std::uint32_t size = 0;  // bytes
  std::uint32_t type = 0;
};

// "secrets page"; empty for a type without a name.
[[nodiscard]] std::string_view snp_section_name(std::uint32_t type) noexcept;

// Nothing if the table has no entry for it. Throws Error (kBadUsage) when the entry points outside the image or what
// is there is no such list.
[[nodiscard]] std::vector<SnpSection> parse_snp_metadata(std::span<const std::byte> image, const FooterTable& table);

}  // namespace sevisor::sev
