// Interrupts into a running guest, with and without interrupt controllers in the host.
// Linux arch/x86/kvm/x86.c, lapic.c, irq.c.
#include <algorithm>
#include <csignal>
#include <thread>

#include "base/bytes.hpp"
#include "guests.hpp"

using namespace sevisor;
using namespace sevisor::conformance;

namespace {

constexpr std::uint32_t kVector = 0x40;
constexpr std::uint32_t kAfterHlt = 0x5a;
constexpr std::uint64_t kMsiAddress = 0xfee00000;

struct Delivery {
  const char* name;
  std::uint32_t what;  // VALUE of the guest lapic
};

kvm_msi msi_for(std::uint32_t apic) {
  kvm_msi msi{};
  msi.address_lo = static_cast<std::uint32_t>(kMsiAddress | apic << 12);
  msi.data = kVector;
  return msi;
}

// The guest `interrupts` up to its STI.
void start(Rig& rig) {
  rig.load(interrupts_guest());
  REQUIRE(rig.next_report() == 1);
}

}  // namespace

TEST_CASE("KVM_INTERRUPT and the window for it, without a controller in the host") {
  Rig rig;
  rig.load(interrupts_guest());
  kvm_run& state = rig.vcpus[0].state();
  state.request_interrupt_window = 1;
  REQUIRE(rig.next_report() == 1);
  CHECK(state.if_flag == 0);
  CHECK(state.ready_for_interrupt_injection == 0);
  (void)rig.run_to(KVM_EXIT_IRQ_WINDOW_OPEN);
  CHECK(state.if_flag == 1);
  CHECK(state.ready_for_interrupt_injection == 1);
  state.request_interrupt_window = 0;
  CHECK(answer_to(rig.of_vcpu(), KVM_INTERRUPT, kvm_interrupt{kVector}) == 0);
  CHECK(answer_to(rig.of_vcpu(), KVM_INTERRUPT, kvm_interrupt{300}) == -EINVAL);
  CHECK(rig.next_report() == kVector);
  (void)rig.run_to(KVM_EXIT_HLT);
}

TEST_CASE("KVM_INTERRUPT is not for a VM with all controllers in the host") {
  Rig rig(Rig::Chips::kInKernel);
  rig.add_vcpu();
  CHECK(answer_to(rig.of_vcpu(), KVM_INTERRUPT, kvm_interrupt{kVector}) == -ENXIO);
}

TEST_CASE("an NMI goes through vector 2") {
  Rig rig;
  start(rig);
  CHECK(answer(rig.of_vcpu(), KVM_NMI) == 0);
  kvm_vcpu_events events{};
  REQUIRE(answer(rig.of_vcpu(), KVM_GET_VCPU_EVENTS, &events) == 0);
  CHECK(events.nmi.pending == 1);
  CHECK(rig.next_report() == 2);
  (void)rig.run_to(KVM_EXIT_HLT);
}

TEST_CASE("an exception by KVM_SET_VCPU_EVENTS") {
  Rig rig;
  rig.load(ud2_guest());
  CHECK(rig.next_report() == 6);
  CHECK(rig.next_report() == 2);
  kvm_vcpu_events events{};
  REQUIRE(answer(rig.of_vcpu(), KVM_GET_VCPU_EVENTS, &events) == 0);
  events.exception.injected = 1;
  events.exception.nr = 6;
  CHECK(answer(rig.of_vcpu(), KVM_SET_VCPU_EVENTS, &events) == 0);
  CHECK(rig.next_report() == 6);
}

TEST_CASE("an MSI wakes a halted vCPU") {
  Rig rig(Rig::Chips::kInKernel);
  rig.load_long_mode(lapic_guest());
  store(rig.ram.data() + 0x2000, std::uint32_t{3});
  REQUIRE(rig.next_report() == kVector);  // to itself: the local APIC is on now
  CHECK(answer_to(rig.of_vm(), KVM_SIGNAL_MSI, msi_for(0)) == 1);
  CHECK(rig.next_report() == kVector);
  CHECK(answer_to(rig.of_vm(), KVM_SIGNAL_MSI, msi_for(9)) <= 0);  // nobody has this number
}

TEST_CASE("the local APIC's own interrupts") {
  const Delivery delivery =
      GENERATE(Delivery{"timer", 1}, Delivery{"TSC deadline", 2}, Delivery{"an IPI to itself", 3});
  INFO(delivery.name);
  Rig rig(Rig::Chips::kInKernel);
  rig.load_long_mode(lapic_guest());
  kvm::CpuidTable table = rig.kvm.supported_cpuid();
  for (kvm_cpuid_entry2& entry : table) {
    if (entry.function == 1) entry.ecx |= 1U << 24;  // TSC deadline
  }
  rig.vcpus[0].set_cpuid(table);
  store(rig.ram.data() + 0x2000, delivery.what);
  CHECK(rig.next_report() == kVector);
}

TEST_CASE("INIT and SIPI start another vCPU at the page of the SIPI's vector") {
  Rig rig(Rig::Chips::kInKernel);
  rig.load_long_mode(start_other_guest());
  std::ranges::copy(started_guest().bytes(), rig.ram.data() + 0x5000);
  rig.add_vcpu();
  std::thread other([&rig] {
    // KVM sends user space once round when a vCPU is initialised; then it is halted until it is told to leave.
    int error_number = EAGAIN;
    while (error_number == EAGAIN) error_number = rig.vcpus[1].run();
  });
  CHECK(rig.next_report() == 0x500);  // its CS
  rig.vcpus[1].set_immediate_exit(true);
  ::pthread_kill(other.native_handle(), SIGALRM);
  other.join();
  kvm_sregs sregs = rig.vcpus[1].sregs();
  CHECK(sregs.cs.selector == 0x500);
  CHECK(sregs.cs.base == 0x5000);
}

TEST_CASE("the bits that say what an interrupt may do are in the run area") {
  Rig rig(Rig::Chips::kInKernel);
  start(rig);
  const kvm_run& state = rig.vcpus[0].state();
  CHECK(state.if_flag == 0);
  CHECK(state.cr8 == 0);
  CHECK((state.apic_base & 0xfffff000) == kMsiAddress);
}
