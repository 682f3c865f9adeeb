// What the emulated host offers of each CPU model, held to the list in docs/emulated-host.md.
#include <algorithm>
#include <catch2/catch.hpp>
#include <fstream>
#include <set>
#include <string>

#include "emulator/cpu/state/features.hpp"
#include "emulator/kvm/cpuid_table.hpp"
#include "emulator/kvm/msr_store.hpp"
#include "vmm/machine/cpu_model.hpp"
#include "vmm/machine/cpuid_table.hpp"

using namespace sevisor;

namespace {

constexpr const char* kModels[] = {"EPYC",         "EPYC-v2",      "EPYC-v3",      "EPYC-v4",    "EPYC-Rome",
                                   "EPYC-Rome-v2", "EPYC-Rome-v3", "EPYC-Rome-v4", "EPYC-Milan", "EPYC-Milan-v2"};

// The names in the first column of the table under "CPU types".
std::set<std::string> documented() {
  std::ifstream file(SEVISOR_SOURCE_DIR "/docs/emulated-host.md");
  REQUIRE(file);
  std::set<std::string> names;
  bool there = false;
  for (std::string line; std::getline(file, line);) {
    if (line.starts_with("## ")) there = line == "## CPU types";
    if (!there || !line.starts_with("| `")) continue;
    const std::string cell = line.substr(0, line.find('|', 1));
    for (std::size_t from = cell.find('`'); from != std::string::npos;) {
      const std::size_t to = cell.find('`', from + 1);
      names.insert(cell.substr(from + 1, to - from - 1));
      from = cell.find('`', to + 1);
    }
  }
  return names;
}

// Bits of instructions that run on the host's own unit, and may be missing there.
std::set<std::string> depends_on_host() {
  return {"pni", "ssse3", "sse4.1", "sse4.2", "aes",  "pclmulqdq", "sha-ni",
          "avx", "avx2",  "fma",    "f16c",   "vaes", "vpclmulqdq"};
}

}  // namespace

TEST_CASE("what the emulated host lacks of QEMU's models is what docs/emulated-host.md lists") {
  const kvm::CpuidTable supported = emulator::supported_cpuid(51);
  const std::set<std::string> expected = documented();
  REQUIRE(expected.size() > 3);
  std::set<std::string> found;
  for (const char* name : kModels) {
    INFO(name);
    const vmm::CpuModel* model = vmm::find_cpu_model(name);
    REQUIRE(model != nullptr);
    for (const std::string& feature : vmm::feature_names(vmm::lacking_features(supported, *model))) {
      if (depends_on_host().contains(feature)) continue;
      INFO(feature);
      CHECK(expected.contains(feature));
      found.insert(feature);
    }
  }
  CHECK(found == expected);
}

TEST_CASE("the emulated host offers nothing that is in no model but the additions of every guest") {
  const kvm::CpuidTable supported = emulator::supported_cpuid(51);
  vmm::Features known = vmm::host_additions();
  for (const char* name : kModels) {
    const vmm::Features& features = vmm::find_cpu_model(name)->features;
    for (unsigned word = 0; word < vmm::kFeatureWords; ++word) known[word] |= features[word];
  }
  // A model with nothing in it lacks nothing; what is left of the host's table with it is what it adds.
  for (unsigned word = 0; word < vmm::kFeatureWords; ++word) {
    const vmm::FeatureRegister& at = vmm::feature_register(static_cast<vmm::FeatureWord>(word));
    const kvm_cpuid_entry2* entry = vmm::find_leaf(supported, at.leaf, at.subleaf);
    if (entry == nullptr) continue;
    const std::uint32_t registers[] = {entry->eax, entry->ebx, entry->ecx, entry->edx};
    INFO(std::hex << at.leaf << " register " << at.reg);
    CHECK((registers[at.reg] & ~known[word]) == 0);
  }
}

TEST_CASE("the default CPU type has the whole of its vector extensions where the host has them") {
  const kvm::CpuidTable supported = emulator::supported_cpuid(51);
  const auto lacking = vmm::feature_names(vmm::lacking_features(supported, *vmm::find_cpu_model("EPYC-v4")));
  CHECK((std::ranges::find(lacking, "avx2") == lacking.end()) == emulator::host_extensions().avx2);
  CHECK((std::ranges::find(lacking, "sha-ni") == lacking.end()) == emulator::host_extensions().sha);
}

TEST_CASE("machine-check registers as Linux probes them") {
  // __mcheck_cpu_cap_init(), __mcheck_cpu_init_generic(): the number of banks, MCG_CTL and each bank's control and
  // status. Which writes are taken: Linux arch/x86/kvm/x86.c set_msr_mce().
  emulator::MsrStore msrs;
  const auto cap = msrs.read(0x179, 0);
  REQUIRE(cap.has_value());
  const unsigned banks = *cap & 0xff;
  CHECK(banks == 10);
  CHECK((*cap & 0x100) != 0);  // MCG_CTL_P
  CHECK(msrs.write(0x17b, ~0ull));
  CHECK(msrs.write(0x17b, 0));
  CHECK_FALSE(msrs.write(0x17b, 1));
  for (unsigned bank = 0; bank < banks; ++bank) {
    CHECK(msrs.read(0x401 + 4 * bank, 0) == 0);
    CHECK(msrs.write(0x400 + 4 * bank, ~0ull));
    CHECK(msrs.read(0x400 + 4 * bank, 0) == ~0ull);
    CHECK_FALSE(msrs.write(0x400 + 4 * bank, 2));
    CHECK(msrs.write(0x401 + 4 * bank, 0));
    CHECK_FALSE(msrs.write(0x401 + 4 * bank, 1));
  }
  CHECK_FALSE(msrs.read(0x400 + 4 * banks, 0).has_value());
  CHECK(msrs.read(0xc0010140, 0) == 0);  // OSVW_ID_LENGTH
}
