#include "tests/cpu_diff/processor.hpp"

#include <cstring>
#include <fmt/format.h>

namespace sevisor::cpu_diff {

namespace {

constexpr unsigned kExtendedFamily = 0xf;  // base family that says: add the extended one

unsigned base_family(std::uint32_t signature) { return signature >> 8 & 0xf; }

Processor read_host() {
  Processor p;
  const auto read = [&p](unsigned leaf, unsigned subleaf) {
    std::array<unsigned, 4> r{};
    if (__get_cpuid_count(leaf, subleaf, &r[kEax], &r[kEbx], &r[kEcx], &r[kEdx]) == 0) return;
    p.cpuid[{leaf, subleaf}] = {r[kEax], r[kEbx], r[kEcx], r[kEdx]};
  };
  for (const unsigned leaf : {0U, 1U, 7U, 0x80000001U, 0x80000021U}) read(leaf, 0);
  constexpr unsigned kStructured = 7;
  if (p.cpuid[{kStructured, 0}][kEax] >= 1) read(kStructured, 1);
  const auto& first = p.cpuid[{0, 0}];
  p.name.resize(12);
  std::memcpy(p.name.data(), &first[kEbx], 4);
  std::memcpy(p.name.data() + 4, &first[kEdx], 4);
  std::memcpy(p.name.data() + 8, &first[kEcx], 4);
  const std::uint32_t signature = p.cpuid[{1, 0}][kEax];
  p.family = family_of(signature);
  p.model = model_of(signature);
  return p;
}

}  // namespace

Vendor vendor_of(std::string_view name) {
  if (name == "AuthenticAMD") return Vendor::kAmd;
  return name == "GenuineIntel" ? Vendor::kIntel : Vendor::kOther;
}

unsigned family_of(std::uint32_t signature) {
  const unsigned base = base_family(signature);
  return base == kExtendedFamily ? base + (signature >> 20 & 0xff) : base;
}

unsigned model_of(std::uint32_t signature) {
  constexpr unsigned kIntelWithExtendedModel = 6;
  const unsigned base = base_family(signature);
  const unsigned model = signature >> 4 & 0xf;
  const bool extended = base == kExtendedFamily || base == kIntelWithExtendedModel;
  return extended ? (signature >> 16 & 0xf) << 4 | model : model;
}

bool Processor::has(const CpuidBit& bit) const {
  const auto leaf = cpuid.find({bit.leaf, bit.subleaf});
  return leaf != cpuid.end() && (leaf->second[bit.which] >> bit.bit & 1) != 0;
}

void Processor::set(const CpuidBit& bit) { cpuid[{bit.leaf, bit.subleaf}][bit.which] |= std::uint32_t{1} << bit.bit; }

bool is_zen4_or_later(const Processor& p) {
  // Which models of family 19h are Zen 4: their PPRs, and bsp_init_amd() of Linux.
  constexpr unsigned kZen3And4 = 0x19;
  if (p.vendor() != Vendor::kAmd || p.family < kZen3And4) return false;
  if (p.family > kZen3And4) return true;
  return (p.model >= 0x10 && p.model <= 0x1f) || (p.model >= 0x60 && p.model <= 0xaf);
}

const Processor& host_processor() {
  static const Processor host = read_host();
  return host;
}

std::string describe_processor(const Processor& p) {
  return fmt::format("{} family {} model {}", p.name, p.family, p.model);
}

}  // namespace sevisor::cpu_diff
