// KVM_RUN and the exits of ports, memory-mapped devices and the processor. Linux arch/x86/kvm/x86.c.
#include <algorithm>
#include <array>
#include <csignal>
#include <cstring>
#include <sys/time.h>

#include "base/bytes.hpp"
#include "guests.hpp"

using namespace sevisor;
using namespace sevisor::conformance;

namespace {

std::byte* port_data(kvm_run& state) { return reinterpret_cast<std::byte*>(&state) + state.io.data_offset; }

void expect_port(const kvm_run& state, int direction, unsigned size, std::uint16_t port, unsigned count = 1) {
  CHECK(state.io.direction == direction);
  CHECK(state.io.size == size);
  CHECK(state.io.port == port);
  CHECK(state.io.count == count);
  CHECK(state.io.data_offset == 4096);
}

void expect_mmio(const kvm_run& state, std::uint64_t offset, std::uint32_t size, bool write, std::uint64_t value = 0) {
  INFO("at " << std::hex << state.mmio.phys_addr);
  CHECK(state.mmio.phys_addr == Rig::kHole + offset);
  CHECK(state.mmio.len == size);
  CHECK(state.mmio.is_write == (write ? 1 : 0));
  std::uint64_t data = 0;
  std::memcpy(&data, state.mmio.data, std::min(size, 8U));
  if (write) CHECK(data == value);
}

void answer_mmio(kvm_run& state, std::uint64_t value) { std::memcpy(state.mmio.data, &value, sizeof value); }

}  // namespace

TEST_CASE("port accesses of each size") {
  Rig rig;
  rig.load(ports_guest());
  const std::array<std::pair<unsigned, std::uint16_t>, 4> writes = {{{1, 0x21}, {2, 0x22}, {4, 0x24}, {1, 0x3f8}}};
  for (const auto& [size, port] : writes) {
    kvm_run& state = rig.run_to(KVM_EXIT_IO);
    expect_port(state, KVM_EXIT_IO_OUT, size, port);
    std::uint32_t value = 0;
    std::memcpy(&value, port_data(state), size);
    CHECK(value == (0x11223344 & (size == 4 ? 0xffffffff : (1U << size * 8) - 1)));
  }
  // What comes in replaces the low part of EAX alone, but for 4 bytes.
  constexpr std::uint32_t kIn = 0xa1b2c3d4;
  const std::array<std::pair<unsigned, std::uint32_t>, 3> reads = {{{1, 0xffffffd4}, {2, 0xffffc3d4}, {4, 0xa1b2c3d4}}};
  for (const auto& [size, eax] : reads) {
    kvm_run& state = rig.run_to(KVM_EXIT_IO);
    expect_port(state, KVM_EXIT_IO_IN, size, static_cast<std::uint16_t>(0x30 + size));
    std::memcpy(port_data(state), &kIn, size);
    CHECK(rig.next_report() == eax);
  }
}

TEST_CASE("string accesses to ports") {
  Rig rig;
  rig.load(strings_guest());
  std::memcpy(rig.ram.data() + 0x2000, "abc", 3);
  for (const char each : {'a', 'b', 'c'}) {
    kvm_run& state = rig.run_to(KVM_EXIT_IO);
    expect_port(state, KVM_EXIT_IO_OUT, 1, 0x40);
    CHECK(static_cast<char>(*port_data(state)) == each);
  }
  CHECK(rig.next_report() == 0);
  // An input is read ahead, so the exit has a count.
  kvm_run& state = rig.run_to(KVM_EXIT_IO);
  expect_port(state, KVM_EXIT_IO_IN, 1, 0x40, 3);
  std::memcpy(port_data(state), "xyz", 3);
  CHECK((rig.next_report() & 0xffffff) == 0x7a7978);
}

TEST_CASE("accesses to memory-mapped devices, each size, read-modify-write, over a page's end") {
  Rig rig;
  rig.load_long_mode(mmio_guest());
  expect_mmio(rig.run_to(KVM_EXIT_MMIO), 0, 1, true, 0x11);
  expect_mmio(rig.run_to(KVM_EXIT_MMIO), 2, 2, true, 0x2211);
  expect_mmio(rig.run_to(KVM_EXIT_MMIO), 4, 4, true, 0x44332211);
  expect_mmio(rig.run_to(KVM_EXIT_MMIO), 8, 8, true, 0x8877665544332211);
  const auto read = [&rig](std::uint64_t offset, std::uint32_t size, std::uint64_t value) {
    kvm_run& state = rig.run_to(KVM_EXIT_MMIO);
    expect_mmio(state, offset, size, false);
    answer_mmio(state, value);
  };
  read(0x10, 1, 0xfe);
  CHECK(rig.next_report() == 0xfe);
  read(0x12, 2, 0x8001);
  CHECK(rig.next_report() == 0xffff8001);
  read(0x14, 4, 0xdeadbeef);
  CHECK(rig.next_report() == 0xdeadbeef);
  read(0x18, 8, 0x0123456789abcdef);
  CHECK(rig.next_report() == 0x89abcdef);
  CHECK(rig.next_report() == 0x01234567);
  read(0x20, 4, 100);
  expect_mmio(rig.run_to(KVM_EXIT_MMIO), 0x20, 4, true, 105);
  // RAX is what the last report left: the shifted value's low half, zero-extended by MOV.
  expect_mmio(rig.run_to(KVM_EXIT_MMIO), 0xffc, 4, true, 0x01234567);
  expect_mmio(rig.run_to(KVM_EXIT_MMIO), 0x1000, 4, true, 0);
}

TEST_CASE("HLT comes out where no interrupt controller is in the host") {
  Rig rig;
  rig.load(hlt_guest());
  (void)rig.run_to(KVM_EXIT_HLT);
  CHECK(rig.regs().rip == Rig::kCode + 1);
  CHECK(rig.next_report() == 0x77);
}

TEST_CASE("a triple fault is KVM_EXIT_SHUTDOWN") {
  Rig rig;
  rig.load_long_mode(shutdown_guest());
  (void)rig.run_to(KVM_EXIT_SHUTDOWN);
}

TEST_CASE("an exception goes through the guest's vector table") {
  Rig rig;
  rig.load(ud2_guest());
  CHECK(rig.next_report() == 6);
  CHECK(rig.next_report() == 2);
}

TEST_CASE("immediate_exit and signals") {
  Rig rig;
  rig.load(spin_guest());
  rig.vcpus[0].set_immediate_exit(true);
  rig.vcpus[0].state().exit_reason = 0x55;
  CHECK(rig.run().error_number == EINTR);
  CHECK(rig.vcpus[0].state().exit_reason == 0x55);
  rig.vcpus[0].set_immediate_exit(false);
  struct sigaction action {};
  action.sa_handler = [](int) {};
  ::sigaction(SIGALRM, &action, nullptr);
  const itimerval soon{.it_interval = {0, 20'000}, .it_value = {0, 20'000}};
  ::setitimer(ITIMER_REAL, &soon, nullptr);
  CHECK(rig.vcpus[0].run() == EINTR);
  CHECK(rig.vcpus[0].state().exit_reason == KVM_EXIT_INTR);
  const itimerval none{};
  ::setitimer(ITIMER_REAL, &none, nullptr);
}

TEST_CASE("what user space answers is taken in though the run ends at once") {
  Rig rig;
  rig.load(ports_guest());
  for (int i = 0; i < 5; ++i) (void)rig.run_to(KVM_EXIT_IO);
  kvm_run& state = rig.vcpus[0].state();
  REQUIRE(state.io.direction == KVM_EXIT_IO_IN);
  *port_data(state) = std::byte{0x42};
  rig.vcpus[0].set_immediate_exit(true);
  CHECK(rig.run().error_number == EINTR);
  rig.vcpus[0].set_immediate_exit(false);
  CHECK((rig.regs().rax & 0xff) == 0x42);
  CHECK(rig.next_report() == 0xffffff42);
}

TEST_CASE("CPUID in the guest is the table of KVM_SET_CPUID2") {
  Rig rig;
  rig.load(cpuid_guest());
  kvm::CpuidTable table = rig.kvm.supported_cpuid();
  std::erase_if(table, [](const kvm_cpuid_entry2& e) { return e.function == 0x40000000; });
  kvm_cpuid_entry2 own{};
  own.function = 0x40000000;
  own.eax = 0x40000010;
  own.ebx = 0x11111111;
  own.ecx = 0x22222222;
  own.edx = 0x33333333;
  table.push_back(own);
  rig.vcpus[0].set_cpuid(table);
  store(rig.ram.data() + 0x2000, std::uint64_t{0x40000000});
  (void)rig.next_report();
  CHECK(load<std::uint32_t>(rig.ram.data() + 0x2010) == own.eax);
  CHECK(load<std::uint32_t>(rig.ram.data() + 0x2014) == own.ebx);
  CHECK(load<std::uint32_t>(rig.ram.data() + 0x2018) == own.ecx);
  CHECK(load<std::uint32_t>(rig.ram.data() + 0x201c) == own.edx);
  // A leaf that is in no range: those of AMD's processors read as 0.
  store(rig.ram.data() + 0x2000, std::uint64_t{0x8fffffff});
  (void)rig.next_report();
  note("CPUID 8fffffff EAX", load<std::uint32_t>(rig.ram.data() + 0x2010));
  // After KVM_RUN the table may not be changed.
  table.back().ebx = 1;
  CHECK_THROWS(rig.vcpus[0].set_cpuid(table));
}

TEST_CASE("after KVM_RUN the CPUID table may be set again, as it is") {
  Rig rig;
  rig.load(hlt_guest());
  (void)rig.run_to(KVM_EXIT_HLT);
  struct {
    kvm_cpuid2 header;
    kvm_cpuid_entry2 entries[256];
  } table{};
  table.header.nent = 256;
  REQUIRE(answer(rig.of_vcpu(), KVM_GET_CPUID2, &table) == 0);
  CHECK(answer(rig.of_vcpu(), KVM_SET_CPUID2, &table) == 0);
  --table.header.nent;
  CHECK(answer(rig.of_vcpu(), KVM_SET_CPUID2, &table) == -EINVAL);
}

TEST_CASE("too many CPUID leaves") {
  Rig rig;
  rig.add_vcpu();
  CHECK(answer_to(rig.of_vcpu(), KVM_SET_CPUID2, kvm_cpuid2{.nent = 257, .padding = 0, .entries = {}}) == -E2BIG);
  CHECK(answer_to(rig.of_vcpu(), KVM_GET_CPUID2, kvm_cpuid2{.nent = 0, .padding = 0, .entries = {}}) == -E2BIG);
}

TEST_CASE("single steps and breakpoints come out to a debugger") {
  Rig rig;
  rig.load(steps_guest());
  kvm_guest_debug debug{};
  debug.control = KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_SINGLESTEP;
  REQUIRE(answer(rig.of_vcpu(), KVM_SET_GUEST_DEBUG, &debug) == 0);
  kvm_run& state = rig.run_to(KVM_EXIT_DEBUG);
  CHECK(state.debug.arch.exception == 1);
  CHECK(state.debug.arch.pc == Rig::kCode + 1);
  CHECK((state.debug.arch.dr6 & 1 << 14) != 0);
  (void)rig.run_to(KVM_EXIT_DEBUG);
  CHECK(rig.regs().rip == Rig::kCode + 4);
  debug = {};
  REQUIRE(answer(rig.of_vcpu(), KVM_SET_GUEST_DEBUG, &debug) == 0);
  (void)rig.run_to(KVM_EXIT_IO);
  (void)rig.run_to(KVM_EXIT_HLT);
}

TEST_CASE("registers through the run area") {
  Rig rig;
  if ((rig.kvm.capability(KVM_CAP_SYNC_REGS) & KVM_SYNC_X86_REGS) == 0) return;
  rig.load(ports_guest());
  kvm_run& state = rig.vcpus[0].state();
  state.kvm_valid_regs = KVM_SYNC_X86_REGS | KVM_SYNC_X86_SREGS;
  (void)rig.run_to(KVM_EXIT_IO);
  CHECK((state.s.regs.regs.rax & 0xffffffff) == 0x11223344);
  CHECK(state.s.regs.sregs.cs.base == 0);
  state.s.regs.regs.rax = 0x55667788;
  state.kvm_dirty_regs = KVM_SYNC_X86_REGS;
  kvm_run& next = rig.run_to(KVM_EXIT_IO);
  CHECK(load<std::uint16_t>(port_data(next)) == 0x7788);
  state.kvm_valid_regs = 1 << 20;
  CHECK(rig.run().error_number == EINVAL);
}
