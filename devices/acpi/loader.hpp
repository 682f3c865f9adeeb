// The script by which firmware places ACPI tables in memory of its choice: etc/table-loader
// (QEMU hw/acpi/bios-linker-loader.c).
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

namespace sevisor::devices::acpi {

inline constexpr std::size_t kLoaderCommandSize = 128;
inline constexpr std::size_t kLoaderFileNameSize = 56;  // with a NUL

enum class LoaderCommand : std::uint32_t { kAllocate = 1, kAddPointer = 2, kAddChecksum = 3 };
enum class LoaderZone : std::uint8_t { kHigh = 1, kFSegment = 2 };  // below 4 GiB, or 0xE0000 to 0xFFFFF for the RSDP

// File names are at most 55 characters; longer ones throw Error (kCrash). All integers are little-endian.
class LoaderScript {
 public:
  // Read the file into memory at a multiple of `alignment` (a power of two).
  void allocate(std::string_view file, std::uint32_t alignment, LoaderZone zone);
  // Add the address of `pointed_to` to the pointer of `size` bytes (1, 2, 4, 8) at `offset` in `file`, which holds an
  // offset into `pointed_to`.
  void add_pointer(std::string_view file, std::string_view pointed_to, std::uint32_t offset, std::uint8_t size);
  // Set the byte at `offset` in `file` so that `length` bytes from `start` on, it among them, sum to 0.
  void add_checksum(std::string_view file, std::uint32_t offset, std::uint32_t start, std::uint32_t length);

  [[nodiscard]] const std::vector<std::byte>& bytes() const noexcept { return bytes_; }

 private:
  std::byte* append(LoaderCommand command);

  std::vector<std::byte> bytes_;
};

}  // namespace sevisor::devices::acpi
