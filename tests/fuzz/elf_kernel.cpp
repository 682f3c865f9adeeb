// The firmware's and the VMM's reading of an ELF kernel.
#include "firmware/elf_kernel.hpp"

#include <algorithm>
#include <vector>

#include "check.hpp"
#include "input.hpp"
#include "tests/firmware/small_elf.hpp"

using namespace sevisor;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  fuzz::Input input(data, size);
  const auto choice = input.take<std::uint8_t>();
  constexpr std::uint8_t kCode[] = {0xf4, 0xeb, 0xfd};
  test::SmallElf elf{.wide = (choice & 1) != 0, .code = kCode};
  if ((choice & 2) != 0) elf.pvh_entry = 0x1000001;
  std::vector<std::byte> file = elf.make();
  for (unsigned edits = input.take<std::uint8_t>() % 8; edits != 0; --edits) {
    const std::size_t at = input.take<std::uint16_t>() % (test::SmallElf::kNotes + 0x40);  // headers and notes
    std::ranges::copy(input.bytes(1 + input.take<std::uint8_t>() % 8), file.begin() + static_cast<std::ptrdiff_t>(at));
  }
  if (const auto cut = input.take<std::uint16_t>(); cut != 0) file.resize(cut % 8192);

  firmware::ElfKernel kernel;
  if (parse_elf(file, kernel) != firmware::Failure::kNone) return 0;
  FUZZ_CHECK(kernel.entry || kernel.pvh_entry);
  FUZZ_CHECK(kernel.begin >= 1 << 20 && kernel.begin < kernel.end && kernel.end <= 0xc0000000);
  for (std::size_t i = 0; i < kernel.count; ++i) {
    const firmware::ElfSegment& segment = kernel.segments[i];
    FUZZ_CHECK(segment.offset <= file.size() && segment.size <= file.size() - segment.offset);
    FUZZ_CHECK(segment.size <= segment.memory_size);
    FUZZ_CHECK(segment.address >= kernel.begin && segment.address + segment.memory_size <= kernel.end);
  }
  return 0;
}
