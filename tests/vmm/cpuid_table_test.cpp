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

// Linux Documentation/virt/kvm/api.rst, KVM_GET_SUPPORTED_CPUID: the TSC deadline timer is always reported as absent,
// and the hypervisor bit was not reported before Linux 6.13 or later. QEMU (target/i386/kvm/kvm.c) sets both.
TEST_CASE("KVM leaves the hypervisor bit and the TSC deadline timer to its user") {
  kvm::CpuidTable table = host_table();
  for (const std::uint32_t listed : {0U, 1U << 31 | 1U << 24}) {
    for (const bool timer : {false, true}) {
      table[1].ecx = listed;
      const std::uint32_t ecx = find_leaf(make_cpuid_table(table, {.signature = 1, .tsc_deadline = timer}), 1)->ecx;
      CHECK((ecx >> 31 & 1) == 1);
      CHECK((ecx >> 24 & 1) == (timer ? 1 : 0));
    }
  }
}

// QEMU target/i386/kvm/kvm-cpu.c, kvm_default_props; the host's is that of Linux 6.18.
TEST_CASE("of KVM's paravirtual features a guest gets those that QEMU turns on by itself") {
  kvm::CpuidTable table = host_table();
  table.push_back(entry(0x40000000, 0, 0x40000001, 0x4b4d564b, 0x564b4d56, 0x4d));
  table.push_back(entry(0x40000001, 0, 0x01007efb, 0, 0, 0));
  const kvm::CpuidTable made = make_cpuid_table(table, {.signature = 1});
  CHECK(find_leaf(made, 0x40000000)->ebx == 0x4b4d564b);
  CHECK(find_leaf(made, 0x40000001)->eax == 0x0100007b);
  CHECK(find_leaf(make_cpuid_table(host_table(), {.signature = 1}), 0x40000001) == nullptr);
}

// KVM computes the size of XSAVE's area from an XSS that it does not see (Linux arch/x86/kvm/svm/sev.c).
TEST_CASE("an encrypted guest is offered no state in XSS") {
  kvm::CpuidTable table = host_table();
  table.push_back(entry(7, 0, 1, 0, 1U << 7 | 1U << 2, 1U << 20 | 1U << 4));
  table.push_back(entry(0xd, 0, 0x207, 0x340, 0x988, 0));
  table.push_back(entry(0xd, 1, 0xf, 0x340, 0x1800, 0));
  table.push_back(entry(0xd, 2, 256, 576, 0, 0));
  table.push_back(entry(0xd, 11, 16, 0, 1, 0));
  table.push_back(entry(0xd, 12, 24, 0, 1, 0));
  const kvm::CpuidTable encrypted = make_cpuid_table(table, {.signature = 1, .encrypted = true});
  CHECK(find_leaf(encrypted, 7)->ecx == 1U << 2);
  CHECK(find_leaf(encrypted, 7)->edx == 1U << 4);
  CHECK(find_leaf(encrypted, 0xd, 1)->eax == 0xf);
  CHECK(find_leaf(encrypted, 0xd, 1)->ecx == 0);
  CHECK(find_leaf(encrypted, 0xd, 2) != nullptr);
  CHECK(find_leaf(encrypted, 0xd, 11) == nullptr);
  CHECK(find_leaf(encrypted, 0xd, 12) == nullptr);
  CHECK(find_leaf(encrypted, 0x8000001f)->ebx == (51 | 1U << 6));
  const kvm::CpuidTable plain = make_cpuid_table(table, {.signature = 1});
  CHECK(find_leaf(plain, 7)->ecx == (1U << 7 | 1U << 2));
  CHECK(find_leaf(plain, 0xd, 12) != nullptr);
  CHECK(find_leaf(plain, 0x8000001f)->ebx == 51);
}

TEST_CASE("a model has no leaf that QEMU's of that name has not, and the XSAVE area of its own instructions") {
  kvm::CpuidTable table = host_table();
  table[0].eax = 0x20;
  table[1].ecx |= 1U << 28 | 1U << 26;                              // AVX, XSAVE
  table.push_back(entry(7, 0, 1, 1U << 16 | 1U << 5, 1U << 3, 0));  // AVX-512, protection keys
  table.push_back(entry(7, 1, 0x30, 0, 0, 0));                      // AVX-VNNI
  table.push_back(entry(0xd, 0, 0x2e7, 0x988, 0x988, 0));
  table.push_back(entry(0xd, 2, 256, 576, 0, 0));
  table.push_back(entry(0xd, 5, 64, 832, 0, 0));
  table.push_back(entry(0xd, 9, 8, 2432, 0, 0));
  table.push_back(entry(0x1e, 0, 1, 1, 1, 1));
  table.push_back(entry(0x40000000, 0, 0x40000001, 1, 2, 3));
  table.push_back(entry(0x80000000, 0, 0x80000023, 1, 2, 3));
  table.push_back(entry(0x80000022, 0, 1, 1, 1, 1));
  const kvm::CpuidTable naples = make_cpuid_table(table, {.signature = 0x00800f12, .model = find_cpu_model("EPYC-v4")});
  CHECK(find_leaf(naples, 0)->eax == 0xd);
  CHECK(find_leaf(naples, 7)->eax == 0);
  CHECK(find_leaf(naples, 7, 1) == nullptr);
  CHECK(find_leaf(naples, 0x1e) == nullptr);
  CHECK(find_leaf(naples, 0x40000000) != nullptr);
  CHECK(find_leaf(naples, 0x80000000)->eax == 0x80000021);
  CHECK(find_leaf(naples, 0x80000022) == nullptr);
  CHECK(find_leaf(naples, 0xd)->eax == 7);
  CHECK(find_leaf(naples, 0xd)->ecx == 832);  // 512 + 64 + 256
  CHECK(find_leaf(naples, 0xd, 5) == nullptr);
  CHECK(find_leaf(naples, 0xd, 9) == nullptr);
  const kvm::CpuidTable milan =
      make_cpuid_table(table, {.signature = 0x00a00f11, .model = find_cpu_model("EPYC-Milan")});
  CHECK(find_leaf(milan, 0xd)->eax == 0x207);
  CHECK(find_leaf(milan, 0xd)->ecx == 2440);  // the keys lie where AVX-512's state ends
  const kvm::CpuidTable all = make_cpuid_table(table, {.signature = 0x00a00f11});
  CHECK(find_leaf(all, 0xd)->eax == 0x2e7);
  CHECK(find_leaf(all, 7, 1) != nullptr);
}
