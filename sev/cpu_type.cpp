#include "sev/cpu_type.hpp"

#include <algorithm>
#include <cctype>
#include <fmt/format.h>
#include <iterator>

#include "base/error.hpp"

namespace sevisor::sev {

namespace {

// Family, model and stepping of QEMU's CPU models (target/i386/cpu.c), up to QEMU 11; all versions of a model share
// them.
constexpr CpuType kCpuTypes[] = {
    {"EPYC", 23, 1, 2},           {"EPYC-v1", 23, 1, 2},        {"EPYC-v2", 23, 1, 2},
    {"EPYC-v3", 23, 1, 2},        {"EPYC-v4", 23, 1, 2},        {"EPYC-v5", 23, 1, 2},
    {"EPYC-IBPB", 23, 1, 2},      {"EPYC-Rome", 23, 49, 0},     {"EPYC-Rome-v1", 23, 49, 0},
    {"EPYC-Rome-v2", 23, 49, 0},  {"EPYC-Rome-v3", 23, 49, 0},  {"EPYC-Rome-v4", 23, 49, 0},
    {"EPYC-Rome-v5", 23, 49, 0},  {"EPYC-Milan", 25, 1, 1},     {"EPYC-Milan-v1", 25, 1, 1},
    {"EPYC-Milan-v2", 25, 1, 1},  {"EPYC-Milan-v3", 25, 1, 1},  {"EPYC-Milan-v4", 25, 1, 1},
    {"EPYC-Genoa", 25, 17, 0},    {"EPYC-Genoa-v1", 25, 17, 0}, {"EPYC-Genoa-v2", 25, 17, 0},
    {"EPYC-Genoa-v3", 25, 17, 0}, {"EPYC-Turin", 26, 0, 0},     {"EPYC-Turin-v1", 26, 0, 0},
    {"EPYC-Turin-v2", 26, 0, 0},
};

bool equal_but_for_case(std::string_view a, std::string_view b) {
  return std::ranges::equal(a, b, [](unsigned char x, unsigned char y) { return std::tolower(x) == std::tolower(y); });
}

}  // namespace

const CpuType& find_cpu_type(std::string_view name) {
  const auto* found = std::find_if(std::begin(kCpuTypes), std::end(kCpuTypes),
                                   [name](const CpuType& type) { return type.name == name; });
  if (found == std::end(kCpuTypes)) {
    const auto* meant = std::find_if(std::begin(kCpuTypes), std::end(kCpuTypes),
                                     [name](const CpuType& type) { return equal_but_for_case(type.name, name); });
    throw Error(ExitCode::kBadUsage, fmt::format("use the CPU type '{}'", name), "no such type",
                meant != std::end(kCpuTypes) ? fmt::format("Write it as {}.", meant->name)
                                             : fmt::format("There are: {}.", cpu_type_names()));
  }
  return *found;
}

std::span<const CpuType> all_cpu_types() noexcept { return kCpuTypes; }

std::string cpu_type_names() {
  std::string names;
  for (const CpuType& type : kCpuTypes) {
    if (!names.empty()) names += ", ";
    names += type.name;
  }
  return names;
}

}  // namespace sevisor::sev
