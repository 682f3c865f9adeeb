// Runs the VMM's table loader script: it allocates the ACPI tables, links them and sets their checksums.
// QEMU hw/acpi/bios-linker-loader.c. The script and the tables come from the hypervisor; every offset is checked.
// Freestanding.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "firmware/failure.hpp"

namespace sevisor::firmware {

inline constexpr std::size_t kLoaderEntryBytes = 128;
inline constexpr std::size_t kLoaderNameBytes = 56;  // with the terminating zero

// A file that the script had placed in memory.
struct AcpiBlob {
  std::array<char, kLoaderNameBytes> name{};
  std::span<std::byte> bytes;
  std::uint64_t address = 0;  // guest-physical, of bytes[0]
};

// Where the files come from and go to.
class AcpiFiles {
 public:
  // Reads the whole file `name` into private memory of its own, at a multiple of `alignment` (a power of two), below 1
  // MiB when `low`. kAcpiTables when there is no such file, kNoMemory when there is no room. Sets `bytes` and `address`
  // of `blob`.
  [[nodiscard]] virtual Failure place(std::string_view name, std::uint32_t alignment, bool low, AcpiBlob& blob) = 0;

 protected:
  ~AcpiFiles() = default;
};

class AcpiLoader {
 public:
  // kAcpiTables when the script breaks its own rules; what place() says when that fails.
  [[nodiscard]] Failure run(std::span<const std::byte> script, AcpiFiles& files);

  // Address of the root pointer ("etc/acpi/rsdp"), 0 when the script placed none.
  [[nodiscard]] std::uint64_t rsdp() const noexcept;

 private:
  [[nodiscard]] Failure allocate(std::span<const std::byte> entry, AcpiFiles& files);
  [[nodiscard]] Failure add_pointer(std::span<const std::byte> entry) noexcept;
  [[nodiscard]] Failure add_checksum(std::span<const std::byte> entry) noexcept;
  [[nodiscard]] AcpiBlob* find(std::string_view name) noexcept;

  static constexpr std::size_t kMaxBlobs = 16;
  std::array<AcpiBlob, kMaxBlobs> blobs_{};
  std::size_t count_ = 0;
};

}  // namespace sevisor::firmware
