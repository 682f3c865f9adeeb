#include "firmware/acpi_loader.hpp"

#include "base/bytes.hpp"

namespace sevisor::firmware {

namespace {
enum Command : std::uint32_t { kPadding = 0, kAllocate = 1, kAddPointer = 2, kAddChecksum = 3, kWritePointer = 4 };
enum Zone : std::uint8_t { kZoneHigh = 1, kZoneFSeg = 2 };

// Offsets into a script entry, after the command.
constexpr std::size_t kFile = 4;
constexpr std::size_t kAllocateAlign = kFile + kLoaderNameBytes;
constexpr std::size_t kAllocateZone = kAllocateAlign + 4;
constexpr std::size_t kPointerSource = kFile + kLoaderNameBytes;
constexpr std::size_t kPointerOffset = kPointerSource + kLoaderNameBytes;
constexpr std::size_t kPointerSize = kPointerOffset + 4;
constexpr std::size_t kChecksumOffset = kFile + kLoaderNameBytes;
constexpr std::size_t kChecksumStart = kChecksumOffset + 4;
constexpr std::size_t kChecksumLength = kChecksumStart + 4;

constexpr std::uint32_t kMaxAlignment = 1 << 20;

// Empty when the name has no terminating zero.
std::string_view name_at(std::span<const std::byte> entry, std::size_t offset) noexcept {
  const auto* text = reinterpret_cast<const char*>(entry.data() + offset);
  for (std::size_t i = 0; i < kLoaderNameBytes; ++i) {
    if (text[i] == 0) return {text, i};
  }
  return {};
}
}  // namespace

AcpiBlob* AcpiLoader::find(std::string_view name) noexcept {
  for (std::size_t i = 0; i < count_; ++i) {
    if (name == std::string_view(blobs_[i].name.data())) return &blobs_[i];
  }
  return nullptr;
}

Failure AcpiLoader::run(std::span<const std::byte> script, AcpiFiles& files) {
  if (script.size() % kLoaderEntryBytes != 0) return Failure::kAcpiTables;
  for (std::size_t at = 0; at < script.size(); at += kLoaderEntryBytes) {
    const auto entry = script.subspan(at, kLoaderEntryBytes);
    Failure failure = Failure::kNone;
    switch (load<std::uint32_t>(entry.data())) {
      case kAllocate:
        failure = allocate(entry, files);
        break;
      case kAddPointer:
        failure = add_pointer(entry);
        break;
      case kAddChecksum:
        failure = add_checksum(entry);
        break;
      case kPadding:
        break;  // QEMU fills the script up to a page
      // It tells the VMM where a table went (VM generation ID); nothing in the tables depends on it.
      case kWritePointer:
        break;
      default:
        failure = Failure::kAcpiTables;
    }
    if (failure != Failure::kNone) return failure;
  }
  return Failure::kNone;
}

Failure AcpiLoader::allocate(std::span<const std::byte> entry, AcpiFiles& files) {
  const std::string_view name = name_at(entry, kFile);
  const auto alignment = load<std::uint32_t>(entry.data() + kAllocateAlign);
  const auto zone = load<std::uint8_t>(entry.data() + kAllocateZone);
  const bool power_of_two = alignment != 0 && (alignment & (alignment - 1)) == 0;
  if (name.empty() || find(name) != nullptr || count_ == kMaxBlobs) return Failure::kAcpiTables;
  if (!power_of_two || alignment > kMaxAlignment || (zone != kZoneHigh && zone != kZoneFSeg)) {
    return Failure::kAcpiTables;
  }
  AcpiBlob& blob = blobs_[count_];
  const Failure failure = files.place(name, alignment, zone == kZoneFSeg, blob);
  if (failure != Failure::kNone) return failure;
  blob.name = {};
  name.copy(blob.name.data(), name.size());
  ++count_;
  return Failure::kNone;
}

Failure AcpiLoader::add_pointer(std::span<const std::byte> entry) noexcept {
  const AcpiBlob* to = find(name_at(entry, kFile));
  const AcpiBlob* target = find(name_at(entry, kPointerSource));
  const auto offset = load<std::uint32_t>(entry.data() + kPointerOffset);
  const auto size = load<std::uint8_t>(entry.data() + kPointerSize);
  if (to == nullptr || target == nullptr) return Failure::kAcpiTables;
  if (size != 1 && size != 2 && size != 4 && size != 8) return Failure::kAcpiTables;
  if (offset > to->bytes.size() || size > to->bytes.size() - offset) return Failure::kAcpiTables;
  std::byte* field = to->bytes.data() + offset;
  std::uint64_t value = 0;
  __builtin_memcpy(&value, field, size);
  if (value >= target->bytes.size()) return Failure::kAcpiTables;
  value += target->address;
  if (size < 8 && value >> (8 * size) != 0) return Failure::kAcpiTables;
  __builtin_memcpy(field, &value, size);
  return Failure::kNone;
}

Failure AcpiLoader::add_checksum(std::span<const std::byte> entry) noexcept {
  AcpiBlob* blob = find(name_at(entry, kFile));
  const auto offset = load<std::uint32_t>(entry.data() + kChecksumOffset);
  const auto start = load<std::uint32_t>(entry.data() + kChecksumStart);
  const auto length = load<std::uint32_t>(entry.data() + kChecksumLength);
  if (blob == nullptr || offset >= blob->bytes.size()) return Failure::kAcpiTables;
  if (start > blob->bytes.size() || length > blob->bytes.size() - start) return Failure::kAcpiTables;
  std::uint8_t sum = 0;
  for (const std::byte byte : blob->bytes.subspan(start, length)) {
    sum = static_cast<std::uint8_t>(sum + static_cast<std::uint8_t>(byte));
  }
  std::byte& checksum = blob->bytes[offset];
  checksum = static_cast<std::byte>(static_cast<std::uint8_t>(checksum) - sum);
  return Failure::kNone;
}

std::uint64_t AcpiLoader::rsdp() const noexcept {
  for (std::size_t i = 0; i < count_; ++i) {
    if (std::string_view(blobs_[i].name.data()) == "etc/acpi/rsdp") return blobs_[i].address;
  }
  return 0;
}

}  // namespace sevisor::firmware
