// The table of hashes that makes a kernel, its initrd and its command line part of the measurement.
// QEMU target/i386/sev.c sev_add_kernel_loader_hashes(); OVMF OvmfPkg/AmdSev/BlobVerifierLibSevHashes.
#pragma once

#include <array>
#include <cstddef>
#include <span>
#include <string_view>

#include "sev/guid.hpp"
#include "sev/sha256.hpp"

namespace sevisor::sev {

inline constexpr Guid kHashesTableGuid = Guid::parse("9438d606-4f22-4cc9-b479-a793d411fd21");
inline constexpr Guid kCmdlineHashGuid = Guid::parse("97d02dd8-bd20-4c94-aa78-e7714d36ab2a");
inline constexpr Guid kInitrdHashGuid = Guid::parse("44baf731-3a2f-4bd7-9af1-41e29169781d");
inline constexpr Guid kKernelHashGuid = Guid::parse("4de79437-abd2-427f-b835-d5b172d2045b");

inline constexpr std::size_t kHashesTableLength = 168;  // as the table itself says
inline constexpr std::size_t kHashesTableSize = 176;    // with the padding to 16 bytes that LAUNCH_UPDATE_DATA wants

using HashesTable = std::array<std::byte, kHashesTableSize>;

// What the table holds.
struct KernelHashes {
  Digest cmdline{};  // with the NUL at its end
  Digest initrd{};
  Digest kernel{};

  friend bool operator==(const KernelHashes&, const KernelHashes&) noexcept = default;
};

// Of the text and the NUL that follows it.
[[nodiscard]] Digest cmdline_hash(std::string_view cmdline);

[[nodiscard]] HashesTable make_hashes_table(const KernelHashes& hashes);

// `kernel`: the whole file, unmodified. `initrd`: empty if none. `cmdline` without the NUL that is hashed with it.
[[nodiscard]] HashesTable make_hashes_table(std::span<const std::byte> kernel, std::span<const std::byte> initrd,
                                            std::string_view cmdline);

}  // namespace sevisor::sev
