// Kernels that are static ELF files: vmlinux, and small guests for tests. System V ABI, "Object Files" (ELF-64 Object
// File Format, version 1.5); the PVH entry as Xen's docs/misc/pvh.pandoc has it. Freestanding.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "firmware/failure.hpp"

namespace sevisor::firmware {

// Linux's own limit on x86 (COMMAND_LINE_SIZE), without the terminating zero; an ELF file says nothing about it.
inline constexpr std::uint32_t kElfCommandLineMax = 2047;

struct ElfSegment {
  std::uint64_t offset = 0;       // in the file
  std::uint64_t size = 0;         // bytes in the file
  std::uint64_t address = 0;      // guest-physical
  std::uint64_t memory_size = 0;  // bytes, at least `size`; zeros behind it
};

struct ElfKernel {
  static constexpr std::size_t kMaxSegments = 16;

  std::array<ElfSegment, kMaxSegments> segments{};
  std::size_t count = 0;
  std::uint64_t begin = 0, end = 0;          // of the memory they take: 1 MiB to 3 GiB
  std::optional<std::uint64_t> entry{};      // e_entry, for 64-bit mode: ELF-64 only
  std::optional<std::uint32_t> pvh_entry{};  // for 32-bit mode without paging: XEN_ELFNOTE_PHYS32_ENTRY
};

[[nodiscard]] bool is_elf(std::span<const std::byte> file) noexcept;

// kElfMachine: not a static executable for x86; kElf: malformed, or more segments than kMaxSegments; kElfEntry: no
// entry that lies in a segment. `kernel` counts only when it returns kNone.
[[nodiscard]] Failure parse_elf(std::span<const std::byte> file, ElfKernel& kernel) noexcept;

}  // namespace sevisor::firmware
