// The ABI of /dev/kvm and /dev/sev as a C++ program may use it: the kernel's headers with C sizes, and what Debian 12's
// headers do not know yet. Include this, never <linux/kvm.h> itself.
//
// Linux 6.1.y's <linux/stddef.h> makes a flexible array out of an empty struct and an array; an empty struct has size 1
// in C++, which moves the arrays and changes 17 ioctl numbers. The macro is replaced by the zero-length array that C
// has in effect, and the sizes and numbers that depend on it are checked below.
#pragma once

#include <linux/stddef.h>
#include <linux/types.h>

#undef __DECLARE_FLEX_ARRAY
#define __DECLARE_FLEX_ARRAY(TYPE, NAME) TYPE NAME[0]  // NOLINT: the kernel's name

#include <cstddef>
#include <cstdint>
#include <linux/kvm.h>
#include <linux/psp-sev.h>

// Sizes in C, with their ioctl numbers (Linux 6.1 include/uapi/linux/kvm.h, arch/x86/include/uapi/asm/kvm.h).
static_assert(sizeof(kvm_cpuid2) == 8 && offsetof(kvm_cpuid2, entries) == 8);
static_assert(sizeof(kvm_cpuid) == 8 && offsetof(kvm_cpuid, entries) == 8);
static_assert(sizeof(kvm_cpuid_entry2) == 40);
static_assert(sizeof(kvm_msrs) == 8 && offsetof(kvm_msrs, entries) == 8 && sizeof(kvm_msr_entry) == 16);
static_assert(sizeof(kvm_msr_list) == 4 && offsetof(kvm_msr_list, indices) == 4);
static_assert(sizeof(kvm_irq_routing) == 8 && offsetof(kvm_irq_routing, entries) == 8);
static_assert(sizeof(kvm_irq_routing_entry) == 48);
static_assert(sizeof(kvm_signal_mask) == 4 && offsetof(kvm_signal_mask, sigset) == 4);
static_assert(sizeof(kvm_xsave) == 4096);
static_assert(sizeof(kvm_pmu_event_filter) == 32);
static_assert(sizeof(kvm_reg_list) == 8);
static_assert(sizeof(kvm_coalesced_mmio_ring) == 8 && offsetof(kvm_coalesced_mmio_ring, coalesced_mmio) == 8);
static_assert(sizeof(kvm_coalesced_mmio) == 24);
static_assert(sizeof(kvm_stats_desc) == 16);
static_assert(sizeof(kvm_userspace_memory_region) == 32 && sizeof(kvm_enc_region) == 16);
static_assert(sizeof(kvm_regs) == 144 && sizeof(kvm_sregs) == 312 && sizeof(kvm_sregs2) == 320);
static_assert(sizeof(kvm_fpu) == 416 && sizeof(kvm_xcrs) == 392 && sizeof(kvm_debugregs) == 128);
static_assert(sizeof(kvm_vcpu_events) == 64 && sizeof(kvm_mp_state) == 4 && sizeof(kvm_lapic_state) == 1024);
static_assert(sizeof(kvm_pit_config) == 64 && sizeof(kvm_pit_state2) == 112 && sizeof(kvm_irqchip) == 520);
static_assert(sizeof(kvm_enable_cap) == 104 && sizeof(kvm_device_attr) == 24 && sizeof(kvm_msi) == 32);
static_assert(sizeof(kvm_irq_level) == 8 && sizeof(kvm_irqfd) == 32 && sizeof(kvm_ioeventfd) == 64);

static_assert(KVM_GET_SUPPORTED_CPUID == 0xc008ae05 && KVM_SET_CPUID2 == 0x4008ae90 && KVM_GET_CPUID2 == 0xc008ae91);
static_assert(KVM_GET_MSRS == 0xc008ae88 && KVM_SET_MSRS == 0x4008ae89);
static_assert(KVM_SET_GSI_ROUTING == 0x4008ae6a);
static_assert(KVM_GET_XSAVE == 0x9000aea4 && KVM_SET_XSAVE == 0x5000aea5 && KVM_GET_XSAVE2 == 0x9000aecf);
static_assert(KVM_SET_USER_MEMORY_REGION == 0x4020ae46 && KVM_ENABLE_CAP == 0x4068aea3);
static_assert(KVM_MEMORY_ENCRYPT_OP == 0xc008aeba && KVM_MEMORY_ENCRYPT_REG_REGION == 0x8010aebb);
static_assert(KVM_MEMORY_ENCRYPT_UNREG_REGION == 0x8010aebc);
static_assert(KVM_IRQ_LINE == 0x4008ae61 && KVM_CREATE_PIT2 == 0x4040ae77);
static_assert(SEV_ISSUE_CMD == 0xc0105300);
static_assert(KVM_GET_API_VERSION == 0xae00 && KVM_CREATE_VM == 0xae01 && KVM_CHECK_EXTENSION == 0xae03);
static_assert(KVM_GET_VCPU_MMAP_SIZE == 0xae04 && KVM_CREATE_VCPU == 0xae41 && KVM_RUN == 0xae80);
static_assert(KVM_CREATE_IRQCHIP == 0xae60 && KVM_SET_TSS_ADDR == 0xae47 && KVM_IRQ_LINE_STATUS == 0xc008ae67);
static_assert(KVM_GET_REGS == 0x8090ae81 && KVM_SET_REGS == 0x4090ae82);
static_assert(KVM_GET_SREGS == 0x8138ae83 && KVM_SET_SREGS == 0x4138ae84);
static_assert(KVM_GET_SREGS2 == 0x8140aecc && KVM_SET_SREGS2 == 0x4140aecd);
static_assert(KVM_GET_FPU == 0x81a0ae8c && KVM_SET_FPU == 0x41a0ae8d);
static_assert(KVM_GET_XCRS == 0x8188aea6 && KVM_SET_XCRS == 0x4188aea7);
static_assert(KVM_GET_MP_STATE == 0x8004ae98 && KVM_SET_MP_STATE == 0x4004ae99);
static_assert(KVM_GET_VCPU_EVENTS == 0x8040ae9f && KVM_SET_VCPU_EVENTS == 0x4040aea0);
static_assert(KVM_GET_LAPIC == 0x8400ae8e && KVM_SET_LAPIC == 0x4400ae8f);
static_assert(KVM_GET_DEBUGREGS == 0x8080aea1 && KVM_SET_DEBUGREGS == 0x4080aea2);
static_assert(KVM_IRQFD == 0x4020ae76 && KVM_IOEVENTFD == 0x4040ae79 && KVM_SIGNAL_MSI == 0x4020aea5);
static_assert(KVM_GET_DEVICE_ATTR == 0x4018aee2 && KVM_HAS_DEVICE_ATTR == 0x4018aee3);
static_assert(KVM_GET_CLOCK == 0x8030ae7c && KVM_SET_CLOCK == 0x4030ae7b && sizeof(kvm_clock_data) == 48);
static_assert(KVM_REGISTER_COALESCED_MMIO == 0x4010ae67 && KVM_UNREGISTER_COALESCED_MMIO == 0x4010ae68);
static_assert(KVM_GET_IRQCHIP == 0xc208ae62 && KVM_SET_IRQCHIP == 0x8208ae63);
static_assert(KVM_GET_PIT2 == 0x8070ae9f && KVM_SET_PIT2 == 0x4070aea0);
static_assert(KVM_GET_MSR_INDEX_LIST == 0xc004ae02 && KVM_GET_MSR_FEATURE_INDEX_LIST == 0xc004ae0a);
static_assert(KVM_GET_TSC_KHZ == 0xaea3 && KVM_NMI == 0xae9a && KVM_SET_IDENTITY_MAP_ADDR == 0x4008ae48);
static_assert(sizeof(kvm_segment) == 24 && sizeof(kvm_dtable) == 16 && sizeof(kvm_coalesced_mmio_zone) == 16);
static_assert(sizeof(kvm_irq_routing_irqchip) == 8 && sizeof(kvm_irq_routing_msi) == 16);
static_assert(sizeof(kvm_guest_debug) == 72 && sizeof(kvm_interrupt) == 4 && sizeof(kvm_msr_filter) == 392);

// struct kvm_run, at the offsets that user space of any kernel version relies on.
static_assert(offsetof(kvm_run, immediate_exit) == 1 && offsetof(kvm_run, exit_reason) == 8);
static_assert(offsetof(kvm_run, if_flag) == 13 && offsetof(kvm_run, apic_base) == 24);
static_assert(offsetof(kvm_run, io.data_offset) == 40 && offsetof(kvm_run, mmio.data) == 40);
static_assert(offsetof(kvm_run, hypercall.args) == 40 && offsetof(kvm_run, hypercall.ret) == 88);
static_assert(offsetof(kvm_run, fail_entry.cpu) == 40 && offsetof(kvm_run, internal.data) == 40);
static_assert(offsetof(kvm_run, msr.index) == 44 && offsetof(kvm_run, msr.data) == 48 &&
              offsetof(kvm_run, eoi.vector) == 32);
static_assert(offsetof(kvm_run, mmio.len) == 48 && offsetof(kvm_run, mmio.is_write) == 52);
static_assert(offsetof(kvm_run, system_event.ndata) == 36 && offsetof(kvm_run, system_event.data) == 40);
static_assert(offsetof(kvm_run, kvm_valid_regs) == 288 && sizeof(kvm_run) == 2352);

// KVM_MEMORY_ENCRYPT_OP (Linux Documentation/virt/kvm/x86/amd-memory-encryption.rst).
static_assert(sizeof(kvm_sev_cmd) == 24 && offsetof(kvm_sev_cmd, data) == 8 && offsetof(kvm_sev_cmd, error) == 16);
static_assert(offsetof(kvm_sev_cmd, sev_fd) == 20);
static_assert(sizeof(kvm_sev_launch_start) == 40 && offsetof(kvm_sev_launch_start, session_uaddr) == 24);
static_assert(sizeof(kvm_sev_launch_update_data) == 16 && sizeof(kvm_sev_launch_measure) == 16);
static_assert(sizeof(kvm_sev_launch_secret) == 48 && sizeof(kvm_sev_guest_status) == 12 && sizeof(kvm_sev_dbg) == 24);
static_assert(sizeof(kvm_sev_attestation_report) == 32);
static_assert(sizeof(kvm_sev_send_start) == 72 && sizeof(kvm_sev_send_update_data) == 48);
static_assert(sizeof(kvm_sev_receive_start) == 40 && sizeof(kvm_sev_receive_update_data) == 48);

// SEV_ISSUE_CMD (Linux include/uapi/linux/psp-sev.h): packed.
static_assert(sizeof(sev_issue_cmd) == 16 && offsetof(sev_issue_cmd, data) == 4 &&
              offsetof(sev_issue_cmd, error) == 12);
static_assert(sizeof(sev_user_data_status) == 12 && offsetof(sev_user_data_status, flags) == 3);
static_assert(offsetof(sev_user_data_status, build) == 7 && offsetof(sev_user_data_status, guest_count) == 8);
static_assert(sizeof(sev_user_data_get_id) == 128);
static_assert(sizeof(sev_user_data_pek_csr) == 12 && sizeof(sev_user_data_get_id2) == 12);
static_assert(sizeof(sev_user_data_pdh_cert_export) == 24 && sizeof(sev_user_data_pek_cert_import) == 24);

namespace sevisor::kvm {

// --- Newer than Linux 6.1's headers. The names differ from the kernel's macros, so that newer headers do not clash.
// ---

// enum sev_cmd_id, since Linux 6.10.
inline constexpr std::uint32_t kSevInit2 = 22;
inline constexpr std::uint32_t kSevSnpLaunchStart = 100;
inline constexpr std::uint32_t kSevSnpLaunchUpdate = 101;
inline constexpr std::uint32_t kSevSnpLaunchFinish = 102;

// struct kvm_sev_init, argument of KVM_SEV_INIT2.
struct SevInit {
  std::uint64_t vmsa_features = 0;  // SEV_FEATURES
  std::uint32_t flags = 0;          // none exist
  std::uint16_t ghcb_version = 0;   // the newest that the guest may use; 0: the newest that KVM has, 2
  std::uint16_t pad1 = 0;
  std::uint32_t pad2[8] = {};
};
static_assert(sizeof(SevInit) == 48 && offsetof(SevInit, ghcb_version) == 12);

// KVM_CREATE_VM types and the capability whose value is the bitmap of those that exist.
inline constexpr int kCapVmTypes = 235;  // KVM_CAP_VM_TYPES
inline constexpr unsigned long kVmTypeDefault = 0;
inline constexpr unsigned long kVmTypeSev = 2;
inline constexpr unsigned long kVmTypeSevEs = 3;
inline constexpr unsigned long kVmTypeSnp = 4;

// KVM_GET_DEVICE_ATTR / KVM_HAS_DEVICE_ATTR on /dev/kvm.
inline constexpr std::uint32_t kDeviceAttrGroupSev = 1;         // KVM_X86_GRP_SEV
inline constexpr std::uint64_t kDeviceAttrSevVmsaFeatures = 0;  // KVM_X86_SEV_VMSA_FEATURES

// struct kvm_userspace_memory_region2 and its ioctl, since Linux 6.8.
struct MemoryRegion2 {
  std::uint32_t slot;
  std::uint32_t flags;
  std::uint64_t guest_phys_addr;
  std::uint64_t memory_size;
  std::uint64_t userspace_addr;
  std::uint64_t guest_memfd_offset;
  std::uint32_t guest_memfd;
  std::uint32_t pad1;
  std::uint64_t pad2[14];
};
static_assert(sizeof(MemoryRegion2) == 160);
inline constexpr int kCapUserMemory2 = 231;  // KVM_CAP_USER_MEMORY2
inline constexpr unsigned long kSetUserMemoryRegion2 = _IOW(KVMIO, 0x49, MemoryRegion2);
static_assert(kSetUserMemoryRegion2 == 0x40a0ae49);

// `error` of kvm_sev_cmd when the firmware was never reached (SEV_RET_NO_FW_CALL).
inline constexpr std::uint32_t kSevNoFirmwareCall = 0xffffffff;
// Largest blob that KVM copies for a SEV command (SEV_FW_BLOB_MAX_SIZE), bytes.
inline constexpr std::uint32_t kSevBlobMaxSize = 16 * 1024;
// Size of the LAUNCH_MEASURE blob: HMAC-SHA256, then the firmware's nonce, bytes.
inline constexpr std::uint32_t kLaunchMeasureSize = 48;

// KVM_GET_VCPU_MMAP_SIZE of an x86 kernel: kvm_run, one page of port data, the coalesced MMIO ring; bytes.
inline constexpr std::size_t kVcpuMmapSize = 12288;
inline constexpr std::size_t kPioDataOffset = 4096;  // KVM_PIO_PAGE_OFFSET pages

}  // namespace sevisor::kvm
