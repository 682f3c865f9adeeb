// What a VM asks of user space that KVM could answer itself: KVM_CAP_EXIT_HYPERCALL, KVM_CAP_X86_USER_SPACE_MSR and
// KVM_X86_SET_MSR_FILTER. Errnos were read from a live Linux 6.18 kernel; the guest's side is that of Linux
// arch/x86/kvm/x86.c.
#include "tests/emulator_kvm/run_fixture.hpp"

using namespace sevisor;
using namespace sevisor::test;
using emulator::RunControls;

namespace {

int enable(HostFixture& host, std::uint32_t capability, std::uint64_t argument) {
  kvm_enable_cap cap{};
  cap.cap = capability;
  cap.args[0] = argument;
  return host.call(host.vm, KVM_ENABLE_CAP, &cap);
}

emulator::CpuExit hypercall(Guest& guest, std::uint64_t number, std::uint64_t first, std::uint64_t second,
                            std::uint64_t third, std::uint8_t cpl = 0) {
  const emulator::CpuExit exit = ask(guest, ghcb::kExitVmmcall, 0, 0, number);
  ghcb::Page& page = page_of(guest);
  page.rbx = first;
  page.rcx = second;
  page.rdx = third;
  page.cpl = cpl;
  for (const auto field : {ghcb::Field::kRbx, ghcb::Field::kCpl}) page.valid.set(field);
  return exit;
}

emulator::CpuExit msr(Guest& guest, std::uint32_t index, bool write = false, std::uint64_t value = 0) {
  const emulator::CpuExit exit = ask(guest, ghcb::kExitMsr, write ? 1 : 0, 0, value & 0xffffffff);
  page_of(guest).rcx = index;
  page_of(guest).rdx = value >> 32;
  return exit;
}

struct MsrAnswer {
  std::uint64_t result = 0;  // exit_info_1: 1 with an exception
  std::uint64_t value = 0;
};
MsrAnswer answer(Guest& guest) {
  const ghcb::Page& page = page_of(guest);
  return {.result = page.exit_info_1, .value = page.rdx << 32 | page.rax};
}

struct Filter {
  kvm_msr_filter filter{};
  std::vector<std::uint8_t> bits = std::vector<std::uint8_t>(0x700);
  explicit Filter(std::uint32_t flags = 0) { filter.flags = flags; }
  Filter& range(unsigned number, std::uint32_t flags, std::uint32_t first, std::uint32_t count) {
    filter.ranges[number] = {.flags = flags, .nmsrs = count, .base = first, .bitmap = bits.data()};
    return *this;
  }
  int set(HostFixture& host) { return host.call(host.vm, KVM_X86_SET_MSR_FILTER, &filter); }
};

constexpr std::uint32_t kRead = KVM_MSR_FILTER_READ;
constexpr std::uint32_t kWrite = KVM_MSR_FILTER_WRITE;

}  // namespace

TEST_CASE_METHOD(HostFixture, "which hypercalls and MSRs may exit") {
  CHECK(call(kvm_fd, KVM_CHECK_EXTENSION, 201ul) == 0x1000);
  CHECK(call(kvm_fd, KVM_CHECK_EXTENSION, 188ul) == 1);
  CHECK(enable(*this, KVM_CAP_EXIT_HYPERCALL, 1 << 12) == 0);
  CHECK(enable(*this, KVM_CAP_EXIT_HYPERCALL, 1) == -EINVAL);
  CHECK(enable(*this, KVM_CAP_EXIT_HYPERCALL, 1 << 13) == -EINVAL);
  CHECK(enable(*this, KVM_CAP_EXIT_HYPERCALL, 0) == 0);
  CHECK(enable(*this, KVM_CAP_X86_USER_SPACE_MSR, 7) == 0);
  CHECK(enable(*this, KVM_CAP_X86_USER_SPACE_MSR, 8) == -EINVAL);
}

TEST_CASE_METHOD(HostFixture, "KVM_X86_SET_MSR_FILTER's errors") {
  CHECK(Filter().set(*this) == 0);
  CHECK(Filter(KVM_MSR_FILTER_DEFAULT_DENY).set(*this) == -EINVAL);
  CHECK(Filter(2).set(*this) == -EINVAL);
  CHECK(Filter().range(0, kRead, 0x35, 1).set(*this) == 0);  // QEMU's
  CHECK(Filter().range(0, 0, 0x35, 1).set(*this) == -EINVAL);
  CHECK(Filter().range(0, 4, 0x35, 1).set(*this) == -EINVAL);
  CHECK(Filter().range(0, 8, 0x35, 0).range(15, kRead, 0x35, 1).set(*this) == 0);
  CHECK(Filter(KVM_MSR_FILTER_DEFAULT_DENY).range(1, kRead, 0x35, 1).set(*this) == 0);
  CHECK(Filter().range(0, kRead, 0, 0x600 * 8).set(*this) == 0);
  CHECK(Filter().range(0, kRead, 0, 0x600 * 8 + 1).set(*this) == -EINVAL);
  CHECK(Filter().range(0, kRead, 0, 0xffffffff).set(*this) == -EINVAL);
  Filter bad = Filter().range(0, kRead, 0, 1);
  bad.filter.ranges[0].bitmap = nullptr;
  CHECK(bad.set(*this) == -EFAULT);
  CHECK(call(vm, KVM_X86_SET_MSR_FILTER) == -EFAULT);
}

TEST_CASE_METHOD(RunFixture, "without user space's consent KVM does not know what the guest says of its pages") {
  int step = 0;
  std::int64_t rax = 7;
  set_guest_code(0, [&](Guest& guest, const RunControls&) {
    if (step++ == 0) return hypercall(guest, 12, 0x1000, 1, 0);
    rax = static_cast<std::int64_t>(page_of(guest).rax);
    return exit_with(ghcb::kExitShutdown);
  });
  CHECK(run() == 0);
  CHECK(state().exit_reason == KVM_EXIT_SHUTDOWN);
  CHECK(rax == -1000);
}

TEST_CASE_METHOD(RunFixture, "what the guest says of its pages goes to user space, whose answer is RAX") {
  REQUIRE(enable(*this, KVM_CAP_EXIT_HYPERCALL, 1 << 12) == 0);
  struct Call {
    std::uint64_t number, gpa, pages;
    std::uint8_t cpl;
  };
  const std::vector<Call> calls = {
      {12, 0x1000, 1, 3}, {12, 0x1001, 1, 0}, {12, 0x1000, 0, 0},    {12, 0x1000, ~std::uint64_t{0}, 0},
      {1, 0, 0, 0},       {5, 0, 0, 0},       {12, 0x200000, 512, 0}};
  std::vector<std::int64_t> answers;
  std::size_t step = 0;
  set_guest_code(0, [&](Guest& guest, const RunControls&) {
    if (step != 0) answers.push_back(static_cast<std::int64_t>(page_of(guest).rax));
    if (step == calls.size()) return exit_with(ghcb::kExitShutdown);
    const Call& call = calls[step++];
    return hypercall(guest, call.number, call.gpa, call.pages, 0x10, call.cpl);
  });
  CHECK(run() == 0);
  REQUIRE(state().exit_reason == KVM_EXIT_HYPERCALL);
  CHECK(answers == std::vector<std::int64_t>{-1, -22, -22, -22, 0, -1000});
  CHECK(state().hypercall.nr == 12);
  CHECK(state().hypercall.args[0] == 0x200000);
  CHECK(state().hypercall.args[1] == 512);
  CHECK(state().hypercall.args[2] == 0x10);
  CHECK(state().hypercall.ret == 0);
  CHECK(state().hypercall.longmode == 1);  // bit 0 of flags: a 64-bit guest
  state().hypercall.ret = static_cast<std::uint64_t>(-95);
  CHECK(run() == 0);
  CHECK(state().exit_reason == KVM_EXIT_SHUTDOWN);
  CHECK(answers.back() == -95);
}

TEST_CASE_METHOD(RunFixture, "refused MSRs exit for the reasons that were asked for, and user space answers") {
  REQUIRE(enable(*this, KVM_CAP_X86_USER_SPACE_MSR, 7) == 0);
  Filter filter;
  filter.range(0, kRead | kWrite, 0x1a0, 2).range(1, kRead, 0xfe, 1);  // none of these bits is set
  filter.bits[0] = 2;                                                  // but that of 0x1a1
  REQUIRE(filter.set(*this) == 0);
  std::vector<MsrAnswer> answers;
  int step = 0;
  set_guest_code(0, [&](Guest& guest, const RunControls&) {
    if (step != 0) answers.push_back(answer(guest));
    switch (step++) {
      case 0:
        return msr(guest, 0x1a0);  // filtered
      case 1:
        return msr(guest, 0x1a0, true, 0x1'2222'3333);
      case 2:
        return msr(guest, 0xfe, true, 0x508);  // only reads are filtered
      case 3:
        return msr(guest, 0xfe, true, 1);  // not a value that it takes
      case 4:
        return msr(guest, 0x1a1);  // there is none
      case 5:
        return msr(guest, 0x1b);
      default:
        return exit_with(ghcb::kExitShutdown);
    }
  });
  CHECK(run() == 0);
  REQUIRE(state().exit_reason == KVM_EXIT_X86_RDMSR);
  CHECK(state().msr.error == 0);
  CHECK(state().msr.reason == KVM_MSR_EXIT_REASON_FILTER);
  CHECK(state().msr.index == 0x1a0);
  state().msr.data = 0x5555'0000'6666;
  CHECK(run() == 0);
  REQUIRE(state().exit_reason == KVM_EXIT_X86_WRMSR);
  CHECK(answers.back().result == 0);
  CHECK(answers.back().value == 0x5555'0000'6666);
  CHECK(state().msr.reason == KVM_MSR_EXIT_REASON_FILTER);
  CHECK(state().msr.data == 0x1'2222'3333);
  CHECK(run() == 0);
  REQUIRE(state().exit_reason == KVM_EXIT_X86_WRMSR);
  REQUIRE(answers.size() == 3);
  CHECK(answers[1].result == 0);
  CHECK(answers[2].result == 0);
  CHECK(state().msr.index == 0xfe);
  CHECK(state().msr.reason == KVM_MSR_EXIT_REASON_INVAL);
  state().msr.error = 1;
  CHECK(run() == 0);
  REQUIRE(state().exit_reason == KVM_EXIT_X86_RDMSR);
  CHECK(answers.back().result == 1);
  CHECK(state().msr.index == 0x1a1);
  CHECK(state().msr.reason == KVM_MSR_EXIT_REASON_UNKNOWN);
  CHECK(state().msr.error == 0);
  state().msr.error = 1;
  CHECK(run() == 0);
  CHECK(state().exit_reason == KVM_EXIT_SHUTDOWN);
  CHECK(answers[answers.size() - 2].result == 1);
  CHECK(answers.back().result == 0);
  CHECK((answers.back().value & ~std::uint64_t{0xfff}) == 0xfee00000);
}

TEST_CASE_METHOD(RunFixture, "a filter alone gives #GP, to the guest and not to user space") {
  Filter filter(KVM_MSR_FILTER_DEFAULT_DENY);
  filter.range(0, kRead | kWrite, 0xfe, 1);
  filter.bits[0] = 1;
  REQUIRE(filter.set(*this) == 0);
  std::vector<MsrAnswer> answers;
  int step = 0;
  set_guest_code(0, [&](Guest& guest, const RunControls&) {
    if (step != 0) answers.push_back(answer(guest));
    switch (step++) {
      case 0:
        return msr(guest, 0xfe);
      case 1:
        return msr(guest, 0x1a0);
      case 2:
        return msr(guest, 0x1b, true, 0xfee00d00);
      case 3:
        return msr(guest, 0x802);  // an x2APIC is not filtered, and this one is none
      default:
        return exit_with(ghcb::kExitShutdown);
    }
  });
  CHECK(run() == 0);
  CHECK(state().exit_reason == KVM_EXIT_SHUTDOWN);
  REQUIRE(answers.size() == 4);
  CHECK(answers[0].result == 0);
  CHECK(answers[0].value == 0x508);
  CHECK(answers[1].result == 1);
  CHECK(answers[2].result == 1);
  CHECK(answers[3].result == 1);
  // With the APIC in x2APIC mode the register is read, filter or not; KVM_SET_MSRS and KVM_GET_MSRS see all.
  struct {
    kvm_msrs header;
    kvm_msr_entry entry;
  } msrs{};
  msrs.header.nmsrs = 1;
  msrs.entry.index = 0x1b;
  msrs.entry.data = 0xfee00d00;
  REQUIRE(call(vcpus[0], KVM_SET_MSRS, &msrs) == 1);
  step = 3;
  CHECK(run() == 0);
  CHECK(answers.back().result == 0);
}
