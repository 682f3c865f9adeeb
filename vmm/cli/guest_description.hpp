// What `measure` and `verify` are told about a guest, made into what the launch digest covers.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "sev/firmware_image.hpp"
#include "sev/hashes_table.hpp"
#include "vmm/boot/file_hash.hpp"

namespace sevisor::cli {

// More than any KVM has (KVM_MAX_VCPUS); what is above is a mistake.
inline constexpr unsigned kMaxMeasuredVcpus = 4096;

[[nodiscard]] sev::FirmwareImage built_in_firmware();
// Whether it is sevisor's own, from wherever it was read.
[[nodiscard]] bool is_built_in(const sev::FirmwareImage& firmware);
// Throws Error (kBadUsage) when the file cannot be read.
[[nodiscard]] sev::FirmwareImage read_firmware(const std::string& path);

struct KernelFiles {
  std::string kernel;
  std::optional<std::string> initrd;
  std::optional<std::string> cmdline;
};

struct KernelFileHashes {
  vmm::FileHash kernel;
  vmm::FileHash initrd;  // of nothing, if there is none
  sev::KernelHashes hashes;
};

// Reads kernel and initrd at the same time. Throws Error (kBadUsage); for a kernel of a kind that `firmware` does not
// boot, as `run` would.
[[nodiscard]] KernelFileHashes hash_kernel_files(const KernelFiles& files, const sev::FirmwareImage& firmware);

// On standard error: a platform may take the policy all the same.
void warn_of_reserved_bits(std::uint32_t policy);

// Where vCPUs but the first start; 0 for one vCPU, which needs no such address. Throws Error (kBadUsage).
[[nodiscard]] std::uint32_t ap_reset_address_of(const sev::FirmwareImage& firmware, unsigned vcpus);

}  // namespace sevisor::cli
