// Page walks against a model written from the manual's rules, and the C-bit's two views.
#include <catch2/catch.hpp>

#include "emulator/cpu/code/code_cache.hpp"
#include "machine.hpp"

using namespace sevisor;
using namespace sevisor::emulator;
using namespace sevisor::emulator::test;

namespace {

constexpr std::uint64_t kP = 1;
constexpr std::uint64_t kW = 2;
constexpr std::uint64_t kU = 4;
constexpr std::uint64_t kA = 0x20;
constexpr std::uint64_t kD = 0x40;
constexpr std::uint64_t kPs = 0x80;
constexpr std::uint64_t kG = 0x100;
constexpr std::uint64_t kNx = std::uint64_t{1} << 63;

// A bare core over the machine's memory, with access to its tables.
struct Walker {
  Machine m;
  Core core;

  Walker() : core(m.config, m.memory, *m.code_cache, m.clock) {
    core.cr0 = kCr0Pe | kCr0Pg | kCr0Wp;
    core.cr4 = kCr4Pae;
    core.efer = kEferLme | kEferLma | kEferNxe;
    core.cr3 = kPml4;
    core.flush_tlb(false);
  }
  template <class T>
  void set(std::uint64_t gpa, T value) {
    store<T>(m.memory.open(Gpa(gpa), View::kPrivate).host + (gpa & 0xfff), value);
  }
  template <class T>
  T get(std::uint64_t gpa) {
    return load<T>(m.memory.open(Gpa(gpa), View::kPrivate).host + (gpa & 0xfff));
  }
  bool walk(std::uint64_t va, Access access, bool supervisor, Core::Translation& t) {
    core.flush_tlb(false);
    return core.translate(va, access, supervisor, t);
  }
};

struct Bits {
  bool present, write, user, nx;
  [[nodiscard]] std::uint64_t entry() const {
    return (present ? kP : 0) | (write ? kW : 0) | (user ? kU : 0) | (nx ? kNx : 0);
  }
};

enum class Privilege { kKernel, kUser, kImplicit };

struct Setting {
  bool wp, smep, smap, ac, nxe;
};

// -1: allowed; otherwise #PF's error code. AMD APM vol. 2, 5.6.
int model(const Bits& upper, const Bits& leaf, Access access, Privilege privilege, const Setting& s) {
  const bool as_user = privilege == Privilege::kUser;
  unsigned error = 0;
  if (access == Access::kWrite) error += 2;
  if (as_user) error += 4;
  if (access == Access::kFetch && (s.nxe || s.smep)) error += 16;
  if (!s.nxe && upper.nx) return static_cast<int>(error + 1 + 8);
  if (!leaf.present) return static_cast<int>(error);
  if (!s.nxe && leaf.nx) return static_cast<int>(error + 1 + 8);
  const bool user_page = upper.user && leaf.user;
  const bool writable_page = upper.write && leaf.write;
  const bool executable_page = !upper.nx && !leaf.nx;
  bool ok = true;
  if (as_user) {
    ok = user_page && (access != Access::kWrite || writable_page) && (access != Access::kFetch || executable_page);
  } else {
    if (access == Access::kWrite && s.wp && !writable_page) ok = false;
    if (access == Access::kFetch && (!executable_page || (s.smep && user_page))) ok = false;
    if (access != Access::kFetch && s.smap && user_page && (privilege == Privilege::kImplicit || !s.ac)) ok = false;
  }
  return ok ? -1 : static_cast<int>(error + 1);
}

enum class Size { k4K, k2M, k1G };

}  // namespace

TEST_CASE("Rights of every combination of levels, privilege and control bits") {
  Walker w;
  const Size size = GENERATE(Size::k4K, Size::k2M, Size::k1G);
  constexpr std::uint64_t kVa = 0x0000'0000'4020'3456;  // PDP 1, PD 1, PT 3
  constexpr std::uint64_t kPage = 0x4000'0000;
  constexpr std::uint64_t kPage2M = 0x20'0000;
  std::size_t wrong = 0;
  std::size_t walks = 0;
  for (unsigned bits = 0; bits < 128; ++bits) {
    const Bits leaf{(bits & 1) != 0, (bits & 2) != 0, (bits & 4) != 0, (bits & 8) != 0};
    const Bits upper{true, (bits & 16) != 0, (bits & 32) != 0, (bits & 64) != 0};
    const std::uint64_t all = kP | kW | kU;
    std::uint64_t leaf_at = 0;
    switch (size) {
      case Size::k4K:
        w.set(kPml4, kPdp | all);
        w.set(kPdp + 8, kPd | all);
        w.set(kPd + 8, kPt | upper.entry());
        leaf_at = kPt + 3 * 8;
        w.set(leaf_at, 0x5000 | leaf.entry() | kCBit);
        break;
      case Size::k2M:
        w.set(kPml4, kPdp | all);
        w.set(kPdp + 8, kPd | upper.entry());
        leaf_at = kPd + 8;
        w.set(leaf_at, kPage2M | kPs | leaf.entry() | kCBit);
        break;
      case Size::k1G:
        w.set(kPml4, kPdp | upper.entry());
        leaf_at = kPdp + 8;
        w.set(leaf_at, kPage | kPs | leaf.entry() | kCBit);
        break;
    }
    const auto leaf_entry = w.get<std::uint64_t>(leaf_at);
    for (unsigned flags = 0; flags < 32; ++flags) {
      const Setting s{(flags & 1) != 0, (flags & 2) != 0, (flags & 4) != 0, (flags & 8) != 0, (flags & 16) != 0};
      w.core.cr0 = kCr0Pe | kCr0Pg | (s.wp ? kCr0Wp : 0);
      w.core.cr4 = kCr4Pae | (s.smep ? kCr4Smep : 0) | (s.smap ? kCr4Smap : 0);
      w.core.efer = kEferLme | kEferLma | (s.nxe ? kEferNxe : 0);
      w.core.system_flags = s.ac ? kFlagAc : 0;
      for (const Access access : {Access::kRead, Access::kWrite, Access::kFetch}) {
        for (const Privilege privilege : {Privilege::kKernel, Privilege::kUser, Privilege::kImplicit}) {
          w.core.cpl = privilege == Privilege::kKernel ? 0 : 3;
          w.set(leaf_at, leaf_entry);
          Core::Translation t;
          const bool done = w.walk(kVa, access, privilege == Privilege::kImplicit, t);
          const int expected = model(upper, leaf, access, privilege, s);
          bool right = done == (expected < 0);
          if (!done) {
            right = right && w.core.fault_info.vector == kVectorPf && w.core.fault_info.has_error &&
                    w.core.fault_info.error == static_cast<std::uint32_t>(expected) && w.core.fault_info.cr2 == kVa;
            right = right && w.get<std::uint64_t>(leaf_at) == leaf_entry;
          } else {
            const std::uint64_t set = kA | (access == Access::kWrite ? kD : 0);
            right = right && w.get<std::uint64_t>(leaf_at) == (leaf_entry | set);
            // `writable` may be claimed only if a write would be allowed and D is set.
            const bool may_write = model(upper, leaf, Access::kWrite, privilege, s) < 0;
            right = right && t.writable == (may_write && access == Access::kWrite);
          }
          ++walks;
          if (!right && ++wrong == 1) {
            UNSCOPED_INFO("bits " << bits << " flags " << flags << " access " << static_cast<int>(access)
                                  << " privilege " << static_cast<int>(privilege) << " expected " << expected
                                  << " done " << done << " error " << w.core.fault_info.error);
          }
        }
      }
    }
  }
  CHECK(walks == 128 * 32 * 9);
  CHECK(wrong == 0);
}

TEST_CASE("Page sizes, offsets and the C-bit of the leaf") {
  Walker w;
  const bool encrypted = GENERATE(false, true);
  const std::uint64_t c = encrypted ? kCBit : 0;
  const View view = encrypted ? View::kPrivate : View::kShared;
  // C-bits of the levels above and of CR3 mean nothing.
  w.core.cr3 = kPml4 | (encrypted ? 0 : kCBit);
  const std::uint64_t upper = kP | kW | kU | (encrypted ? 0 : kCBit);
  w.set(kPml4 + 511 * 8, kPdp | upper);
  w.set(kPdp + 510 * 8, kPd | upper);
  w.set(kPd + 3 * 8, kPt | upper);
  w.set(kPt + 5 * 8, 0x7000 | kP | kD | kG | c);
  w.set(kPd + 4 * 8, 0x0000'0012'3460'0000 | kP | kPs | c);
  w.set(kPdp + 511 * 8, 0x0000'7fff'c000'0000 | kP | kPs | c);
  w.core.cr4 |= kCr4Pge;
  Core::Translation t;
  REQUIRE(w.walk(0xffff'ffff'8060'5abc, Access::kRead, false, t));
  CHECK(t.gpa == Gpa(0x7abc));
  CHECK(t.view == view);
  CHECK(t.shift == 12);
  CHECK(t.global);
  CHECK_FALSE(t.writable);
  REQUIRE(w.walk(0xffff'ffff'8081'2345, Access::kRead, false, t));
  CHECK(t.gpa == Gpa(0x12'3461'2345));
  CHECK(t.view == view);
  CHECK(t.shift == 21);
  CHECK_FALSE(t.global);
  REQUIRE(w.walk(0xffff'ffff'f234'5678, Access::kRead, false, t));
  CHECK(t.gpa == Gpa(0x7fff'f234'5678));
  CHECK(t.view == view);
  CHECK(t.shift == 30);
  // A bits of all levels.
  CHECK((w.get<std::uint64_t>(kPml4 + 511 * 8) & kA) != 0);
  CHECK((w.get<std::uint64_t>(kPdp + 510 * 8) & kA) != 0);
  CHECK((w.get<std::uint64_t>(kPd + 3 * 8) & kA) != 0);
}

TEST_CASE("Reserved bits raise #PF with RSV") {
  Walker w;
  const std::uint64_t all = kP | kW | kU;
  w.set(kPml4, kPdp | all);
  w.set(kPdp, kPd | all);
  w.set(kPd, kPt | all);
  w.set(kPt, 0x5000 | all);
  w.set(kPd + 8, 0x20'0000 | kPs | all);
  w.set(kPdp + 8, 0x4000'0000 | kPs | all);
  struct Case {
    std::uint64_t entry, bits, va;
  };
  for (const Case& c : std::initializer_list<Case>{{kPt, std::uint64_t{1} << 48, 0},
                                                   {kPt, std::uint64_t{1} << 50, 0},
                                                   {kPd, std::uint64_t{1} << 49, 0},
                                                   {kPml4, kPs, 0},
                                                   {kPml4, kG, 0},
                                                   {kPd + 8, 1 << 13, 0x20'0000},
                                                   {kPd + 8, 1 << 20, 0x20'0000},
                                                   {kPdp + 8, 1 << 13, 0x4000'0000},
                                                   {kPdp + 8, 1 << 29, 0x4000'0000}}) {
    INFO(std::hex << c.entry << " " << c.bits);
    Core::Translation t;
    REQUIRE(w.walk(c.va, Access::kRead, false, t));
    const auto before = w.get<std::uint64_t>(c.entry);
    w.set(c.entry, before | c.bits);
    CHECK_FALSE(w.walk(c.va, Access::kRead, false, t));
    CHECK(w.core.fault_info.vector == kVectorPf);
    CHECK(w.core.fault_info.error == 9);
    w.set(c.entry, before);
  }
  // Bits 62:52 belong to software; PAT is no reserved bit.
  Core::Translation t;
  w.set(kPt, 0x5000 | all | std::uint64_t{0x7ff} << 52);
  CHECK(w.walk(0, Access::kRead, false, t));
  w.set(kPd + 8, 0x20'1000 | kPs | all);
  CHECK(w.walk(0x20'0000, Access::kRead, false, t));
}

TEST_CASE("Addresses that are not canonical raise #GP(0)") {
  Walker w;
  Core::Translation t;
  CHECK_FALSE(w.walk(0x0000'8000'0000'0000, Access::kRead, false, t));
  CHECK(w.core.fault_info.vector == kVectorGp);
  CHECK(w.core.fault_info.error == 0);
  CHECK_FALSE(w.walk(0xffff'7fff'ffff'ffff, Access::kFetch, false, t));
  CHECK(w.core.fault_info.vector == kVectorGp);
}

TEST_CASE("Legacy paging: 4 KiB and 4 MiB pages are private, PAE's have the C-bit") {
  Walker w;
  w.core.efer = 0;
  Core::Translation t;
  SECTION("two levels") {
    w.core.cr4 = kCr4Pse;
    w.core.cr3 = kPd | 0x18;
    w.set(kPd + 4 * 1, static_cast<std::uint32_t>(kPt | kP | kW | kU));
    w.set(kPt + 4 * 2, static_cast<std::uint32_t>(0x7000 | kP | kW | kU));
    w.set(kPd + 4 * 2, static_cast<std::uint32_t>(0x0180'0000 | 0x6000 | kP | kPs));
    w.set(kPd + 4 * 3, std::uint32_t{0});
    REQUIRE(w.walk(0x0040'2123, Access::kWrite, false, t));
    CHECK(t.gpa == Gpa(0x7123));
    CHECK(t.view == View::kPrivate);
    CHECK(w.get<std::uint32_t>(kPt + 8) == (0x7000 | kP | kW | kU | kA | kD));
    REQUIRE(w.walk(0x0081'2345, Access::kRead, false, t));
    CHECK(t.gpa == Gpa(0x3'0181'2345));  // PSE-36
    CHECK(t.shift == 22);
    w.core.cpl = 3;
    CHECK_FALSE(w.walk(0x0081'2345, Access::kRead, false, t));
    CHECK(w.core.fault_info.error == 5);
    CHECK_FALSE(w.walk(0x00c0'0000, Access::kWrite, false, t));
    CHECK(w.core.fault_info.error == 6);
    w.core.cpl = 0;
    w.set(kPd + 4 * 2, static_cast<std::uint32_t>(0x0180'0000 | 1 << 21 | kP | kPs));
    CHECK_FALSE(w.walk(0x0081'2345, Access::kRead, false, t));
    CHECK(w.core.fault_info.error == 9);
  }
  SECTION("PAE") {
    w.core.efer = kEferNxe;
    w.core.cr3 = kPae + 0x20;
    w.set(kPae + 0x20 + 8 * 3, kPd | kP | kCBit);
    w.set(kPae + 0x20 + 8 * 2, std::uint64_t{0});
    w.set(kPd + 8 * 1, kPt | kP | kW | kU);
    w.set(kPt + 8 * 2, 0x7000 | kP | kW | kNx);
    w.set(kPd + 8 * 2, 0x60'0000 | kP | kPs | kCBit);
    REQUIRE(w.walk(0xc020'2123, Access::kRead, false, t));
    CHECK(t.gpa == Gpa(0x7123));
    CHECK(t.view == View::kShared);
    REQUIRE(w.walk(0xc040'0123, Access::kRead, false, t));
    CHECK(t.gpa == Gpa(0x60'0123));
    CHECK(t.view == View::kPrivate);
    CHECK_FALSE(w.walk(0xc020'2123, Access::kFetch, false, t));
    CHECK(w.core.fault_info.error == 17);
    CHECK_FALSE(w.walk(0x8020'2123, Access::kRead, false, t));
    CHECK(w.core.fault_info.error == 0);
    w.set(kPae + 0x20 + 8 * 3, kPd | kP | kW);
    CHECK_FALSE(w.walk(0xc020'2123, Access::kRead, false, t));
    CHECK(w.core.fault_info.error == 9);
  }
}

TEST_CASE("Without paging addresses are physical and private") {
  Walker w;
  w.core.cr0 = kCr0Pe;
  w.core.efer = 0;
  Core::Translation t;
  REQUIRE(w.walk(0xfffffff0, Access::kWrite, false, t));
  CHECK(t.gpa == Gpa(0xfffffff0));
  CHECK(t.view == View::kPrivate);
  CHECK(t.writable);
}

TEST_CASE("A page table that no memory backs is a nested fault reported by #VC") {
  Walker w;
  const std::uint64_t all = kP | kW | kU;
  w.set(kPml4, 0x1000'0000 | all);
  Core::Translation t;
  CHECK_FALSE(w.walk(0, Access::kRead, false, t));
  CHECK(w.core.fault_info.vector == kVectorVc);
  CHECK(w.core.fault_info.error == ghcb::kExitNpf);
}

TEST_CASE("The cache of page walks forgets on flush and INVLPG") {
  Walker w;
  const std::uint64_t all = kP | kW | kU;
  w.set(kPml4, kPdp | all);
  w.set(kPdp, kPd | all);
  w.set(kPd, kPt | all);
  w.set(kPt, 0x5000 | all);
  Core::Translation t;
  REQUIRE(w.walk(0, Access::kRead, false, t));
  w.set(kPd, std::uint64_t{0});
  CHECK(w.core.translate(0x10, Access::kRead, false, t));  // may be stale until the guest says so
  w.core.invalidate_page(0);
  CHECK_FALSE(w.core.translate(0x10, Access::kRead, false, t));
}

// --- through instructions --------------------------------------------------------------------------------------------

TEST_CASE("Data through C=0 and C=1 mappings") {
  Machine m;
  m.enter(Mode::kLong64);
  // Linear kData + 0x1000 is a second, shared mapping of the page at kData.
  constexpr std::uint64_t kAlias = kData + 0x1000;
  m.put(kPt + (kAlias >> 12) * 8, kData | 7);
  m.put(kData, std::uint64_t{0x1122334455667788});
  m.vmsa.rbx = kData;
  m.vmsa.rcx = kAlias;
  m.vmsa.rax = 0x8877665544332211;
  SECTION("a private value reads as ciphertext when shared, and is unchanged when private again") {
    m.code({0x48, 0x8b, 0x01, 0x48, 0x8b, 0x13});  // mov rax, [rcx]; mov rdx, [rbx]
    REQUIRE(m.run().code == ghcb::kExitVmgexit);
    CHECK(m.vmsa.rax != 0x1122334455667788);
    CHECK(m.vmsa.rdx == 0x1122334455667788);
  }
  SECTION("what is written shared, the hypervisor reads, and the private view garbles") {
    m.code({0x48, 0x89, 0x01, 0x48, 0x8b, 0x13});  // mov [rcx], rax; mov rdx, [rbx]
    REQUIRE(m.run().code == ghcb::kExitVmgexit);
    CHECK(m.vmsa.rdx != 0x8877665544332211);
    // Written back so that the raw bytes are seen as DRAM holds them.
    m.memory.write_back(Gpa(kData));
    CHECK(load<std::uint64_t>(m.ram.data() + kData) == 0x8877665544332211);
  }
  SECTION("what is written private is not seen in DRAM") {
    m.code({0x48, 0x89, 0x03});  // mov [rbx], rax
    REQUIRE(m.run().code == ghcb::kExitVmgexit);
    m.memory.write_back(Gpa(kData));
    CHECK(load<std::uint64_t>(m.ram.data() + kData) != 0x8877665544332211);
    CHECK(m.get<std::uint64_t>(kData) == 0x8877665544332211);
  }
  SECTION("CLFLUSH brings the ciphertext to DRAM") {
    m.code({0x48, 0x89, 0x03, 0x0f, 0xae, 0x3b});  // mov [rbx], rax; clflush [rbx]
    const auto before = load<std::uint64_t>(m.ram.data() + kData);
    REQUIRE(m.run().code == ghcb::kExitVmgexit);
    CHECK(load<std::uint64_t>(m.ram.data() + kData) != before);
    CHECK(m.get<std::uint64_t>(kData) == 0x8877665544332211);
  }
  SECTION("code in a shared page runs as if decrypted") {
    m.put(kPt + (kCode >> 12) * 8, kCode | 7);  // C=0; fetches ignore it
    m.code({0x31, 0xc0});
    REQUIRE(m.run().code == ghcb::kExitVmgexit);
    CHECK(m.vmsa.rax == 0);
  }
}

TEST_CASE("Pages without memory are MMIO: #VC(0x400); read-only memory exits") {
  Machine m;
  m.enter(Mode::kLong64);
  constexpr std::uint64_t kPage = kData + 0x1000;
  m.vmsa.rbx = kPage;
  SECTION("no slot") {
    m.put(kPt + (kPage >> 12) * 8, std::uint64_t{0xfee0'0000 | 7});
    m.code(GENERATE(Bytes{0x8b, 0x03}, Bytes{0x89, 0x03}));
    REQUIRE(m.run().code == ghcb::kExitVmgexit);
    CHECK(m.vector() == kVectorVc);
    CHECK(m.stacked(0) == 0x400);
    CHECK(m.stacked(1) == kCode);
  }
  SECTION("read-only slot") {
    Mapping rom = Mapping::anonymous(4096, 3);
    constexpr std::uint32_t kReadOnly = 2;
    REQUIRE(m.memory.set_slot(1, kReadOnly, Gpa(0x1000'0000), 4096, rom.data()) == 0);
    m.put(kPt + (kPage >> 12) * 8, std::uint64_t{0x1000'0000 | 7});
    m.code({0x8b, 0x03, 0x89, 0x03});
    const CpuExit exit = m.run();
    CHECK(exit.code == ghcb::kExitNpf);
    CHECK(exit.info2 == 0x1000'0000);
    CHECK(m.vmsa.rip == kCode + 2);
    REQUIRE(m.memory.set_slot(1, 0, Gpa(0), 0, nullptr) == 0);
  }
}

TEST_CASE("Self-modifying code takes effect at the next instruction") {
  Machine m;
  m.enter(Mode::kLong64);
  m.vmsa.rbx = kCode + 7;
  m.vmsa.rax = 0;
  m.code({0xc6, 0x03, 0x04,  // mov byte [rbx], 4: the immediate of the ADD below
          0x90, 0x90,        // nop; nop
          0x83, 0xc0, 0x01,  // add eax, 1, which has become add eax, 4
          0xff, 0xc1,        // inc ecx
          0x83, 0xf9, 0x03,  // cmp ecx, 3
          0x75, 0xf4});      // jne to the NOPs
  m.vmsa.rcx = 0;
  REQUIRE(m.run().code == ghcb::kExitVmgexit);
  CHECK(m.vmsa.rax == 12);
}
