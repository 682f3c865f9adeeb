// A bzImage that both readers accept, for a fuzzer to spoil: from nothing it would hardly find the magic numbers.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "base/bytes.hpp"
#include "input.hpp"

namespace sevisor::fuzz {

inline constexpr std::size_t kSmallKernelSetup = 1024;  // two sectors
inline constexpr std::size_t kSmallKernelRest = 256;

// Setup header fields: Linux Documentation/arch/x86/boot.rst.
inline std::vector<std::byte> small_kernel() {
  std::vector<std::byte> image(kSmallKernelSetup + kSmallKernelRest);
  std::byte* at = image.data();
  store<std::uint8_t>(at + 0x1f1, 1);            // setup_sects
  store<std::uint32_t>(at + 0x1f4, 16);          // syssize, units of 16 bytes
  store<std::uint16_t>(at + 0x1fe, 0xaa55);      // boot_flag
  store<std::uint16_t>(at + 0x200, 0x6aeb);      // jump: the header ends at 0x26c
  store<std::uint32_t>(at + 0x202, 0x53726448);  // "HdrS"
  store<std::uint16_t>(at + 0x206, 0x020f);      // version
  store<std::uint8_t>(at + 0x211, 1);            // loadflags: LOADED_HIGH
  store<std::uint32_t>(at + 0x22c, 0x7fffffff);  // initrd_addr_max
  store<std::uint32_t>(at + 0x230, 0x200000);    // kernel_alignment
  store<std::uint8_t>(at + 0x234, 1);            // relocatable_kernel
  store<std::uint8_t>(at + 0x235, 21);           // min_alignment
  store<std::uint16_t>(at + 0x236, 0x7f);        // xloadflags
  store<std::uint32_t>(at + 0x238, 2047);        // cmdline_size
  store<std::uint64_t>(at + 0x258, 0x1000000);   // pref_address
  store<std::uint32_t>(at + 0x260, 0x3378000);   // init_size
  return image;
}

// Overwrites parts of the header as the input says, then cuts or lengthens the image.
inline void spoil(std::vector<std::byte>& image, Input& input) {
  const unsigned edits = input.take<std::uint8_t>() % 8;
  for (unsigned i = 0; i < edits; ++i) {
    const std::size_t at = 0x1f1 + input.take<std::uint8_t>() % 0x9f;  // the setup header and its end
    std::ranges::copy(input.bytes(1 + input.take<std::uint8_t>() % 8), image.begin() + static_cast<std::ptrdiff_t>(at));
  }
  const auto size = input.take<std::uint16_t>();
  if (size != 0) image.resize(size % 8192);
}

}  // namespace sevisor::fuzz
