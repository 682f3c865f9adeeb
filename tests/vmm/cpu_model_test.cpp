// Against QEMU 7.2.22 (Debian 12): the registers of each `-cpu NAME`, features from the QOM properties feature-words
// and filtered-features, caches as CPUID answers a guest with four cores. TCG always takes VME away and adds the bit of
// a hypervisor.
#include "vmm/machine/cpu_model.hpp"

#include <algorithm>
#include <catch2/catch.hpp>

#include "sev/cpu_type.hpp"
#include "vmm/machine/cpuid_table.hpp"

using namespace sevisor;
using namespace sevisor::vmm;

namespace {

constexpr std::uint32_t kVme = 1U << 1;
constexpr std::uint32_t kHypervisor = 1U << 31;

struct Known {
  const char* name;
  Features features;
};
// In the order of FeatureWord.
const Known kQemu[] = {
    {"EPYC-v1", {0xf6d8320b, 0x078bfbfd, 4, 0x209c01a9, 0, 0, 0x7, 0x004003f5, 0x2fd3fbfd, 0, 0x9, 0}},
    {"EPYC-v2", {0xf6d8320b, 0x078bfbfd, 4, 0x209c01a9, 0, 0, 0x7, 0x004003f5, 0x2fd3fbfd, 0x1000, 0x9, 0}},
    {"EPYC-v3", {0xf6d8320b, 0x078bfbfd, 4, 0x209c01a9, 0, 0, 0xf, 0x00c003f5, 0x2fd3fbfd, 0x1005, 0x9, 0}},
    {"EPYC-Rome-v1",
     {0xf6d8320b, 0x078bfbfd, 4, 0x219c01a9, 0x00400004, 0, 0xf, 0x00c003f5, 0x2fd3fbfd, 0x9205, 0x9, 0}},
    {"EPYC-Rome-v2",
     {0xf6d8320b, 0x078bfbfd, 4, 0x219c01a9, 0x00400004, 0, 0xf, 0x00c003f5, 0x2fd3fbfd, 0x0100d205, 0x9, 0}},
    {"EPYC-Milan-v1",
     {0xf6da320b, 0x078bfbfd, 4, 0x219c07a9, 0x0040000c, 0x10, 0xf, 0x00c003f5, 0x2fd3fbfd, 0x0100d205, 0x10000009, 0}},
};

// Leaves 0x80000005 and 0x80000006, 0x8000001D and its four sub-leaves: EAX, EBX, ECX, EDX.
struct KnownCaches {
  const char* name;
  std::uint32_t l1[4], l2[4], caches[4][4];
};
const KnownCaches kQemuCaches[] = {
    {"EPYC-v3",
     {0x01ff01ff, 0x01ff01ff, 0x20080140, 0x40040140},
     {0, 0x42004200, 0x02006140, 0x00408140},
     {{0x121, 0x01c0003f, 0x3f, 1},
      {0x122, 0x00c0003f, 0xff, 1},
      {0x43, 0x01c0003f, 0x3ff, 0},
      {0xc163, 0x03c0003f, 0x1fff, 6}}},
    {"EPYC-Rome-v2",
     {0x01ff01ff, 0x01ff01ff, 0x20080140, 0x20080140},
     {0, 0x42004200, 0x02006140, 0x00808140},
     {{0x121, 0x01c0003f, 0x3f, 1},
      {0x122, 0x01c0003f, 0x3f, 1},
      {0x43, 0x01c0003f, 0x3ff, 0},
      {0xc163, 0x03c0003f, 0x3fff, 6}}},
    {"EPYC-Milan",
     {0x01ff01ff, 0x01ff01ff, 0x20080140, 0x20080140},
     {0, 0x42004200, 0x02006140, 0x01008140},
     {{0x121, 0x01c0003f, 0x3f, 1},
      {0x122, 0x01c0003f, 0x3f, 1},
      {0x43, 0x01c0003f, 0x3ff, 0},
      {0xc163, 0x03c0003f, 0x7fff, 6}}},
};

kvm_cpuid_entry2 all_ones(std::uint32_t leaf, std::uint32_t subleaf) {
  kvm_cpuid_entry2 made{};
  made.function = leaf;
  made.index = subleaf;
  made.eax = made.ebx = made.ecx = made.edx = ~0U;
  return made;
}
// A host that has every feature there is.
kvm::CpuidTable full_host() {
  kvm::CpuidTable table;
  for (const std::uint32_t leaf :
       {0x1U, 0x6U, 0x7U, 0x80000001U, 0x80000005U, 0x80000006U, 0x80000008U, 0x8000000aU, 0x80000021U}) {
    table.push_back(all_ones(leaf, 0));
  }
  table.push_back(all_ones(0xd, 1));
  for (std::uint32_t index = 0; index < 4; ++index) table.push_back(all_ones(0x8000001d, index));
  return table;
}

std::uint32_t value_of(const kvm::CpuidTable& table, FeatureWord word) {
  const FeatureRegister& at = feature_register(word);
  const kvm_cpuid_entry2* entry = find_leaf(table, at.leaf, at.subleaf);
  REQUIRE(entry != nullptr);
  const std::uint32_t registers[] = {entry->eax, entry->ebx, entry->ecx, entry->edx};
  return registers[at.reg];
}

}  // namespace

TEST_CASE("a model has the feature bits that QEMU's has") {
  for (const Known& known : kQemu) {
    INFO(known.name);
    const CpuModel* model = find_cpu_model(known.name);
    REQUIRE(model != nullptr);
    Features expected = known.features;
    expected[k1Ecx] &= ~kHypervisor;
    expected[k1Edx] |= kVme;
    expected[k80000001Edx] |= kVme;
    for (unsigned word = 0; word < kFeatureWords; ++word) {
      INFO("word " << word);
      CHECK(model->features[word] == expected[word]);
    }
  }
  CHECK(find_cpu_model("EPYC")->features == find_cpu_model("EPYC-v1")->features);
  CHECK(find_cpu_model("EPYC-Genoa-v3") == nullptr);
  // QEMU 10.1's add what guests of guests need, and nothing else that a guest here can see.
  for (const auto& [before, name] : {std::pair("EPYC-v4", "EPYC-v5"), std::pair("EPYC-Rome-v4", "EPYC-Rome-v5"),
                                     std::pair("EPYC-Milan-v2", "EPYC-Milan-v3")}) {
    CAPTURE(name);
    Features expected = find_cpu_model(before)->features;
    CHECK(expected != find_cpu_model(name)->features);
    expected[k8000000aEdx] |= 0x00019472;
    CHECK(find_cpu_model(name)->features == expected);
  }
  CHECK(find_cpu_model("EPYC-Genoa") == nullptr);
}

TEST_CASE("each CPU type of the three generations has a model") {
  for (const sev::CpuType& type : sev::all_cpu_types()) {
    const bool modelled = type.family == 23 || (type.family == 25 && type.model == 1);
    INFO(type.name);
    CHECK((find_cpu_model(type.name) != nullptr) == modelled);
  }
}

TEST_CASE("on a host that has everything the guest sees the model, and the host's additions") {
  for (const Known& known : kQemu) {
    INFO(known.name);
    const CpuModel* model = find_cpu_model(known.name);
    const kvm::CpuidTable table = make_cpuid_table(full_host(), {0x00800f12, 1, 0, model, true});
    constexpr std::uint32_t kOsxsave = 1U << 27;
    CHECK(value_of(table, k1Ecx) == (model->features[k1Ecx] | host_additions()[k1Ecx] | kOsxsave));
    for (const FeatureWord word : {k1Edx, k6Eax, k7Ebx, k7Ecx, k7Edx, kXsave1Eax, k80000001Ecx, k80000001Edx,
                                   k80000008Ebx, k8000000aEdx, k80000021Eax}) {
      INFO("word " << static_cast<unsigned>(word));
      CHECK(value_of(table, word) == (model->features[word] | host_additions()[word]));
    }
    CHECK(feature_names(lacking_features(full_host(), *model)).empty());
  }
}

TEST_CASE("a model never gives what the host lacks, and says what that is") {
  kvm::CpuidTable host = full_host();
  for (kvm_cpuid_entry2& entry : host) {
    if (entry.function == 7) entry.ebx = 0;
    if (entry.function == 1) entry.ecx = 1;  // SSE3 alone: not even the additions
  }
  const CpuModel* model = find_cpu_model("EPYC-Rome");
  const kvm::CpuidTable table = make_cpuid_table(host, {0x00830f10, 1, 0, model});
  CHECK(value_of(table, k7Ebx) == 0);
  CHECK(value_of(table, k1Ecx) == (1 | 1U << 31));  // and that there is a hypervisor, always
  const std::vector<std::string> lacking = feature_names(lacking_features(host, *model));
  CHECK(std::ranges::find(lacking, "clwb") != lacking.end());
  CHECK(std::ranges::find(lacking, "erms") == lacking.end());  // Rome has none
  CHECK(std::ranges::find(lacking, "pni") == lacking.end());
}

TEST_CASE("a guest sees the caches that QEMU's model has") {
  for (const KnownCaches& known : kQemuCaches) {
    INFO(known.name);
    const kvm::CpuidTable table = make_cpuid_table(full_host(), {0x00800f12, 4, 0, find_cpu_model(known.name)});
    const auto check = [&](std::uint32_t leaf, std::uint32_t index, const std::uint32_t(&expected)[4]) {
      const kvm_cpuid_entry2* entry = find_leaf(table, leaf, index);
      REQUIRE(entry != nullptr);
      INFO(std::hex << leaf << " " << index);
      CHECK(entry->eax == expected[0]);
      CHECK(entry->ebx == expected[1]);
      CHECK(entry->ecx == expected[2]);
      CHECK(entry->edx == expected[3]);
    };
    check(0x80000005, 0, known.l1);
    check(0x80000006, 0, known.l2);
    for (std::uint32_t index = 0; index < 4; ++index) check(0x8000001d, index, known.caches[index]);
  }
}
