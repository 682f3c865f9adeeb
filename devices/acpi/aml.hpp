// Encodes the few AML objects that the DSDT needs (ACPI 6.4, chapter 20). Each function gives the object's bytes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <string_view>
#include <vector>

namespace sevisor::devices::acpi {

using Aml = std::vector<std::byte>;

// `name`: one segment of at most four characters (A-Z, 0-9, _), padded with '_', with '\' before it for the root.
// Throws Error (kCrash) for any other.
[[nodiscard]] Aml aml_name_string(std::string_view name);
[[nodiscard]] Aml aml_integer(std::uint64_t value);
[[nodiscard]] Aml aml_string(std::string_view text);  // ASCII without NUL
[[nodiscard]] Aml aml_buffer(const Aml& bytes);
[[nodiscard]] Aml aml_package(std::initializer_list<Aml> elements);  // at most 255
[[nodiscard]] Aml aml_name(std::string_view name, const Aml& value);
[[nodiscard]] Aml aml_scope(std::string_view name, std::initializer_list<Aml> terms);
[[nodiscard]] Aml aml_device(std::string_view name, std::initializer_list<Aml> terms);

// "PNP0501" as the compressed 32-bit integer of EISAID(). Throws Error (kCrash) for anything but three capitals and
// four hexadecimal digits.
[[nodiscard]] Aml aml_eisa_id(std::string_view id);

// Resource descriptors (ACPI 6.4, 6.4.2), to be put into aml_resources(), which adds the end tag.
[[nodiscard]] Aml aml_io_ports(std::uint16_t base, std::uint8_t count);
[[nodiscard]] Aml aml_irq(unsigned irq);  // 0 to 15: edge-triggered, active high, not shared
[[nodiscard]] Aml aml_resources(std::initializer_list<Aml> descriptors);

// The length field that begins a package, counting itself, for `content` bytes. Throws Error (kCrash) from 256 MiB on.
[[nodiscard]] Aml aml_package_length(std::size_t content);

}  // namespace sevisor::devices::acpi
