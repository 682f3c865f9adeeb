#include "sev/firmware_facts.hpp"

#include <algorithm>
#include <array>
#include <fmt/format.h>
#include <string_view>

#include "base/bytes.hpp"
#include "base/error.hpp"
#include "sev/hashes_table.hpp"

namespace sevisor::sev {

namespace {

// edk2 UefiCpuPkg/ResetVector/Vtf0/Ia16/ResetVectorVtf0.asm: the reset code is marked "VTF" and a zero, 20 bytes before
// the end.
constexpr std::size_t kVtfToEnd = 20;
constexpr std::uint32_t kVtf = 0x00465456;
// PE/COFF: "PE" and two zeros, then the machine type.
constexpr std::array<std::byte, 6> kPeIa32 = {std::byte{'P'}, std::byte{'E'},  std::byte{0},
                                              std::byte{0},   std::byte{0x4c}, std::byte{0x01}};
constexpr std::array<std::byte, 6> kPeX64 = {std::byte{'P'}, std::byte{'E'},  std::byte{0},
                                             std::byte{0},   std::byte{0x64}, std::byte{0x86}};

// The SEC core is the last PE image that lies uncompressed in the firmware: reset code jumps straight into it.
bool sec_core_is_32_bit(std::span<const std::byte> image) {
  // Where the last one begins, counted from the image's start, plus one; 0 if there is none.
  const auto last = [image](const auto& header) -> std::ptrdiff_t {
    const auto found = std::find_end(image.begin(), image.end(), header.begin(), header.end());
    return found == image.end() ? 0 : found - image.begin() + 1;
  };
  return last(kPeIa32) > last(kPeX64);
}

void read_tables(std::span<const std::byte> image, FirmwareFacts& facts) {
  try {
    facts.table = parse_footer_table(image);
  } catch (const Error& error) {
    facts.table_error = error.came_back();
    return;
  }
  try {
    facts.snp_sections = parse_snp_metadata(image, *facts.table);
  } catch (const Error& error) {
    facts.snp_error = error.came_back();
  }
}

Ability can_run_sev_es(const FirmwareFacts& facts) {
  if (!facts.table) {
    return {false, fmt::format("no SEV-ES firmware: its footer table cannot be used ({})", facts.table_error)};
  }
  if (facts.starts_in_32_bit_code) {
    return {
        false,
        "its first stages are 32-bit code (an edk2 Ia32X64 build). Such code has no C-bit in its page tables and no "
        "#VC handler that could share a GHCB with the hypervisor, so it ends at the first port access. The X64 build "
        "is needed (Debian: OVMF_CODE.fd, not OVMF_CODE_4M.fd)"};
  }
  if (!facts.table->ap_reset_address()) {
    return {false, "it has no SEV-ES reset block, which firmware made for SEV-ES has"};
  }
  return {true, "it has a SEV-ES reset block, and its first stages are not 32-bit edk2 code"};
}

Ability can_start_vcpus(const FirmwareFacts& facts) {
  if (!facts.sev_es.can) return {false, "it cannot run as a SEV-ES guest at all"};
  const std::uint32_t address = facts.table->ap_reset_address().value_or(0);
  if (address == 0) return {false, "the address in its SEV-ES reset block is 0"};
  return {true, fmt::format("they start at {:#x} (CS base {:#x}, IP {:#x})", address, address & 0xffff0000,
                            address & 0xffff)};
}

Ability can_verify_kernel(const FirmwareFacts& facts) {
  if (!facts.table) return {false, "without a footer table there is no place for the hashes"};
  if (!facts.table->hashes_area()) {
    return {false, facts.table->find(kHashesAreaGuid) != nullptr
                       ? "its area for kernel hashes is empty (base 0): it would start any kernel the host gives it"
                       : "it names no area for kernel hashes: it would start any kernel the host gives it"};
  }
  try {
    const FooterArea area = require_hashes_area(*facts.table);
    return {true, fmt::format("it takes the {} bytes of the hashes table at {:#x}", kHashesTableSize, area.base)};
  } catch (const Error& error) {
    return {false, error.came_back()};
  }
}

Ability can_take_secret(const FirmwareFacts& facts) {
  const auto area = facts.table ? facts.table->secret_area() : std::nullopt;
  if (!area) return {false, "it names no area for secrets; the host must choose an address, which the guest must know"};
  return {true, fmt::format("{} bytes at {:#x}", area->size, area->base)};
}

}  // namespace

FirmwareFacts examine_firmware(std::span<const std::byte> image) {
  FirmwareFacts facts;
  read_tables(image, facts);
  facts.edk2 = image.size() >= kVtfToEnd && load<std::uint32_t>(image.data() + image.size() - kVtfToEnd) == kVtf;
  facts.starts_in_32_bit_code = facts.edk2 && sec_core_is_32_bit(image);
  facts.sev_es = can_run_sev_es(facts);
  facts.more_vcpus = can_start_vcpus(facts);
  facts.direct_boot = can_verify_kernel(facts);
  facts.launch_secret = can_take_secret(facts);
  return facts;
}

}  // namespace sevisor::sev
