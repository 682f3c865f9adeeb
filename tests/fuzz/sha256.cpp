// The firmware's two ways to compute SHA-256 agree, however a message is cut.
#include "firmware/sha256.hpp"

#include <cpuid.h>
#include <vector>

#include "check.hpp"
#include "firmware/sha256_ni.hpp"
#include "input.hpp"

using namespace sevisor;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  unsigned a = 0, b = 0, c = 0, d = 0;
  const bool both = __get_cpuid_count(7, 0, &a, &b, &c, &d) != 0 && (b & 1U << 29) != 0;
  fuzz::Input input(data, size);
  firmware::Sha256 plain, by_instructions(both ? firmware::sha256_blocks_ni : firmware::sha256_blocks);
  std::vector<std::byte> whole;
  for (int piece = 0; piece < 16; ++piece) {
    const auto bytes = input.bytes(input.take<std::uint16_t>() % 300);
    plain.update(bytes);
    whole.insert(whole.end(), bytes.begin(), bytes.end());
  }
  by_instructions.update(whole);
  FUZZ_CHECK(plain.finish() == by_instructions.finish());
  return 0;
}
