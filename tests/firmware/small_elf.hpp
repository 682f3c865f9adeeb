// A small ELF executable of one segment, with a PVH note if there is to be one, made as the System V ABI has it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <span>
#include <vector>

namespace sevisor::test {

struct SmallElf {
  bool wide = true;  // ELF-64, else ELF-32
  std::uint64_t address = 0x1000000;
  std::span<const std::uint8_t> code{};  // the entry is its first byte
  std::uint64_t memory_size = 0x3000;
  std::optional<std::uint32_t> pvh_entry = std::nullopt;

  static constexpr std::size_t kProgramHeaders = 64;
  static constexpr std::size_t kNotes = 0x200;
  static constexpr std::size_t kCode = 0x400;

  [[nodiscard]] std::vector<std::byte> make() const {
    std::vector<std::byte> file(kCode + code.size() + 0x400);
    const auto put = [&file](std::size_t at, std::uint64_t value, std::size_t size) {
      std::memcpy(file.data() + at, &value, size);
    };
    const std::size_t word = wide ? 8 : 4;
    put(0, 0x464c457f, 4);
    put(4, wide ? 2 : 1, 1);
    put(5, 1, 1);   // little-endian
    put(6, 1, 1);   // version
    put(16, 2, 2);  // ET_EXEC
    put(18, wide ? 62 : 3, 2);
    put(24, address, word);
    put(wide ? 32 : 28, kProgramHeaders, word);
    put(wide ? 54 : 42, wide ? 56 : 32, 2);
    put(wide ? 56 : 44, pvh_entry ? 2 : 1, 2);
    const auto header = [&](std::size_t index, std::uint32_t type, std::uint64_t offset, std::uint64_t size,
                            std::uint64_t in_memory, std::uint64_t alignment) {
      const std::size_t at = kProgramHeaders + index * (wide ? 56 : 32);
      put(at, type, 4);
      put(at + (wide ? 8 : 4), offset, word);
      put(at + (wide ? 24 : 12), type == 1 ? address : 0, word);
      put(at + (wide ? 32 : 16), size, word);
      put(at + (wide ? 40 : 20), in_memory, word);
      put(at + (wide ? 48 : 28), alignment, word);
    };
    header(0, 1, kCode, code.size(), memory_size, 0x1000);
    if (pvh_entry) {
      // Another note first: the right one has to be looked for.
      put(kNotes, 4, 4);
      put(kNotes + 4, 6, 4);
      put(kNotes + 8, 6, 4);
      std::memcpy(file.data() + kNotes + 12, "Xen\0linux", 10);
      put(kNotes + 24, 4, 4);
      put(kNotes + 28, 4, 4);
      put(kNotes + 32, 18, 4);
      std::memcpy(file.data() + kNotes + 36, "Xen", 4);
      put(kNotes + 40, *pvh_entry, 4);
      header(1, 4, kNotes, 44, 44, 4);
    }
    std::memcpy(file.data() + kCode, code.data(), code.size());
    return file;
  }
};

}  // namespace sevisor::test
