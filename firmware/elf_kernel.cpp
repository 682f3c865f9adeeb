#include "firmware/elf_kernel.hpp"

#include "base/bytes.hpp"

namespace sevisor::firmware {

namespace {
constexpr std::uint32_t kMagic = 0x464c457f;  // 0x7f "ELF"
constexpr std::size_t kClass = 4;
constexpr std::size_t kData = 5;
constexpr std::size_t kType = 16;
constexpr std::size_t kMachine = 18;
constexpr std::size_t kEntry = 24;
constexpr std::uint8_t kLittleEndian = 1;
constexpr std::uint16_t kExecutable = 2;
constexpr std::uint16_t kMachine386 = 3;
constexpr std::uint16_t kMachineX86_64 = 62;
constexpr std::uint32_t kLoad = 1;
constexpr std::uint32_t kNote = 4;
constexpr std::size_t kMaxHeaders = 64;

// Where the two classes have their fields; a word has `word` bytes.
struct Layout {
  std::uint16_t machine;
  std::size_t word;
  std::size_t header_bytes, headers_at, entry_size, entry_count;
  std::size_t program_bytes, offset, address, file_size, memory_size, alignment;
};
constexpr Layout kElf32{kMachine386, 4, 52, 28, 42, 44, 32, 4, 12, 16, 20, 28};
constexpr Layout kElf64{kMachineX86_64, 8, 64, 32, 54, 56, 56, 8, 24, 32, 40, 48};

// Xen's note with the PVH entry (xen/include/public/elfnote.h): name "Xen", a word of 4 or 8 bytes.
constexpr std::uint32_t kNoteName = 0x006e6558;
constexpr std::uint32_t kNotePhys32Entry = 18;
constexpr std::size_t kNoteHead = 12;

constexpr std::uint64_t kLowest = 1 << 20;
constexpr std::uint64_t kHighest = 0xc0000000;  // everything is placed below 3 GiB

std::uint64_t word_at(const Layout& layout, const std::byte* at) noexcept {
  return layout.word == 8 ? load<std::uint64_t>(at) : load<std::uint32_t>(at);
}

bool within(std::uint64_t offset, std::uint64_t size, std::uint64_t limit) noexcept {
  return offset <= limit && size <= limit - offset;
}

std::optional<std::uint32_t> find_pvh_entry(std::span<const std::byte> notes, std::uint64_t alignment) noexcept {
  const std::uint64_t step = alignment == 8 ? 8 : 4;
  while (notes.size() >= kNoteHead) {
    const std::uint64_t name_size = load<std::uint32_t>(notes.data());
    const std::uint64_t size = load<std::uint32_t>(notes.data() + 4);
    const std::uint64_t content = align_up(kNoteHead + name_size, step);
    const std::uint64_t next = align_up(content + size, step);
    if (content + size > notes.size()) return std::nullopt;
    const bool ours = name_size == 4 && load<std::uint32_t>(notes.data() + kNoteHead) == kNoteName &&
                      load<std::uint32_t>(notes.data() + 8) == kNotePhys32Entry && (size == 4 || size == 8);
    if (ours) return load<std::uint32_t>(notes.data() + content);
    if (next >= notes.size()) return std::nullopt;
    notes = notes.subspan(next);
  }
  return std::nullopt;
}

bool is_in_segment(const ElfKernel& kernel, std::uint64_t address) noexcept {
  for (const ElfSegment& segment : std::span(kernel.segments).first(kernel.count)) {
    if (address >= segment.address && address - segment.address < segment.memory_size) return true;
  }
  return false;
}

bool add_segment(ElfKernel& kernel, const ElfSegment& segment, std::uint64_t file_size) noexcept {
  if (segment.memory_size == 0) return segment.size == 0;
  if (kernel.count == ElfKernel::kMaxSegments || segment.size > segment.memory_size) return false;
  if (!within(segment.offset, segment.size, file_size)) return false;
  if (segment.address < kLowest || !within(segment.address, segment.memory_size, kHighest)) return false;
  const std::uint64_t end = segment.address + segment.memory_size;
  if (kernel.count == 0 || segment.address < kernel.begin) kernel.begin = segment.address;
  if (end > kernel.end) kernel.end = end;
  kernel.segments[kernel.count++] = segment;
  return true;
}
}  // namespace

bool is_elf(std::span<const std::byte> file) noexcept {
  return file.size() >= sizeof kMagic && load<std::uint32_t>(file.data()) == kMagic;
}

Failure parse_elf(std::span<const std::byte> file, ElfKernel& kernel) noexcept {
  kernel = {};
  if (!is_elf(file) || file.size() < kElf32.header_bytes) return Failure::kElf;
  const std::byte* bytes = file.data();
  const auto elf_class = load<std::uint8_t>(bytes + kClass);
  if (elf_class != 1 && elf_class != 2) return Failure::kElfMachine;
  const Layout& layout = elf_class == 2 ? kElf64 : kElf32;
  if (file.size() < layout.header_bytes) return Failure::kElf;
  if (load<std::uint8_t>(bytes + kData) != kLittleEndian || load<std::uint16_t>(bytes + kType) != kExecutable ||
      load<std::uint16_t>(bytes + kMachine) != layout.machine) {
    return Failure::kElfMachine;
  }
  const std::uint64_t headers = word_at(layout, bytes + layout.headers_at);
  const std::size_t count = load<std::uint16_t>(bytes + layout.entry_count);
  if (load<std::uint16_t>(bytes + layout.entry_size) != layout.program_bytes || count == 0 || count > kMaxHeaders ||
      !within(headers, count * layout.program_bytes, file.size())) {
    return Failure::kElf;
  }

  for (std::size_t i = 0; i < count; ++i) {
    const std::byte* header = bytes + headers + i * layout.program_bytes;
    const auto type = load<std::uint32_t>(header);
    const ElfSegment segment{.offset = word_at(layout, header + layout.offset),
                             .size = word_at(layout, header + layout.file_size),
                             .address = word_at(layout, header + layout.address),
                             .memory_size = word_at(layout, header + layout.memory_size)};
    if (type == kLoad && !add_segment(kernel, segment, file.size())) return Failure::kElf;
    if (type == kNote && !kernel.pvh_entry) {
      if (!within(segment.offset, segment.size, file.size())) return Failure::kElf;
      kernel.pvh_entry =
          find_pvh_entry(file.subspan(segment.offset, segment.size), word_at(layout, header + layout.alignment));
    }
  }
  if (kernel.count == 0) return Failure::kElf;
  if (layout.word == 8) kernel.entry = load<std::uint64_t>(bytes + kEntry);
  if (kernel.entry && !is_in_segment(kernel, *kernel.entry)) kernel.entry.reset();
  if (kernel.pvh_entry && !is_in_segment(kernel, *kernel.pvh_entry)) return Failure::kElfEntry;
  return kernel.entry || kernel.pvh_entry ? Failure::kNone : Failure::kElfEntry;
}

}  // namespace sevisor::firmware
