#include "devices/e820.hpp"

#include <fmt/format.h>
#include <limits>

#include "base/bytes.hpp"
#include "base/error.hpp"

namespace sevisor::devices {

namespace {
void check(std::span<const E820Entry> entries) {
  constexpr const char* kTried = "build the memory map";
  for (const E820Entry& a : entries) {
    if (a.length > std::numeric_limits<std::uint64_t>::max() - a.base.value) {
      throw Error(ExitCode::kCrash, kTried, fmt::format("the range at {:#x} wraps", a.base.value));
    }
    for (const E820Entry& b : entries) {
      if (&a == &b || a.length == 0 || b.length == 0) continue;
      if (a.base < b.base + b.length && b.base < a.base + a.length) {
        throw Error(ExitCode::kCrash, kTried,
                    fmt::format("ranges at {:#x} and {:#x} overlap", a.base.value, b.base.value));
      }
    }
  }
}
}  // namespace

std::vector<std::byte> encode_e820(std::span<const E820Entry> entries) {
  check(entries);
  std::vector<std::byte> file;
  for (const E820Entry& entry : entries) {
    if (entry.length == 0) continue;
    std::byte bytes[kE820EntrySize];
    store(bytes, entry.base.value);
    store(bytes + 8, entry.length);
    store(bytes + 16, static_cast<std::uint32_t>(entry.type));
    file.insert(file.end(), std::begin(bytes), std::end(bytes));
  }
  return file;
}

}  // namespace sevisor::devices
