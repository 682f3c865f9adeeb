#include "sev/cpu_type.hpp"

#include <algorithm>
#include <fmt/format.h>
#include <iterator>

#include "base/error.hpp"

namespace sevisor::sev {

namespace {

// Family, model and stepping of QEMU's CPU models (target/i386/cpu.c); all versions of a model share them.
constexpr CpuType kCpuTypes[] = {
    {"EPYC", 23, 1, 2},          {"EPYC-v1", 23, 1, 2},       {"EPYC-v2", 23, 1, 2},       {"EPYC-v3", 23, 1, 2},
    {"EPYC-v4", 23, 1, 2},       {"EPYC-IBPB", 23, 1, 2},     {"EPYC-Rome", 23, 49, 0},    {"EPYC-Rome-v1", 23, 49, 0},
    {"EPYC-Rome-v2", 23, 49, 0}, {"EPYC-Rome-v3", 23, 49, 0}, {"EPYC-Rome-v4", 23, 49, 0}, {"EPYC-Milan", 25, 1, 1},
    {"EPYC-Milan-v1", 25, 1, 1}, {"EPYC-Milan-v2", 25, 1, 1}, {"EPYC-Genoa", 25, 17, 0},   {"EPYC-Genoa-v1", 25, 17, 0},
    {"EPYC-Turin", 26, 0, 0},
};

}  // namespace

const CpuType& find_cpu_type(std::string_view name) {
  const auto* found = std::find_if(std::begin(kCpuTypes), std::end(kCpuTypes),
                                   [name](const CpuType& type) { return type.name == name; });
  if (found == std::end(kCpuTypes)) {
    throw Error(ExitCode::kBadUsage, fmt::format("use the CPU type '{}'", name), "no such type",
                fmt::format("Give one of these with --cpu-type: {}.", cpu_type_names()));
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
