// MSRs that user space answers, and the filter. Linux arch/x86/kvm/x86.c kvm_vm_ioctl_set_msr_filter().
#include <array>

#include "base/bytes.hpp"
#include "guests.hpp"

using namespace sevisor;
using namespace sevisor::conformance;

namespace {

constexpr std::uint32_t kOwn = 0xc0010130;  // what an SEV-ES guest has its GHCB's address in
constexpr std::uint32_t kUnknown = 0xdeadbeef;
constexpr std::uint32_t kGp = 0xd6d6;

int enable(const Rig& rig, std::uint64_t mask) {
  kvm_enable_cap cap{};
  cap.cap = KVM_CAP_X86_USER_SPACE_MSR;
  cap.args[0] = mask;
  return answer(rig.of_vm(), KVM_ENABLE_CAP, &cap);
}

void ask(Rig& rig, std::uint32_t index, bool write, std::uint64_t value = 0) {
  std::byte* at = rig.ram.data() + 0x2000;
  store(at, index);
  store(at + 8, value);
  store(at + 16, std::uint32_t{write});
}

// Nothing of [base, base + 8) is let through to KVM.
int deny(const Rig& rig, std::uint32_t base, std::uint32_t flags) {
  std::uint8_t bits = 0;
  kvm_msr_filter filter{};
  filter.flags = KVM_MSR_FILTER_DEFAULT_ALLOW;
  filter.ranges[0].flags = flags;
  filter.ranges[0].base = base;
  filter.ranges[0].nmsrs = 8;
  filter.ranges[0].bitmap = &bits;
  return answer(rig.of_vm(), KVM_X86_SET_MSR_FILTER, &filter);
}

}  // namespace

TEST_CASE("MSRs that the host does not know come out when user space wants them") {
  Rig rig(Rig::Chips::kInKernel);
  rig.load(msr_guest());
  CHECK(enable(rig, std::uint64_t{1} << 20) == -EINVAL);
  REQUIRE(enable(rig, KVM_MSR_EXIT_REASON_UNKNOWN) == 0);
  ask(rig, kUnknown, false);
  kvm_run& read = rig.run_to(KVM_EXIT_X86_RDMSR);
  CHECK(read.msr.index == kUnknown);
  CHECK(read.msr.reason == KVM_MSR_EXIT_REASON_UNKNOWN);
  read.msr.data = 0x1122334455667788;
  read.msr.error = 0;
  CHECK(rig.next_report() == 0x55667788);
  CHECK(load<std::uint32_t>(rig.ram.data() + 0x201c) == 0x11223344);
  ask(rig, kUnknown, true, 0x99);
  kvm_run& write = rig.run_to(KVM_EXIT_X86_WRMSR);
  CHECK(write.msr.data == 0x99);
  write.msr.error = 1;
  CHECK(rig.next_report() == kGp);
}

TEST_CASE("filtered MSRs: #GP, or out to user space") {
  Rig rig(Rig::Chips::kInKernel);
  rig.load(msr_guest());
  REQUIRE(deny(rig, 0xc0000080, KVM_MSR_FILTER_READ | KVM_MSR_FILTER_WRITE) == 0);
  ask(rig, 0xc0000082, false);
  CHECK(rig.next_report() == kGp);
  REQUIRE(enable(rig, KVM_MSR_EXIT_REASON_FILTER) == 0);
  kvm_run& read = rig.run_to(KVM_EXIT_X86_RDMSR);
  CHECK(read.msr.index == 0xc0000082);
  CHECK(read.msr.reason == KVM_MSR_EXIT_REASON_FILTER);
  read.msr.data = 0x1234;
  read.msr.error = 0;
  CHECK(rig.next_report() == 0x1234);
  ask(rig, 0x277, false);  // not in the range
  CHECK(rig.next_report() == 0x00070406);
  // A filter for writes lets reads through.
  REQUIRE(deny(rig, 0x270, KVM_MSR_FILTER_WRITE) == 0);
  ask(rig, 0x277, false);
  CHECK(rig.next_report() == 0x00070406);
  ask(rig, 0x277, true, 5);
  kvm_run& write = rig.run_to(KVM_EXIT_X86_WRMSR);
  CHECK(write.msr.data == 5);
  write.msr.error = 0;
  CHECK(rig.next_report() == 0x600d);
  ask(rig, 0x277, false);
  CHECK(rig.next_report() == 0x00070406);  // user space took it
}

TEST_CASE("what a filter may be") {
  const Rig rig;
  kvm_msr_filter filter{};
  filter.flags = 1 << 9;
  CHECK(answer(rig.of_vm(), KVM_X86_SET_MSR_FILTER, &filter) == -EINVAL);
  filter = {};
  filter.flags = KVM_MSR_FILTER_DEFAULT_DENY;
  CHECK(answer(rig.of_vm(), KVM_X86_SET_MSR_FILTER, &filter) == -EINVAL);  // denies all, and has no range
  filter.flags = KVM_MSR_FILTER_DEFAULT_ALLOW;
  CHECK(answer(rig.of_vm(), KVM_X86_SET_MSR_FILTER, &filter) == 0);
  CHECK(deny(rig, kOwn, 1 << 7) == -EINVAL);
}
