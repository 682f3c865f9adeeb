// Interrupts of an ordinary guest whose controllers are user space's, and of one whose are the kernel's.
#include "tests/emulator_ordinary/guest.hpp"

using namespace sevisor;
using namespace sevisor::test;

namespace {

// An IDT at kIdt: every vector's handler is at kHandler, which counts in EBX and returns.
constexpr std::uint32_t kIdt = 0x20000;
constexpr std::uint32_t kGdt = 0x21000;
constexpr std::uint32_t kHandler = 0x22000;

void give_handlers(Guest& guest) {
  std::byte* ram = guest.ram.data();
  store(ram + kGdt + 8, std::uint64_t{0x00cf9b000000ffff});
  store(ram + kGdt + 16, std::uint64_t{0x00cf93000000ffff});
  for (unsigned vector = 0; vector < 256; ++vector) {
    store(ram + kIdt + 8 * vector,
          std::uint64_t{kHandler & 0xffff} | 8u << 16 | 0x8e00ull << 32 | std::uint64_t{kHandler >> 16} << 48);
  }
  const unsigned char handler[] = {0x43, 0xcf};  // inc ebx; iret
  std::memcpy(ram + kHandler, handler, sizeof handler);
  auto sregs = guest.get<kvm_sregs>(KVM_GET_SREGS);
  sregs.gdt.base = kGdt;
  sregs.gdt.limit = 23;
  sregs.idt.base = kIdt;
  sregs.idt.limit = 0x7ff;
  REQUIRE(guest.set(KVM_SET_SREGS, sregs) == 0);
}

}  // namespace

TEST_CASE_METHOD(Guest, "an interrupt of user space's waits for its window", "[native]") {
  give_handlers(*this);
  code({0xe6, 0x80, 0xfb, 0x90, 0x90, 0xf4, 0xf4});  // out 0x80, al; sti; nop; nop; hlt; hlt
  run_area->request_interrupt_window = 1;
  expect_port(false, 1, 0x80);
  CHECK(run_area->ready_for_interrupt_injection == 0);
  CHECK(run_area->if_flag == 0);
  REQUIRE(run() == KVM_EXIT_IRQ_WINDOW_OPEN);
  CHECK(run_area->ready_for_interrupt_injection == 1);
  CHECK(run_area->if_flag == 1);
  CHECK(regs().rip == kCode + 4);  // STI holds it back for one instruction
  run_area->request_interrupt_window = 0;
  CHECK(set(KVM_INTERRUPT, kvm_interrupt{.irq = 256}) == -EINVAL);
  REQUIRE(set(KVM_INTERRUPT, kvm_interrupt{.irq = 0x30}) == 0);
  REQUIRE(run() == KVM_EXIT_HLT);
  CHECK(regs().rbx == 1);
  CHECK(regs().rip == kCode + 6);
}

TEST_CASE_METHOD(Guest, "NMIs come one at a time, until IRET", "[native]") {
  give_handlers(*this);
  const unsigned char handler[] = {0x43, 0xe6, 0x80, 0xcf};  // inc ebx; out 0x80, al; iret
  std::memcpy(ram.data() + kHandler, handler, sizeof handler);
  code({0x90, 0xf4});
  REQUIRE(call(vcpu, KVM_NMI) == 0);
  expect_port(false, 1, 0x80);
  CHECK(get<kvm_vcpu_events>(KVM_GET_VCPU_EVENTS).nmi.masked == 1);
  REQUIRE(call(vcpu, KVM_NMI) == 0);  // within the handler
  expect_port(false, 1, 0x80);
  CHECK(regs().rbx == 2);
  REQUIRE(run() == KVM_EXIT_HLT);
  CHECK(regs().rbx == 2);
  CHECK(get<kvm_vcpu_events>(KVM_GET_VCPU_EVENTS).nmi.masked == 0);
}

TEST_CASE("a guest that steps over an instruction that exits is trapped behind it", "[native]") {
  Guest guest;
  give_handlers(guest);
  guest.set_regs([](kvm_regs& r) { r.rflags |= 0x100; });
  const unsigned char handler[] = {0x43, 0xff, 0x04, 0x24, 0x81, 0x64, 0x24, 8, 0xff, 0xfe, 0xff, 0xff, 0xcf};
  // inc ebx; inc dword [esp]; and dword [esp + 8], ~TF; iret: one byte is skipped
  std::memcpy(guest.ram.data() + kHandler, handler, sizeof handler);
  std::uint64_t end = Guest::kCode + 4;
  SECTION("a port") {
    guest.code({0xe4, 0x71, 0xcc, 0xf4});
    guest.expect_port(true, 1, 0x71);
  }
  SECTION("CPUID") { guest.code({0x0f, 0xa2, 0xcc, 0xf4}); }
  SECTION("a device's memory") {
    guest.code({0xa0, 0, 0, 0, 0xd0, 0xcc, 0xf4});
    guest.expect_mmio(false, Guest::kDevice, 1);
    end = Guest::kCode + 7;
  }
  REQUIRE(guest.run() == KVM_EXIT_HLT);
  CHECK(guest.regs().rip == end);
  CHECK(guest.get<kvm_debugregs>(KVM_GET_DEBUGREGS).dr6 == 0xffff4ff0);
}

TEST_CASE_METHOD(Guest, "an exception that user space injects is the guest's") {
  give_handlers(*this);
  const unsigned char handler[] = {0x5b, 0xf4};  // pop ebx: the error code; hlt
  std::memcpy(ram.data() + kHandler, handler, sizeof handler);
  code({0xf4});
  kvm_vcpu_events events{};
  events.exception.injected = 1;
  events.exception.nr = 13;
  events.exception.has_error_code = 1;
  events.exception.error_code = 0x58;
  REQUIRE(set(KVM_SET_VCPU_EVENTS, events) == 0);
  REQUIRE(run() == KVM_EXIT_HLT);
  CHECK(regs().rbx == 0x58);
  CHECK(regs().rip == kHandler + 2);
}

TEST_CASE("a processor is started where the SIPI says, and INIT makes it begin anew", "[native]") {
  Guest guest(Guest::Irqchip::kKernel);
  const int second = guest.call(guest.vm, KVM_CREATE_VCPU, 1ul);
  REQUIRE(second >= 0);
  kvm_mp_state state{};
  REQUIRE(guest.call(second, KVM_GET_MP_STATE, &state) == 0);
  CHECK(state.mp_state == KVM_MP_STATE_UNINITIALIZED);
  kvm_regs dirty{};
  dirty.rbx = 7;
  dirty.rflags = 2;
  REQUIRE(guest.call(second, KVM_SET_REGS, &dirty) == 0);
  // INIT, then SIPI with vector 5, by the ICR of the local APIC.
  guest.code({0xbe, 0,    3,    0xe0, 0xfe,                                // mov esi, 0xfee00300
              0xc7, 0x46, 0x10, 0,    0,    0, 1,                          // mov dword [esi + 0x10], 1 << 24
              0xc7, 0x06, 0,    0x45, 0,    0, 0xc7, 0x06, 5, 0x46, 0, 0,  // INIT, SIPI
              0xe6, 0x80, 0xeb, 0xfe});                                    // out 0x80, al; jmp self
  const unsigned char real_mode[] = {0x8c, 0xc8, 0xe7, 0x81, 0xf4};        // mov ax, cs; out 0x81, ax; hlt
  std::memcpy(guest.ram.data() + 0x5000, real_mode, sizeof real_mode);
  guest.expect_port(false, 1, 0x80);
  int result = guest.call(second, KVM_RUN);
  if (result == -EAGAIN) result = guest.call(second, KVM_RUN);
  REQUIRE(result == 0);
  auto* run = static_cast<kvm_run*>(guest.host->mmap(second, kvm::kVcpuMmapSize));
  REQUIRE(run->exit_reason == KVM_EXIT_IO);
  CHECK(run->io.port == 0x81);
  CHECK(load<std::uint16_t>(reinterpret_cast<std::byte*>(run) + run->io.data_offset) == 0x500);
  kvm_regs regs{};
  REQUIRE(guest.call(second, KVM_GET_REGS, &regs) == 0);
  CHECK(regs.rbx == 0);
  guest.host->munmap(run, kvm::kVcpuMmapSize);
  guest.host->close(second);
}
