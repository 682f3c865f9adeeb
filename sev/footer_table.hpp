// The GUIDed table at the end of a firmware image that tells a VMM where things are.
// OVMF OvmfPkg/ResetVector/Ia16/ResetVectorVtf0.asm; QEMU hw/i386/pc_sysfw_ovmf.c. The image is untrusted input.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "sev/guid.hpp"

namespace sevisor::sev {

inline constexpr Guid kFooterGuid = Guid::parse("96b582de-1fb2-45f7-baea-a366c55a082d");
inline constexpr Guid kSevEsResetGuid = Guid::parse("00f771de-1a7e-4fcb-890e-68c77e2fb44e");
inline constexpr Guid kSecretAreaGuid = Guid::parse("4c2eb361-7d9b-4cc3-8081-127c90d3d294");
inline constexpr Guid kHashesAreaGuid = Guid::parse("7255371f-3a3b-4b04-927b-1da6efa8d454");
inline constexpr Guid kSnpMetadataGuid = Guid::parse("dc886566-984a-4798-a75e-5585a7bf67cc");
inline constexpr Guid kTdxMetadataGuid = Guid::parse("e47a6535-984a-4798-865e-4685a7bf8ec2");
inline constexpr Guid kIgvmMetadataGuid = Guid::parse("784fa70e-3176-4677-8a20-04b68699e374");
inline constexpr Guid kSvsmInfoGuid = Guid::parse("a789a612-0597-4c4b-a49f-cbb1fe9d1ddd");

// Bytes behind the table: the reset code.
inline constexpr std::size_t kFooterToEnd = 32;

struct FooterEntry {
  Guid guid;
  std::size_t offset = 0;       // of the data in the image, bytes
  std::vector<std::byte> data;  // a copy
};

// Guest-physical; base 0 in the image means "not supported" and gives no area.
struct FooterArea {
  std::uint32_t base = 0;
  std::uint32_t size = 0;  // bytes
};

struct FooterTable {
  std::vector<FooterEntry> entries;  // from the end of the image backwards
  bool bare_reset_block = false;     // firmware older than the table: the reset block stands alone in its place

  [[nodiscard]] const FooterEntry* find(const Guid& guid) const noexcept;

  // Where an AP starts: upper half CS base, lower half IP. nullopt if the table has no reset block; may be 0.
  [[nodiscard]] std::optional<std::uint32_t> ap_reset_address() const;
  [[nodiscard]] std::optional<FooterArea> secret_area() const;
  [[nodiscard]] std::optional<FooterArea> hashes_area() const;
};

// Throws Error (kBadUsage) that says what is wrong with the table: none there, lengths that do not fit, an entry too
// short for its kind, an entry that stands twice (which of the two counts would differ from tool to tool).
[[nodiscard]] FooterTable parse_footer_table(std::span<const std::byte> image);

// As ap_reset_address(), but throws Error (kBadUsage) when the image cannot start an AP of a SEV-ES guest.
[[nodiscard]] std::uint32_t require_ap_reset_address(const FooterTable& table);

// As hashes_area(), but throws Error (kBadUsage) when the firmware does not verify a kernel, or the area cannot hold
// the table.
[[nodiscard]] FooterArea require_hashes_area(const FooterTable& table);

}  // namespace sevisor::sev
