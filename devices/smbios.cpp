#include "devices/smbios.hpp"

#include <initializer_list>
#include <span>
#include <string_view>

#include "base/bytes.hpp"

namespace sevisor::devices {

namespace {
using Bytes = std::vector<std::byte>;

constexpr const char* kMaker = "sevisor";
constexpr const char* kFirmwareVersion = "1";
constexpr const char* kFirmwareDate = "01/01/2026";
constexpr const char* kProduct = "SEV-ES guest";

// DSP0134 section 5.2.2, table 2.
constexpr std::size_t kEntryBytes = 24;
constexpr std::string_view kEntryAnchor = "_SM3_";
constexpr std::size_t kEntryLength = 6;
constexpr std::size_t kEntryMajor = 7;
constexpr std::size_t kEntryMinor = 8;
constexpr std::size_t kEntryRevision = 10;
constexpr std::size_t kEntryMaxSize = 12;

template <class T>
void put(Bytes& to, std::size_t at, T value) {
  store(to.data() + at, value);
}

// A structure under construction: its formatted area, then its strings, which it refers to by number from 1.
class Structure {
 public:
  Structure(std::uint8_t type, std::uint16_t handle, std::size_t size) : formatted_(size) {
    put(formatted_, 0, type);
    put(formatted_, 1, static_cast<std::uint8_t>(size));
    put(formatted_, 2, handle);
  }
  template <class T>
  Structure& set(std::size_t at, T value) {
    put(formatted_, at, value);
    return *this;
  }
  Structure& text(std::size_t at, std::string_view value) {
    const auto bytes = std::as_bytes(std::span(value));
    strings_.insert(strings_.end(), bytes.begin(), bytes.end());
    strings_.push_back(std::byte{0});
    return set(at, ++count_);
  }
  void append_to(Bytes& tables) const {
    tables.insert(tables.end(), formatted_.begin(), formatted_.end());
    tables.insert(tables.end(), strings_.begin(), strings_.end());
    tables.resize(tables.size() + (strings_.empty() ? 2 : 1));  // an empty string ends them
  }

 private:
  Bytes formatted_;
  Bytes strings_;
  std::uint8_t count_ = 0;
};

constexpr std::uint8_t kUnknown = 2;  // in most enumerations of the specification
}  // namespace

SmbiosFiles build_smbios(std::uint64_t memory) {
  constexpr std::uint64_t kNoCharacteristics = 1 << 3;  // "BIOS characteristics are not supported"
  constexpr std::uint8_t kVirtualMachine = 1 << 4;      // extension byte 2

  SmbiosFiles files;
  // Section 7.1: BIOS information. The firmware's segment and ROM size (64 KiB) as they are.
  Structure(0, 0, 0x18)
      .text(0x04, kMaker)
      .text(0x05, kFirmwareVersion)
      .set(0x06, std::uint16_t{0xf000})
      .text(0x08, kFirmwareDate)
      .set(0x0a, kNoCharacteristics)
      .set(0x13, kVirtualMachine)
      .set(0x14, std::uint32_t{0xffffffff})  // no releases of firmware and of an embedded controller
      .append_to(files.tables);
  // Section 7.2: system information; no UUID.
  Structure(1, 0x100, 0x1b)
      .text(0x04, kMaker)
      .text(0x05, kProduct)
      .set(0x18, std::uint8_t{6})  // woken by the power switch
      .append_to(files.tables);
  // Section 7.4: chassis.
  Structure(3, 0x300, 0x16)
      .text(0x04, kMaker)
      .set(0x05, std::uint8_t{1})  // other
      .set(0x09, kUnknown)
      .set(0x0a, kUnknown)
      .set(0x0b, kUnknown)
      .set(0x0c, kUnknown)
      .append_to(files.tables);
  // Section 7.17: memory, in the extended field.
  Structure(16, 0x1000, 0x17)
      .set(0x04, std::uint8_t{1})  // location: other
      .set(0x05, std::uint8_t{3})  // system memory
      .set(0x06, std::uint8_t{3})  // no error correction
      .set(0x07, std::uint32_t{0x80000000})
      .set(0x0b, std::uint16_t{0xfffe})  // no error information
      .set(0x0f, memory)
      .append_to(files.tables);
  Structure(127, 0x7f00, 4).append_to(files.tables);

  files.entry.resize(kEntryBytes);
  for (std::size_t i = 0; i < kEntryAnchor.size(); ++i) put(files.entry, i, kEntryAnchor[i]);
  put(files.entry, kEntryLength, static_cast<std::uint8_t>(kEntryBytes));
  put(files.entry, kEntryMajor, std::uint8_t{3});
  put(files.entry, kEntryMinor, std::uint8_t{2});
  put(files.entry, kEntryRevision, std::uint8_t{1});
  put(files.entry, kEntryMaxSize, static_cast<std::uint32_t>(files.tables.size()));
  return files;
}

}  // namespace sevisor::devices
