// The setup header of a bzImage and the boot_params that a kernel is entered with.
// Linux Documentation/arch/x86/boot.rst, zero-page.rst. Freestanding.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "firmware/failure.hpp"
#include "firmware/memory_map.hpp"

namespace sevisor::firmware {

inline constexpr std::size_t kBootParamsBytes = 4096;
inline constexpr std::size_t kSetupHeaderOffset = 0x1f1;
inline constexpr std::size_t kSetupHeaderEndMax = 0x290;  // boot_params has room for the header up to here
inline constexpr std::uint64_t kEntry64Offset = 0x200;    // of the 64-bit entry from where the kernel is loaded

struct KernelHeader {
  std::uint32_t header_end = 0;         // offset of the first byte behind the setup header
  std::uint64_t preferred_address = 0;  // pref_address
  std::uint64_t alignment = 0;          // kernel_alignment, bytes; a power of two, at least 4 KiB
  std::uint64_t init_size = 0;          // bytes of RAM that the kernel needs from its load address on
  std::uint64_t initrd_max = 0;         // highest address of the initrd's last byte
  std::uint32_t command_line_max = 0;   // bytes, without the terminating zero
  bool relocatable = false;
};

// Checks the start of the setup part. `setup`: at least its first bytes, up to 4096. `setup_size`, `kernel_size`: bytes
// of the whole setup part and of what follows it.
[[nodiscard]] Failure parse_kernel(std::span<const std::byte> setup, std::uint64_t setup_size,
                                   std::uint64_t kernel_size, KernelHeader& header) noexcept;

// For a kernel that is no bzImage but knows boot_params: a header with what boot loaders fill in, in `setup`, which is
// zeroed.
void make_setup_header(std::span<std::byte, kBootParamsBytes> setup, std::uint32_t command_line_max,
                       KernelHeader& header) noexcept;

// Where the kernel goes: its preferred address, or another place when it is relocatable and that one is not RAM.
[[nodiscard]] Failure place_kernel(const KernelHeader& header, const MemoryMap& map, std::uint64_t& address) noexcept;

struct BootRequest {
  std::uint64_t command_line = 0;  // address of the zero-terminated string
  std::uint64_t initrd = 0;        // address, 0 without
  std::uint64_t initrd_size = 0;   // bytes
  std::uint64_t rsdp = 0;          // address, 0 without
  std::uint64_t setup_data = 0;    // address of the first item, 0 without
  std::uint64_t kernel = 0;        // load address
};

// Fills a zeroed boot_params from a header that parse_kernel() accepted.
void fill_boot_params(std::span<std::byte, kBootParamsBytes> params, std::span<const std::byte> setup,
                      const KernelHeader& header, const BootRequest& request, const MemoryMap& map) noexcept;

}  // namespace sevisor::firmware
