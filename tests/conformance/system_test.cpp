// /dev/kvm itself, and what is no ioctl of a descriptor. Linux virt/kvm/kvm_main.c kvm_dev_ioctl(),
// arch/x86/kvm/x86.c kvm_arch_dev_ioctl().
#include <array>

#include "rig.hpp"

using namespace sevisor;
using namespace sevisor::conformance;

namespace {
// What a lean VMM needs, each with a value above 0.
constexpr int kNeeded[] = {KVM_CAP_IRQCHIP,
                           KVM_CAP_USER_MEMORY,
                           KVM_CAP_SET_TSS_ADDR,
                           KVM_CAP_EXT_CPUID,
                           KVM_CAP_NR_VCPUS,
                           KVM_CAP_NR_MEMSLOTS,
                           KVM_CAP_PIT2,
                           KVM_CAP_PIT_STATE2,
                           KVM_CAP_MP_STATE,
                           KVM_CAP_DESTROY_MEMORY_REGION_WORKS,
                           KVM_CAP_JOIN_MEMORY_REGIONS_WORKS,
                           KVM_CAP_IRQ_ROUTING,
                           KVM_CAP_IRQ_INJECT_STATUS,
                           KVM_CAP_IRQFD,
                           KVM_CAP_IOEVENTFD,
                           KVM_CAP_IOEVENTFD_ANY_LENGTH,
                           KVM_CAP_COALESCED_MMIO,
                           KVM_CAP_COALESCED_PIO,
                           KVM_CAP_VCPU_EVENTS,
                           KVM_CAP_DEBUGREGS,
                           KVM_CAP_XSAVE,
                           KVM_CAP_XCRS,
                           KVM_CAP_GET_TSC_KHZ,
                           KVM_CAP_MAX_VCPUS,
                           KVM_CAP_TSC_DEADLINE_TIMER,
                           KVM_CAP_SIGNAL_MSI,
                           KVM_CAP_READONLY_MEM,
                           KVM_CAP_ENABLE_CAP_VM,
                           KVM_CAP_CHECK_EXTENSION_VM,
                           KVM_CAP_SPLIT_IRQCHIP,
                           KVM_CAP_MAX_VCPU_ID,
                           KVM_CAP_X2APIC_API,
                           KVM_CAP_IMMEDIATE_EXIT,
                           KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2,
                           KVM_CAP_X86_USER_SPACE_MSR,
                           KVM_CAP_X86_MSR_FILTER,
                           KVM_CAP_EXIT_HYPERCALL,
                           KVM_CAP_SREGS2,
                           KVM_CAP_SYS_ATTRIBUTES,
                           KVM_CAP_SET_GUEST_DEBUG,
                           KVM_CAP_SYNC_REGS};
}  // namespace

TEST_CASE("the API's version and the size of a run area") {
  const Rig rig;
  CHECK(answer(rig.system(), KVM_GET_API_VERSION) == 12);
  CHECK(answer_value(rig.system(), KVM_GET_API_VERSION, 1) == -EINVAL);
  CHECK(answer(rig.system(), KVM_GET_VCPU_MMAP_SIZE) == 12288);
  CHECK(answer_value(rig.system(), KVM_GET_VCPU_MMAP_SIZE, 1) == -EINVAL);
}

TEST_CASE("what is no ioctl of a descriptor, by its kind") {
  Rig rig;
  rig.add_vcpu();
  constexpr unsigned long kNone = 0xaeff;
  CHECK(answer(rig.system(), kNone) == -EINVAL);
  CHECK(answer(rig.of_vm(), kNone) == -ENOTTY);
  CHECK(answer(rig.of_vcpu(), kNone) == -EINVAL);
  // A number with the size that C++ gives the struct is another number.
  CHECK(answer(rig.system(), 0xc00cae05) == -EINVAL);
  CHECK(answer(rig.of_vm(), 0x4010ae6a) == -ENOTTY);
  CHECK(answer(rig.of_vcpu(), 0x400cae90) == -EINVAL);
  // The same low byte is another call of another descriptor.
  CHECK(answer(rig.of_vm(), KVM_GET_VCPU_EVENTS) == -ENOTTY);
  CHECK(answer(rig.of_vm(), KVM_SET_XSAVE) == -ENOTTY);
  CHECK(answer(rig.of_vcpu(), KVM_GET_PIT2) == -EINVAL);
  CHECK(answer(rig.of_vcpu(), KVM_SIGNAL_MSI) == -EINVAL);
  // Calls of other descriptors.
  CHECK(answer(rig.system(), KVM_RUN) == -EINVAL);
  CHECK(answer(rig.of_vm(), KVM_RUN) == -ENOTTY);
  CHECK(answer(rig.of_vcpu(), KVM_CREATE_VCPU) == -EINVAL);
}

TEST_CASE("VM types beyond those of KVM_CAP_VM_TYPES") {
  const Rig rig;
  const auto types = static_cast<unsigned>(rig.kvm.capability(kvm::kCapVmTypes));
  for (unsigned type = 1; type < 32; ++type) {
    if ((types >> type & 1) != 0) continue;
    INFO("type " << type);
    CHECK(answer_value(rig.system(), KVM_CREATE_VM, type) == -EINVAL);
  }
  CHECK(answer_value(rig.system(), KVM_CREATE_VM, 1ul << 40) == -EINVAL);
}

TEST_CASE("capabilities, of /dev/kvm and of a VM") {
  const Rig rig;
  for (const int capability : kNeeded) {
    INFO("capability " << capability);
    CHECK(answer_value(rig.system(), KVM_CHECK_EXTENSION, static_cast<unsigned long>(capability)) > 0);
    CHECK(answer_value(rig.of_vm(), KVM_CHECK_EXTENSION, static_cast<unsigned long>(capability)) > 0);
  }
  for (const unsigned long none : {9999ul, 0xfffffffful}) {
    CHECK(answer_value(rig.system(), KVM_CHECK_EXTENSION, none) == 0);
    CHECK(answer_value(rig.of_vm(), KVM_CHECK_EXTENSION, none) == 0);
  }
  // Values that are the API's, not the machine's.
  for (const int capability : {KVM_CAP_COALESCED_MMIO, KVM_CAP_IRQ_ROUTING, KVM_CAP_XSAVE, KVM_CAP_MP_STATE,
                               KVM_CAP_X86_USER_SPACE_MSR, KVM_CAP_NR_MEMSLOTS}) {
    note("capability " + std::to_string(capability), static_cast<std::uint64_t>(rig.kvm.capability(capability)));
  }
}

TEST_CASE("the CPUID leaves of the host") {
  const Rig rig;
  struct {
    kvm_cpuid2 header;
    kvm_cpuid_entry2 entries[256];
  } table{};
  CHECK(answer(rig.system(), KVM_GET_SUPPORTED_CPUID, &table) == -E2BIG);
  table.header.nent = 1;
  CHECK(answer(rig.system(), KVM_GET_SUPPORTED_CPUID, &table) == -E2BIG);
  CHECK(table.header.nent == 1);  // it does not say how many
  table.header.nent = 256;
  CHECK(answer(rig.system(), KVM_GET_SUPPORTED_CPUID, &table) == 0);
  CHECK(table.header.nent > 0);
  CHECK(table.header.nent < 256);
  CHECK(answer_value(rig.system(), KVM_GET_SUPPORTED_CPUID, 0x10) == -EFAULT);
}

TEST_CASE("the list of MSRs") {
  Rig rig;
  rig.add_vcpu();
  const unsigned long request = GENERATE(as<unsigned long>{}, KVM_GET_MSR_INDEX_LIST, KVM_GET_MSR_FEATURE_INDEX_LIST);
  struct {
    kvm_msr_list header;
    std::uint32_t indices[512];
  } list{};
  const int nothing = answer(rig.system(), request, &list);
  const std::uint32_t count = list.header.nmsrs;
  CHECK(nothing == (count == 0 ? 0 : -E2BIG));
  REQUIRE(count <= 512);
  CHECK(answer(rig.system(), request, &list) == 0);
  CHECK(list.header.nmsrs == count);
}

TEST_CASE("each MSR of the list can be read, and set to what it was") {
  Rig rig(Rig::Chips::kInKernel);
  rig.add_vcpu();
  struct {
    kvm_msr_list header;
    std::uint32_t indices[512];
  } list{};
  list.header.nmsrs = 512;
  REQUIRE(answer(rig.system(), KVM_GET_MSR_INDEX_LIST, &list) == 0);
  for (std::uint32_t i = 0; i < list.header.nmsrs; ++i) {
    INFO("MSR " << std::hex << list.indices[i]);
    struct {
      kvm_msrs header;
      kvm_msr_entry entry;
    } one{};
    one.header.nmsrs = 1;
    one.entry.index = list.indices[i];
    CHECK(answer(rig.of_vcpu(), KVM_GET_MSRS, &one) == 1);
    CHECK(answer(rig.of_vcpu(), KVM_SET_MSRS, &one) == 1);
  }
}

TEST_CASE("attributes of /dev/kvm") {
  const Rig rig;
  std::uint64_t value = 0;
  const auto ask = [&](unsigned long request, std::uint32_t group, std::uint64_t attribute) {
    return answer_to(
        rig.system(), request,
        kvm_device_attr{
            .flags = 0, .group = group, .attr = attribute, .addr = reinterpret_cast<std::uintptr_t>(&value)});
  };
  CHECK(ask(KVM_HAS_DEVICE_ATTR, 0, KVM_X86_XCOMP_GUEST_SUPP) == 0);
  CHECK(ask(KVM_GET_DEVICE_ATTR, 0, KVM_X86_XCOMP_GUEST_SUPP) == 0);
  CHECK((value & 3) == 3);  // x87 and SSE
  CHECK(ask(KVM_HAS_DEVICE_ATTR, 0, 77) == -ENXIO);
  CHECK(ask(KVM_GET_DEVICE_ATTR, 9, 0) == -ENXIO);
}
