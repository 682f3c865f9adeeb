#include "vmm/machine/cpuid_table.hpp"

#include <catch2/catch.hpp>

using namespace sevisor;
using namespace sevisor::vmm;

namespace {

kvm_cpuid_entry2 entry(std::uint32_t leaf, std::uint32_t subleaf, std::uint32_t eax, std::uint32_t ebx,
                       std::uint32_t ecx, std::uint32_t edx) {
  kvm_cpuid_entry2 made{};
  made.function = leaf;
  made.index = subleaf;
  made.eax = eax;
  made.ebx = ebx;
  made.ecx = ecx;
  made.edx = edx;
  return made;
}

kvm::CpuidTable host_table() {
  return {
      entry(0, 0, 0xd, 1, 2, 3),
      entry(1, 0, 0x00a00f11, 0x12340800, 0x80000000, 0),
      entry(0xb, 0, 1, 2, 0x100, 7),
      entry(0x80000001, 0, 0x00a00f11, 0, 0, 0),
      entry(0x80000008, 0, 0x3030, 0, 0x703f, 0),
      entry(0x8000001d, 0, 0x00004121, 0, 0, 0),
      entry(0x8000001d, 3, 0x0001c163, 0, 0, 0),
      entry(0x8000001e, 0, 9, 0x109, 0x103, 0),
      entry(0x8000001f, 0, 0xa, 51, 0, 0),
  };
}

}  // namespace

TEST_CASE("the CPU type's signature and the APIC id are filled in") {
  const kvm::CpuidTable table = make_cpuid_table(host_table(), {0x00800f12, 4, 3});
  CHECK(find_leaf(table, 1)->eax == 0x00800f12);
  CHECK(find_leaf(table, 0x80000001)->eax == 0x00800f12);
  CHECK(find_leaf(table, 1)->ebx == 0x03040800);
  CHECK((find_leaf(table, 1)->edx >> 28 & 1) == 1);
  CHECK(find_leaf(table, 0x80000008)->ecx == 0x2003);
  CHECK(find_leaf(table, 0x80000008)->eax == 0x3030);
  CHECK(find_leaf(table, 0x8000001e)->eax == 3);
  CHECK(find_leaf(table, 0x8000001e)->ebx == 3);
  CHECK(find_leaf(table, 0x8000001f)->ebx == 51);  // the C-bit stays the host's
}

TEST_CASE("topology: four cores in one socket, the last level of cache shared by all") {
  const kvm::CpuidTable table = make_cpuid_table(host_table(), {0x00800f12, 4, 3});
  CHECK(find_leaf(table, 0xb, 0)->ebx == 1);
  CHECK(find_leaf(table, 0xb, 0)->edx == 3);
  CHECK(find_leaf(table, 0xb, 1)->eax == 2);
  CHECK(find_leaf(table, 0xb, 1)->ebx == 4);
  CHECK(find_leaf(table, 0xb, 1)->ecx == 0x201);
  CHECK(find_leaf(table, 0xb, 2)->ebx == 0);
  CHECK(find_leaf(table, 0xb, 2)->ecx == 2);
  CHECK((find_leaf(table, 0x8000001d, 0)->eax >> 14 & 0xfff) == 0);
  CHECK((find_leaf(table, 0x8000001d, 3)->eax >> 14 & 0xfff) == 3);
  std::size_t levels = 0;
  for (const kvm_cpuid_entry2& e : table) levels += e.function == 0xb ? 1 : 0;
  CHECK(levels == 3);
}

TEST_CASE("one vCPU has no hyper-threading bit and needs no APIC id bits") {
  const kvm::CpuidTable table = make_cpuid_table(host_table(), {0x00800f12, 1, 0});
  CHECK((find_leaf(table, 1)->edx >> 28 & 1) == 0);
  CHECK(find_leaf(table, 1)->ebx == 0x00010800);
  CHECK(find_leaf(table, 0x80000008)->ecx == 0);
  CHECK(find_leaf(table, 0xb, 1)->eax == 0);
}

TEST_CASE("the hypervisor bit is the host's") {
  kvm::CpuidTable table = host_table();
  for (const std::uint32_t bit : {0U, 1U}) {
    table[1].ecx = bit << 31;
    CHECK((find_leaf(make_cpuid_table(table, {1, 1, 0}), 1)->ecx >> 31) == bit);
  }
}
