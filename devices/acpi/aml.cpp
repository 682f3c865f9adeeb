#include "devices/acpi/aml.hpp"

#include <algorithm>
#include <fmt/format.h>

#include "base/error.hpp"

namespace sevisor::devices::acpi {

namespace {
// ACPI 6.4, table 20-1.
constexpr std::uint8_t kZeroOp = 0x00;
constexpr std::uint8_t kOneOp = 0x01;
constexpr std::uint8_t kNameOp = 0x08;
constexpr std::uint8_t kBytePrefix = 0x0a;
constexpr std::uint8_t kWordPrefix = 0x0b;
constexpr std::uint8_t kDWordPrefix = 0x0c;
constexpr std::uint8_t kStringPrefix = 0x0d;
constexpr std::uint8_t kQWordPrefix = 0x0e;
constexpr std::uint8_t kScopeOp = 0x10;
constexpr std::uint8_t kBufferOp = 0x11;
constexpr std::uint8_t kPackageOp = 0x12;
constexpr std::uint8_t kExtOpPrefix = 0x5b;
constexpr std::uint8_t kDeviceOp = 0x82;

// Small resource descriptors: type and length (ACPI 6.4, 6.4.2).
constexpr std::uint8_t kIrqDescriptor = 0x22;
constexpr std::uint8_t kIoDescriptor = 0x47;
constexpr std::uint8_t kEndTag = 0x79;
constexpr std::uint8_t kDecode16 = 0x01;

constexpr std::size_t kSegmentSize = 4;
constexpr std::size_t kEisaIdSize = 7;

void add(Aml& to, std::uint64_t value, unsigned size) {
  for (unsigned i = 0; i < size; ++i) to.push_back(static_cast<std::byte>(value >> (8 * i)));
}

void add(Aml& to, const Aml& more) { to.insert(to.end(), more.begin(), more.end()); }

Aml joined(std::initializer_list<Aml> parts) {
  Aml all;
  for (const Aml& part : parts) add(all, part);
  return all;
}

// Opcode, package length, content.
Aml package_object(std::initializer_list<std::uint8_t> opcode, const Aml& content) {
  Aml object;
  for (const std::uint8_t byte : opcode) add(object, byte, 1);
  add(object, aml_package_length(content.size()));
  add(object, content);
  return object;
}

Error wrong(std::string_view what, std::string_view text) {
  return {ExitCode::kCrash, "encode the DSDT", fmt::format("'{}' is no {}", text, what)};
}

unsigned hex_digit(char digit, std::string_view id) {
  if (digit >= '0' && digit <= '9') return static_cast<unsigned>(digit - '0');
  if (digit >= 'A' && digit <= 'F') return static_cast<unsigned>(digit - 'A') + 10;
  throw wrong("EISA ID", id);
}
}  // namespace

Aml aml_package_length(std::size_t content) {
  // One byte holds up to 63; otherwise the first byte gives 4 bits and, in bits 7:6, how many bytes follow.
  constexpr std::size_t kOneByteMax = 0x3f;
  constexpr unsigned kFirstBits = 4;
  Aml field;
  if (content + 1 <= kOneByteMax) {
    add(field, content + 1, 1);
    return field;
  }
  for (unsigned more = 1; more <= 3; ++more) {
    const std::size_t length = content + 1 + more;
    if (length >> (kFirstBits + 8 * more) != 0) continue;
    add(field, (more << 6U) | (length & 0xf), 1);
    add(field, length >> kFirstBits, more);
    return field;
  }
  throw Error(ExitCode::kCrash, "encode the DSDT", fmt::format("a package of {} bytes is too long", content));
}

Aml aml_name_string(std::string_view name) {
  const std::string_view whole = name;
  Aml bytes;
  if (name.starts_with('\\')) {
    add(bytes, '\\', 1);
    name.remove_prefix(1);
  }
  const auto is_name_char = [](char c) { return (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_'; };
  if (name.empty() || name.size() > kSegmentSize || !std::ranges::all_of(name, is_name_char) ||
      (name[0] >= '0' && name[0] <= '9')) {
    throw wrong("name segment", whole);
  }
  for (std::size_t i = 0; i < kSegmentSize; ++i)
    add(bytes, static_cast<std::uint8_t>(i < name.size() ? name[i] : '_'), 1);
  return bytes;
}

Aml aml_integer(std::uint64_t value) {
  Aml bytes;
  if (value == 0) {
    add(bytes, kZeroOp, 1);
  } else if (value == 1) {
    add(bytes, kOneOp, 1);
  } else if (value <= 0xff) {
    add(bytes, kBytePrefix, 1);
    add(bytes, value, 1);
  } else if (value <= 0xffff) {
    add(bytes, kWordPrefix, 1);
    add(bytes, value, 2);
  } else if (value <= 0xffffffff) {
    add(bytes, kDWordPrefix, 1);
    add(bytes, value, 4);
  } else {
    add(bytes, kQWordPrefix, 1);
    add(bytes, value, 8);
  }
  return bytes;
}

Aml aml_buffer(const Aml& bytes) { return package_object({kBufferOp}, joined({aml_integer(bytes.size()), bytes})); }

Aml aml_package(std::initializer_list<Aml> elements) {
  if (elements.size() > 0xff) throw Error(ExitCode::kCrash, "encode the DSDT", "a package has more than 255 elements");
  Aml content;
  add(content, elements.size(), 1);
  add(content, joined(elements));
  return package_object({kPackageOp}, content);
}

Aml aml_string(std::string_view text) {
  Aml object;
  add(object, kStringPrefix, 1);
  for (const char c : text) add(object, static_cast<std::uint8_t>(c), 1);
  add(object, 0, 1);
  return object;
}

Aml aml_name(std::string_view name, const Aml& value) {
  Aml object;
  add(object, kNameOp, 1);
  add(object, aml_name_string(name));
  add(object, value);
  return object;
}

Aml aml_scope(std::string_view name, std::initializer_list<Aml> terms) {
  return package_object({kScopeOp}, joined({aml_name_string(name), joined(terms)}));
}

Aml aml_device(std::string_view name, std::initializer_list<Aml> terms) {
  return package_object({kExtOpPrefix, kDeviceOp}, joined({aml_name_string(name), joined(terms)}));
}

Aml aml_eisa_id(std::string_view id) {
  if (id.size() != kEisaIdSize) throw wrong("EISA ID", id);
  std::uint32_t value = 0;
  for (const char c : id.substr(0, 3)) {
    if (c < 'A' || c > 'Z') throw wrong("EISA ID", id);
    value = (value << 5U) | static_cast<std::uint32_t>(c - 'A' + 1);
  }
  for (const char c : id.substr(3)) value = (value << 4U) | hex_digit(c, id);
  // The value is big-endian inside the little-endian integer.
  return aml_integer(__builtin_bswap32(value));
}

Aml aml_io_ports(std::uint16_t base, std::uint8_t count) {
  Aml bytes;
  add(bytes, kIoDescriptor, 1);
  add(bytes, kDecode16, 1);
  add(bytes, base, 2);  // lowest and highest base
  add(bytes, base, 2);
  add(bytes, 1, 1);  // alignment
  add(bytes, count, 1);
  return bytes;
}

Aml aml_irq(unsigned irq) {
  if (irq > 15) throw Error(ExitCode::kCrash, "encode the DSDT", fmt::format("IRQ {} is no ISA interrupt", irq));
  Aml bytes;
  add(bytes, kIrqDescriptor, 1);
  add(bytes, std::uint64_t{1} << irq, 2);
  return bytes;
}

Aml aml_resources(std::initializer_list<Aml> descriptors) {
  Aml bytes = joined(descriptors);
  add(bytes, kEndTag, 1);
  add(bytes, 0, 1);  // a checksum of 0 is taken as right
  return aml_buffer(bytes);
}

}  // namespace sevisor::devices::acpi
