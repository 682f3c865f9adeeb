// What `measure` and `verify` are told about a guest, made into what the launch digest covers.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>

#include "sev/footer_table.hpp"
#include "sev/hashes_table.hpp"
#include "vmm/boot/file_hash.hpp"
#include "vmm/boot/input_file.hpp"

namespace sevisor::cli {

// More than any KVM has (KVM_MAX_VCPUS); what is above is a mistake.
inline constexpr unsigned kMaxMeasuredVcpus = 4096;

// A firmware image with its footer table, which is read only when something in it is asked for: not every digest needs
// it.
class FirmwareFile {
 public:
  // Our own if `path` is empty. Throws Error (kBadUsage).
  explicit FirmwareFile(const std::string& path);

  [[nodiscard]] const std::string& name() const noexcept { return name_; }  // the path, or "built in"
  [[nodiscard]] std::span<const std::byte> image() const noexcept { return image_; }
  [[nodiscard]] sev::FooterTable table() const;  // throws Error (kBadUsage), naming the file

 private:
  std::string name_;
  vmm::FileBytes file_;
  std::span<const std::byte> image_;
};

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

// Reads kernel and initrd at the same time. Throws Error (kBadUsage).
[[nodiscard]] KernelFileHashes hash_kernel_files(const KernelFiles& files);

// As sev::require_hashes_area() and require_ap_reset_address(), naming the file.
[[nodiscard]] sev::FooterArea hashes_area_of(const FirmwareFile& firmware);
// 0 for one vCPU, which needs none.
[[nodiscard]] std::uint32_t ap_reset_address_of(const FirmwareFile& firmware, unsigned vcpus);

}  // namespace sevisor::cli
