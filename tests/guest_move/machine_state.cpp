#include "machine_state.hpp"

#include <cerrno>
#include <cstring>
#include <fmt/format.h>
#include <stdexcept>

namespace sevisor::test {

namespace {

constexpr std::uint32_t kMsrTscDeadline = 0x6e0;
constexpr std::uint32_t kMsrApicBase = 0x1b;
constexpr std::uint64_t kCr4Osxsave = 1 << 18;

// Beside those of KVM_GET_MSR_INDEX_LIST: the memory types (QEMU target/i386/kvm/kvm.c kvm_get_msrs()).
constexpr std::uint32_t kMtrrs[] = {0x200, 0x201, 0x202, 0x203, 0x204, 0x205, 0x206, 0x207, 0x208,
                                    0x209, 0x20a, 0x20b, 0x20c, 0x20d, 0x20e, 0x20f, 0x250, 0x258,
                                    0x259, 0x268, 0x269, 0x26a, 0x26b, 0x26c, 0x26d, 0x26e, 0x26f};

struct Fd {
  kvm::Host& host;
  int number;
  int ioctl(unsigned long request, void* argument) const { return host.ioctl(number, request, argument); }
};

void call(const Fd& fd, unsigned long request, void* argument, const char* name) {
  if (fd.ioctl(request, argument) < 0) throw std::runtime_error(fmt::format("{}: {}", name, std::strerror(errno)));
}

// One MSR; the array of struct kvm_msrs behind its header.
struct OneMsr {
  std::uint32_t count = 1;
  std::uint32_t pad = 0;
  kvm_msr_entry entry{};
};

std::vector<std::uint32_t> msr_indices(const Fd& kvm) {
  constexpr std::uint32_t kRoom = 1024;
  std::vector<std::uint32_t> list(1 + kRoom);
  list[0] = kRoom;
  call(kvm, KVM_GET_MSR_INDEX_LIST, list.data(), "KVM_GET_MSR_INDEX_LIST");
  std::vector<std::uint32_t> indices(list.begin() + 1, list.begin() + 1 + list[0]);
  indices.insert(indices.end(), std::begin(kMtrrs), std::end(kMtrrs));
  return indices;
}

VcpuState read_vcpu(const std::vector<std::uint32_t>& msrs, const Fd& fd) {
  VcpuState state;
  // First: KVM takes what an INIT or SIPI asks before it answers.
  call(fd, KVM_GET_MP_STATE, &state.mp_state, "KVM_GET_MP_STATE");
  if (kvm_sregs sregs{}; fd.ioctl(KVM_GET_SREGS, &sregs) == 0) state.sregs = sregs;
  if (kvm_xcrs xcrs{}; fd.ioctl(KVM_GET_XCRS, &xcrs) == 0) state.xcrs = xcrs;
  for (const std::uint32_t index : msrs) {
    OneMsr one;
    one.entry.index = index;
    if (fd.ioctl(KVM_GET_MSRS, &one) == 1) state.msrs.push_back(one.entry);
  }
  call(fd, KVM_GET_LAPIC, &state.lapic, "KVM_GET_LAPIC");
  call(fd, KVM_GET_VCPU_EVENTS, &state.events, "KVM_GET_VCPU_EVENTS");
  return state;
}

void write_msrs(const VcpuState& state, const Fd& fd, bool (*wanted)(std::uint32_t)) {
  for (const kvm_msr_entry& entry : state.msrs) {
    OneMsr one;
    one.entry = entry;
    if (wanted(entry.index) && fd.ioctl(KVM_SET_MSRS, &one) != 1) {
      throw std::runtime_error(fmt::format("KVM_SET_MSRS of {:#x} = {:#x} is refused", entry.index, entry.data));
    }
  }
}

}  // namespace

MachineState read_state(kvm::Host& host, int kvm, const MachineFds& machine) {
  MachineState state;
  const std::vector<std::uint32_t> msrs = msr_indices({host, kvm});
  for (const int vcpu : machine.vcpus) state.vcpus.push_back(read_vcpu(msrs, {host, vcpu}));
  const Fd vm{host, machine.vm};
  for (std::uint32_t i = 0; i < state.chips.size(); ++i) {
    state.chips[i].chip_id = i;
    call(vm, KVM_GET_IRQCHIP, &state.chips[i], "KVM_GET_IRQCHIP");
  }
  call(vm, KVM_GET_PIT2, &state.pit, "KVM_GET_PIT2");
  call(vm, KVM_GET_CLOCK, &state.clock, "KVM_GET_CLOCK");
  state.clock.flags = 0;
  return state;
}

void write_state_before(const MachineState& state, kvm::Host& host, const MachineFds& machine) {
  for (std::size_t i = 0; i < machine.vcpus.size(); ++i) {
    const Fd fd{host, machine.vcpus[i]};
    kvm_sregs sregs{};
    if (state.vcpus[i].sregs) {
      sregs = *state.vcpus[i].sregs;
    } else {
      // Else CPUID would say that the operating system has not enabled XSAVE; Linux does, wherever it can.
      call(fd, KVM_GET_SREGS, &sregs, "KVM_GET_SREGS");
      sregs.cr4 |= kCr4Osxsave;
    }
    call(fd, KVM_SET_SREGS, &sregs, "KVM_SET_SREGS");
    if (auto xcrs = state.vcpus[i].xcrs) call(fd, KVM_SET_XCRS, &*xcrs, "KVM_SET_XCRS");
  }
}

void write_state_after(const MachineState& state, kvm::Host& host, const MachineFds& machine) {
  MachineState copy = state;  // the calls take pointers to what they may write
  for (std::size_t i = 0; i < machine.vcpus.size(); ++i) {
    const Fd fd{host, machine.vcpus[i]};
    VcpuState& vcpu = copy.vcpus[i];
    // The local APIC's mode, its registers, and then the deadline, which counts in one mode of its timer alone.
    write_msrs(vcpu, fd, [](std::uint32_t index) { return index == kMsrApicBase; });
    call(fd, KVM_SET_LAPIC, &vcpu.lapic, "KVM_SET_LAPIC");
    write_msrs(vcpu, fd, [](std::uint32_t index) { return index != kMsrApicBase && index != kMsrTscDeadline; });
    write_msrs(vcpu, fd, [](std::uint32_t index) { return index == kMsrTscDeadline; });
    vcpu.events.flags = KVM_VCPUEVENT_VALID_NMI_PENDING | KVM_VCPUEVENT_VALID_SHADOW;
    call(fd, KVM_SET_VCPU_EVENTS, &vcpu.events, "KVM_SET_VCPU_EVENTS");
    call(fd, KVM_SET_MP_STATE, &vcpu.mp_state, "KVM_SET_MP_STATE");
  }
  const Fd vm{host, machine.vm};
  for (kvm_irqchip& chip : copy.chips) call(vm, KVM_SET_IRQCHIP, &chip, "KVM_SET_IRQCHIP");
  call(vm, KVM_SET_PIT2, &copy.pit, "KVM_SET_PIT2");
  call(vm, KVM_SET_CLOCK, &copy.clock, "KVM_SET_CLOCK");
}

}  // namespace sevisor::test
