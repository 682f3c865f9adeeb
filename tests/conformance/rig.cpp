#include "rig.hpp"

#include <algorithm>
#include <csignal>
#include <cstring>
#include <sys/mman.h>
#include <sys/time.h>

#include "base/bytes.hpp"
#include "kvm/exit_name.hpp"

namespace sevisor::conformance {

namespace {

constexpr int kLongestRun = 20;  // seconds

// SIGALRM, again and again: the first may come before KVM_RUN is entered.
class RunTimer {
 public:
  RunTimer() {
    struct sigaction action {};
    action.sa_handler = [](int) {};
    ::sigaction(SIGALRM, &action, nullptr);
    set(kLongestRun);
  }
  ~RunTimer() { set(0); }
  RunTimer(const RunTimer&) = delete;
  RunTimer& operator=(const RunTimer&) = delete;

 private:
  static void set(int seconds) {
    const itimerval timer{.it_interval = {seconds != 0 ? 1 : 0, 0}, .it_value = {seconds, 0}};
    ::setitimer(ITIMER_REAL, &timer, nullptr);
  }
};

// APM vol. 2 section 5.3: long-mode page tables.
constexpr std::uint64_t kPml4 = 0x80000;
constexpr std::uint64_t kPdpt = 0x81000;
constexpr std::uint64_t kDirectories = 0x82000;
constexpr std::uint64_t kGdt = 0x84000;
constexpr std::uint64_t kDescriptors[] = {0, 0x00af9b000000ffff, 0x00cf93000000ffff};  // code of 64 bits, data
constexpr std::uint64_t kPresentWritable = 3;
constexpr std::uint64_t kLarge = 1 << 7;
constexpr std::uint64_t kGib = 1 << 30;
constexpr std::uint64_t kBigPage = 2 << 20;

kvm_segment segment(std::uint16_t selector, std::uint8_t type) {
  kvm_segment made{};
  made.selector = selector;
  made.limit = 0xffffffff;
  made.type = type;
  made.present = made.s = made.g = 1;
  return made;
}

}  // namespace

int answer(const kvm::HostFd& of, unsigned long request, void* argument) {
  const int result = of.ioctl(request, argument);
  return result < 0 ? -errno : result;
}
int answer_value(const kvm::HostFd& of, unsigned long request, unsigned long argument) {
  const int result = of.ioctl_value(request, argument);
  return result < 0 ? -errno : result;
}

Rig::Rig(Chips chips)
    : host(make_host()),
      kvm(kvm::Kvm::open(*host)),
      ram(Mapping::anonymous(kRamBytes, PROT_READ | PROT_WRITE)),
      vm(kvm.create_vm()) {
  // What Intel's processors want for real mode; others take no notice.
  if (kvm.capability(KVM_CAP_SET_TSS_ADDR) > 0) vm.set_tss_address(0xfffbd000);
  if (chips == Chips::kInKernel) vm.create_irqchip();
}

int Rig::slot(std::uint32_t id, std::uint64_t gpa, std::uint64_t size, std::byte* at, std::uint32_t flags) const {
  return answer_to(of_vm(), KVM_SET_USER_MEMORY_REGION,
                   kvm_userspace_memory_region{.slot = id,
                                               .flags = flags,
                                               .guest_phys_addr = gpa,
                                               .memory_size = size,
                                               .userspace_addr = reinterpret_cast<std::uintptr_t>(at)});
}

kvm::Vcpu& Rig::add_vcpu() {
  vcpus.push_back(vm.create_vcpu(static_cast<unsigned>(vcpus.size())));
  vcpus.back().set_cpuid(kvm.supported_cpuid());
  return vcpus.back();
}

void Rig::load(Code code) {
  REQUIRE(code.bytes().size() <= kPageSize);
  std::ranges::copy(code.bytes(), ram.data() + kCode);
  if (vcpus.empty()) {
    vm.set_memory_slot(0, Gpa(0), ram.bytes());
    add_vcpu();
  }
  kvm_sregs sregs = vcpus[0].sregs();
  for (kvm_segment* each : {&sregs.cs, &sregs.ds, &sregs.es, &sregs.fs, &sregs.gs, &sregs.ss}) {
    each->selector = 0;
    each->base = 0;
  }
  vcpus[0].set_sregs(sregs);
  kvm_regs start{};
  start.rip = kCode;
  start.rsp = kStack;
  start.rflags = 2;
  set_regs(start);
}

void Rig::load_long_mode(Code code) {
  load(code);
  const auto entry = [this](std::uint64_t at, std::size_t index, std::uint64_t value) {
    store(ram.data() + at + index * sizeof value, value);
  };
  entry(kPml4, 0, kPdpt | kPresentWritable);
  std::uint64_t directory = kDirectories;
  for (const std::uint64_t gib : {std::uint64_t{0}, kHole / kGib}) {
    entry(kPdpt, gib, directory | kPresentWritable);
    for (std::size_t i = 0; i < 512; ++i) entry(directory, i, (gib * kGib + i * kBigPage) | kPresentWritable | kLarge);
    directory += kPageSize;
  }
  for (std::size_t i = 0; i < std::size(kDescriptors); ++i) entry(kGdt, i, kDescriptors[i]);
  kvm_sregs sregs = vcpus[0].sregs();
  sregs.gdt.base = kGdt;
  sregs.gdt.limit = sizeof kDescriptors - 1;
  sregs.cs = segment(8, 0xb);
  sregs.cs.l = 1;
  sregs.ds = sregs.es = sregs.fs = sregs.gs = sregs.ss = segment(16, 3);
  for (kvm_segment* each : {&sregs.ds, &sregs.es, &sregs.fs, &sregs.gs, &sregs.ss}) each->db = 1;
  sregs.cr0 = 0x80000011;  // PG, ET, PE
  sregs.cr3 = kPml4;
  sregs.cr4 = 0x20;    // PAE
  sregs.efer = 0x500;  // LMA, LME
  vcpus[0].set_sregs(sregs);
}

Exit Rig::run(unsigned index) {
  const kvm::Vcpu& vcpu = vcpus.at(index);
  const RunTimer timer;
  Exit exit;
  exit.error_number = vcpu.run();
  if (exit.error_number == 0) exit.reason = vcpu.state().exit_reason;
  return exit;
}

kvm_run& Rig::run_to(std::uint32_t reason, unsigned index) {
  const Exit exit = run(index);
  INFO("KVM_RUN: errno " << exit.error_number << ", " << kvm::exit_reason_name(exit.reason) << ", wanted "
                         << kvm::exit_reason_name(reason));
  REQUIRE(exit.error_number == 0);
  REQUIRE(exit.reason == reason);
  return vcpus[index].state();
}

std::uint32_t Rig::next_report(std::uint16_t port) {
  const kvm_run& state = run_to(KVM_EXIT_IO);
  REQUIRE(state.io.direction == KVM_EXIT_IO_OUT);
  REQUIRE(state.io.port == port);
  std::uint32_t value = 0;
  std::memcpy(&value, reinterpret_cast<const std::byte*>(&state) + state.io.data_offset, state.io.size);
  return value;
}

kvm_regs Rig::regs(unsigned index) const {
  kvm_regs regs{};
  REQUIRE(answer(of_vcpu(index), KVM_GET_REGS, &regs) == 0);
  return regs;
}

void Rig::set_regs(const kvm_regs& regs, unsigned index) const { vcpus.at(index).set_regs(regs); }

}  // namespace sevisor::conformance
