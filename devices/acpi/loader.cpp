#include "devices/acpi/loader.hpp"

#include <algorithm>
#include <fmt/format.h>
#include <span>

#include "base/bytes.hpp"
#include "base/error.hpp"

namespace sevisor::devices::acpi {

namespace {
// Offsets in a command, after its number.
constexpr std::size_t kFile = 4;
constexpr std::size_t kAllocateAlignment = 60;
constexpr std::size_t kAllocateZone = 64;
constexpr std::size_t kPointerSource = 60;
constexpr std::size_t kPointerOffset = 116;
constexpr std::size_t kPointerSize = 120;
constexpr std::size_t kChecksumOffset = 60;
constexpr std::size_t kChecksumStart = 64;
constexpr std::size_t kChecksumLength = 68;

void put_name(std::byte* to, std::string_view name) {
  if (name.size() >= kLoaderFileNameSize) {
    throw Error(ExitCode::kCrash, "write the table-loader script", fmt::format("the name '{}' is too long", name));
  }
  std::ranges::copy(std::as_bytes(std::span(name)), to);
}
}  // namespace

std::byte* LoaderScript::append(LoaderCommand command) {
  bytes_.resize(bytes_.size() + kLoaderCommandSize);
  std::byte* entry = bytes_.data() + bytes_.size() - kLoaderCommandSize;
  store(entry, static_cast<std::uint32_t>(command));
  return entry;
}

void LoaderScript::allocate(std::string_view file, std::uint32_t alignment, LoaderZone zone) {
  std::byte* entry = append(LoaderCommand::kAllocate);
  put_name(entry + kFile, file);
  store(entry + kAllocateAlignment, alignment);
  store(entry + kAllocateZone, static_cast<std::uint8_t>(zone));
}

void LoaderScript::add_pointer(std::string_view file, std::string_view pointed_to, std::uint32_t offset,
                               std::uint8_t size) {
  std::byte* entry = append(LoaderCommand::kAddPointer);
  put_name(entry + kFile, file);
  put_name(entry + kPointerSource, pointed_to);
  store(entry + kPointerOffset, offset);
  store(entry + kPointerSize, size);
}

void LoaderScript::add_checksum(std::string_view file, std::uint32_t offset, std::uint32_t start,
                                std::uint32_t length) {
  std::byte* entry = append(LoaderCommand::kAddChecksum);
  put_name(entry + kFile, file);
  store(entry + kChecksumOffset, offset);
  store(entry + kChecksumStart, start);
  store(entry + kChecksumLength, length);
}

}  // namespace sevisor::devices::acpi
