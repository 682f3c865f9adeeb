// Code that another processor, or the world outside, changes (APM vol. 2, 7.6.1): the next execution sees the change,
// whatever was decoded before.
#include <catch2/catch.hpp>

#include "machine.hpp"

using namespace sevisor;
using namespace sevisor::emulator;
using namespace sevisor::emulator::test;

namespace {

constexpr std::uint64_t kVictim = 0x50000;        // code of its own page
constexpr std::uint64_t kAlias = 0x51000;         // a second mapping of the same page
constexpr std::uint64_t kWriter = kCode + 0x400;  // the other processor's code
constexpr std::uint64_t kAliasEntry = kPt + (kAlias >> 12) * 8;

// mov eax, VALUE; vmgexit
Bytes returns(std::uint8_t value) {
  Bytes bytes = {0xb8, value, 0, 0, 0};
  bytes.insert(bytes.end(), kVmgexit.begin(), kVmgexit.end());
  return bytes;
}

// Two processors of one machine. The first runs the victim's code, the second writes to it.
struct TwoProcessors : Machine {
  TwoProcessors() : other(config, memory, *code_cache, clock) { enter(Mode::kLong64); }
  std::uint64_t run_victim() {
    vmsa.rip = kVictim;
    vmsa.rax = 0;
    REQUIRE(run().code == ghcb::kExitVmgexit);
    return vmsa.rax;
  }
  // mov [rbx], cl or rcx on the other one.
  void write_from_other(std::uint64_t va, std::uint64_t value, unsigned size = 1) {
    Bytes writer = size == 8 ? Bytes{0x48, 0x89, 0x0b} : Bytes{0x88, 0x0b};
    writer.insert(writer.end(), kVmgexit.begin(), kVmgexit.end());
    poke(kWriter, writer);
    Vmsa state = vmsa;
    state.rip = kWriter;
    state.rbx = va;
    state.rcx = value;
    REQUIRE(other.load(state));
    REQUIRE(other.run(controls).code == ghcb::kExitVmgexit);
  }
  // The first block of the victim's page as DRAM would hold it, with this code.
  std::array<std::uint64_t, 2> ciphertext_of(const Bytes& bytes) {
    poke(kVictim, bytes);
    return {load<std::uint64_t>(ram.data() + kVictim), load<std::uint64_t>(ram.data() + kVictim + 8)};
  }
  Cpu other;
};

}  // namespace

TEST_CASE_METHOD(TwoProcessors, "a write by another processor takes effect") {
  poke(kVictim, returns(1));
  CHECK(run_victim() == 1);
  CHECK(run_victim() == 1);
  write_from_other(kVictim + 1, 2);
  CHECK(run_victim() == 2);
  write_from_other(kVictim + 1, 3);  // the writer's translation has lost its right to write past the decoded code
  CHECK(run_victim() == 3);
}

TEST_CASE_METHOD(TwoProcessors, "a write through another private mapping takes effect") {
  put(kAliasEntry, kVictim | 7 | kCBit);
  poke(kVictim, returns(1));
  CHECK(run_victim() == 1);
  write_from_other(kAlias + 1, 5);
  CHECK(run_victim() == 5);
}

TEST_CASE_METHOD(TwoProcessors, "ciphertext written through the C=0 alias takes effect") {
  put(kAliasEntry, kVictim | 7);
  const std::array<std::uint64_t, 2> wanted = ciphertext_of(returns(6));
  poke(kVictim, returns(1));
  CHECK(run_victim() == 1);
  write_from_other(kAlias, wanted[0], 8);
  write_from_other(kAlias + 8, wanted[1], 8);
  CHECK(run_victim() == 6);
}

TEST_CASE_METHOD(TwoProcessors, "what C=0 wrote is ciphertext to the one who fetches") {
  put(kAliasEntry, kVictim | 7);
  poke(kVictim, returns(1));
  CHECK(run_victim() == 1);
  std::array<std::byte, 16> before{};
  load_private(kVictim, before);
  write_from_other(kAlias + 1, 2);
  std::array<std::byte, 16> after{};
  load_private(kVictim, after);
  CHECK(after != before);
  // The whole block of the cipher has become noise: what it does nobody knows, but it is not what was decoded before.
  vmsa.rip = kVictim;
  vmsa.rax = 0;
  (void)other.load(vmsa);
  const CpuExit exit = other.run(controls);
  other.save(vmsa);
  CHECK_FALSE((exit.code == ghcb::kExitVmgexit && vmsa.rip == kVictim + 9));
}

TEST_CASE_METHOD(TwoProcessors, "a write by the hypervisor takes effect") {
  const std::array<std::uint64_t, 2> wanted = ciphertext_of(returns(9));
  poke(kVictim, returns(1));
  CHECK(run_victim() == 1);
  REQUIRE(memory.write_shared(Gpa(kVictim), std::as_bytes(std::span(wanted))));
  CHECK(run_victim() == 9);
}
