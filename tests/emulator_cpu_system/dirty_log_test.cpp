// Every write of the processor to guest memory is in its slot's log: KVM_MEM_LOG_DIRTY_PAGES.
#include <catch2/catch.hpp>

#include "machine.hpp"

using namespace sevisor;
using namespace sevisor::emulator;
using namespace sevisor::emulator::test;

namespace {

constexpr std::uint32_t kLog = 1;
using Pages = std::vector<std::uint64_t>;

void log(Machine& m) { REQUIRE(m.memory.set_slot(0, kLog, Gpa(0), kRamSize, m.ram.data()) == 0); }

Pages take(Machine& m) {
  Pages words;
  REQUIRE(m.memory.get_dirty_log(0, true, words) == 0);
  Pages pages;
  for (std::uint64_t page = 0; page < words.size() * 64; ++page) {
    if ((words[page / 64] >> page % 64 & 1) != 0) pages.push_back(page);
  }
  return pages;
}

constexpr std::uint64_t page(std::uint64_t gpa) { return gpa / kPageSize; }

}  // namespace

TEST_CASE("stores are logged once, and again after the log was taken, whatever the TLB knows") {
  Machine m;
  m.enter(Mode::kLong64);
  log(m);
  m.vmsa.rbx = kData;
  // mov [rbx], eax; mov eax, [rbx + 0x1000]; mov [rbx], eax; VMGEXIT, twice
  Bytes body = {0x89, 0x03, 0x8b, 0x83, 0x00, 0x10, 0x00, 0x00, 0x89, 0x03};
  body.insert(body.end(), kVmgexit.begin(), kVmgexit.end());
  Bytes code = body;
  code.insert(code.end(), body.begin(), body.end());
  m.code(code);
  (void)take(m);
  REQUIRE(m.cpu.load(m.vmsa));
  REQUIRE(m.cpu.run(m.controls).code == ghcb::kExitVmgexit);
  const Pages first = take(m);
  CHECK(std::count(first.begin(), first.end(), page(kData)) == 1);
  CHECK(std::count(first.begin(), first.end(), page(kData) + 1) == 0);
  CHECK(take(m).empty());
  // The same translation is in the TLB still.
  REQUIRE(m.cpu.run(m.controls).code == ghcb::kExitVmgexit);
  CHECK(take(m) == Pages{page(kData)});
}

TEST_CASE("a page that is read first and then written is logged") {
  Machine m;
  m.enter(Mode::kLong64);
  log(m);
  m.vmsa.rbx = kData;
  m.code({0x8b, 0x03, 0xff, 0x03});  // mov eax, [rbx]; inc dword [rbx]
  (void)take(m);
  REQUIRE(m.run().code == ghcb::kExitVmgexit);
  const Pages pages = take(m);
  CHECK(std::count(pages.begin(), pages.end(), page(kData)) == 1);
}

TEST_CASE("accessed and dirty bits are writes to the page tables") {
  Machine m;
  m.enter(Mode::kLong64);
  const auto entry = m.get<std::uint64_t>(kPt + page(kData) * 8);
  m.put(kPt + page(kData) * 8, entry & ~std::uint64_t{0x60});
  log(m);
  m.vmsa.rbx = kData;
  m.code({0x8b, 0x03});
  (void)take(m);
  REQUIRE(m.run().code == ghcb::kExitVmgexit);
  Pages pages = take(m);
  CHECK(std::count(pages.begin(), pages.end(), page(kPt)) == 1);
  CHECK(std::count(pages.begin(), pages.end(), page(kData)) == 0);
}

TEST_CASE("a string store is logged in each page that it reaches, and so is a push") {
  Machine m;
  m.enter(Mode::kLong64);
  log(m);
  m.vmsa.rdi = kData + 0xff0;
  m.vmsa.rcx = 0x1020;
  m.code({0xf3, 0xaa, 0x50});  // rep stosb; push rax
  (void)take(m);
  REQUIRE(m.run().code == ghcb::kExitVmgexit);
  const Pages pages = take(m);
  for (const std::uint64_t gpa : {kData, kData + 0x1000, kData + 0x2000, kStack - 8}) {
    CHECK(std::count(pages.begin(), pages.end(), page(gpa)) == 1);
  }
  CHECK(std::count(pages.begin(), pages.end(), page(kData + 0x3000)) == 0);
}
