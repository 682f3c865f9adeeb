// The decoder of the #VC handler: whatever it accepts lies within the bytes, and reads no further than it says.
#include <vector>

#include "check.hpp"
#include "ghcb/guest/instruction.hpp"

using namespace sevisor::ghcb::guest;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  constexpr std::size_t kLongest = 15;
  // An array of its own, so that a read behind its end is noticed.
  const std::vector<std::uint8_t> bytes(data, data + (size < kLongest ? size : kLongest));
  const auto whole = decode(bytes);
  if (!whole) return 0;
  FUZZ_CHECK(whole->length >= 1 && whole->length <= bytes.size());
  const auto alone = decode({bytes.data(), whole->length});
  FUZZ_CHECK(alone && alone->length == whole->length && alone->opcode == whole->opcode &&
             alone->displacement == whole->displacement && alone->immediate == whole->immediate);
  FUZZ_CHECK(!decode({bytes.data(), whole->length - std::size_t{1}}));
  Registers registers;
  for (auto& value : registers.general) value = 0x1122334455667788;
  if (whole->has_modrm && whole->mod() != 3) (void)effective_address(*whole, registers);
  return 0;
}
