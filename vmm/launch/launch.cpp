#include "vmm/launch/launch.hpp"

#include <algorithm>
#include <cerrno>
#include <fmt/format.h>
#include <spdlog/spdlog.h>
#include <sys/mman.h>
#include <utility>

#include "base/bytes.hpp"
#include "base/error.hpp"
#include "devices/io_apic.hpp"
#include "sev/initial_vmsa.hpp"
#include "sev/launch_digest.hpp"
#include "vmm/launch/firmware_check.hpp"
#include "vmm/machine/cpuid_table.hpp"
#include "vmm/machine/memory_map.hpp"

namespace sevisor::vmm {

namespace {

constexpr std::uint32_t kLeafSignature = 1;
constexpr std::uint32_t kLeafEncryption = 0x8000001f;  // EAX[3]: SEV-ES; EBX[5:0]: C-bit
constexpr unsigned kMapGpaRange = 12;                  // KVM_HC_MAP_GPA_RANGE: which pages the guest shares
constexpr std::uint32_t kLeafSizes = 0x80000008;       // EAX[7:0]: physical address bits

// VmsaSegment attributes as kvm_segment has them.
kvm_segment make_segment(std::uint16_t selector, std::uint64_t base, std::uint16_t attributes) {
  kvm_segment segment{};
  segment.selector = selector;
  segment.base = base;
  segment.limit = sev::kResetLimit;
  segment.type = attributes & 0xf;
  segment.s = attributes >> 4 & 1;
  segment.dpl = attributes >> 5 & 3;
  segment.present = attributes >> 7 & 1;
  return segment;
}

// Every value that goes into the VMSA is set, so that the digest is the one that sev::launch_digest() computes.
void set_reset_state(const kvm::Vcpu& vcpu, std::uint32_t reset_address, std::uint32_t cpu_signature) {
  kvm_sregs sregs = vcpu.sregs();  // APIC base and CR8 stay the host's
  sregs.cs = make_segment(sev::kResetCodeSelector, reset_address & 0xffff0000, sev::kResetCodeAttributes);
  for (kvm_segment* segment : {&sregs.ds, &sregs.es, &sregs.fs, &sregs.gs, &sregs.ss}) {
    *segment = make_segment(0, 0, sev::kResetDataAttributes);
  }
  sregs.tr = make_segment(0, 0, sev::kResetTaskAttributes);
  sregs.ldt = make_segment(0, 0, sev::kResetLdtAttributes);
  sregs.gdt = {};
  sregs.gdt.limit = sev::kResetLimit;
  sregs.idt = sregs.gdt;
  sregs.cr0 = sev::kResetCr0;
  sregs.cr2 = sregs.cr3 = sregs.cr4 = 0;
  sregs.efer = 0;
  vcpu.set_sregs(sregs);

  kvm_regs regs{};
  regs.rip = reset_address & 0xffff;
  regs.rflags = sev::kResetRflags;
  regs.rdx = cpu_signature;
  vcpu.set_regs(regs);
}

Mapping load_firmware(std::span<const std::byte> image) {
  Mapping memory = Mapping::anonymous(image.size(), PROT_READ | PROT_WRITE);
  std::copy(image.begin(), image.end(), memory.data());
  return memory;
}

// The guest's addresses must not reach the C-bit or what encryption takes of the address.
void check_address_width(const kvm::CpuidTable& supported, const GuestRam& ram, bool encrypted) {
  const kvm_cpuid_entry2* sizes = find_leaf(supported, kLeafSizes);
  const kvm_cpuid_entry2* encryption = find_leaf(supported, kLeafEncryption);
  if (sizes == nullptr || (encrypted && encryption == nullptr)) {
    throw Error(ExitCode::kHostCannot, "read the host's CPUID leaves 0x80000008 and 0x8000001f", "one is missing",
                "Use a host with SEV-ES, or --host emulated.");
  }
  const unsigned bits = encrypted ? std::min(sizes->eax & 0xff, encryption->ebx & 0x3f) : sizes->eax & 0xff;
  const GuestRam::Region& last = ram.regions().back();
  if (bits < 64 && last.base.value + last.memory.size() > std::uint64_t{1} << bits) {
    throw Error(ExitCode::kBadUsage, "lay out the guest's memory",
                fmt::format("it would end at {:#x}, and the host's guests have {} address bits",
                            last.base.value + last.memory.size(), bits),
                "Lower --memory.");
  }
}

// Where QEMU has them, too: below any firmware.
constexpr std::uint32_t kTssAddress = 0xfeffd000;

sev::Digest digest_of(const LaunchConfig& config, InitApi init_api, std::uint32_t ap_reset_address) {
  sev::LaunchContents contents;
  contents.firmware = config.firmware.bytes();
  if (config.hashes_table) contents.hashes_table = *config.hashes_table;
  contents.vcpus = config.vcpus;
  contents.cpu_signature = config.cpu_signature;
  contents.ap_reset_address = ap_reset_address;
  contents.vmsa_form = init_api == InitApi::kInit2 ? sev::VmsaForm::kInit2 : sev::VmsaForm::kEsInit;
  return sev::launch_digest(contents);
}

// Never kAuto.
InitApi choose_init_api(const kvm::Kvm& kvm, InitApi wanted) {
  if (wanted == InitApi::kEsInit) return wanted;
  const bool has_init2 = kvm.has_vm_type(kvm::kVmTypeSevEs);
  if (wanted == InitApi::kInit2 && !has_init2) {
    throw Error(ExitCode::kHostCannot, "make the guest with KVM_SEV_INIT2", "this kernel has no VMs of type 3 (SEV-ES)",
                "Use Linux 6.10 or later, or --init-api es-init.");
  }
  if (wanted == InitApi::kInit2) return wanted;
  const InitApi chosen = has_init2 ? InitApi::kInit2 : InitApi::kEsInit;
  spdlog::info("--init-api auto: {}; the launch digest depends on it (sevisor measure --init-api {})",
               has_init2 ? "KVM_SEV_INIT2" : "KVM_SEV_ES_INIT, as this kernel has no KVM_SEV_INIT2",
               has_init2 ? "init2" : "es-init");
  return chosen;
}

void inject_secret(const kvm::Vm& vm, const GuestRam& ram, const LaunchConfig& config, const LaunchReport& report) {
  const std::span<std::byte> low = ram.regions().front().memory.bytes();
  const sev::FooterArea area = check_secret_area(config.firmware, low.size());
  const sev::SecretPacket packet = config.secret(report);
  if (packet.payload.size() > area.size) {
    throw Error(ExitCode::kBadUsage, "inject the secret",
                fmt::format("it has {} bytes, and the firmware '{}' has room for {}", packet.payload.size(),
                            config.firmware.name(), area.size),
                "Make the secrets shorter.");
  }
  vm.launch_secret(low.subspan(area.base, packet.payload.size()), packet.header, packet.payload);
}

void add_interrupt_controllers(const kvm::Vm& vm, IrqchipKind kind) {
  if (kind == IrqchipKind::kSplit) {
    vm.create_split_irqchip(devices::IoApic::kPins);
  } else {
    vm.create_irqchip();
    vm.create_pit();
  }
}

// RAM, then the firmware, which ends at 4 GiB, and the flash below it.
void add_memory(const kvm::Vm& vm, const GuestRam& ram, std::span<std::byte> firmware,
                kvm::Vm::SlotAccess firmware_access, std::span<std::byte> flash) {
  std::uint32_t slot = 0;
  for (const GuestRam::Region& region : ram.regions()) {
    const std::span<std::byte> bytes = region.memory.bytes();
    vm.set_memory_slot(slot++, region.base, bytes);
    spdlog::debug("guest memory from {:#x}: {} bytes, mapped at {}", region.base.value, bytes.size(),
                  fmt::ptr(bytes.data()));
  }
  const Gpa firmware_begin(kFirmwareEnd - firmware.size());
  vm.set_memory_slot(slot++, firmware_begin, firmware, firmware_access);
  if (flash.empty()) return;
  // Read-only, so that a plain write does not get past the flash's commands, which an SEV-ES guest sends through its
  // GHCB.
  using enum kvm::Vm::SlotAccess;
  vm.set_memory_slot(slot, Gpa(firmware_begin.value - flash.size()), flash,
                     vm.has_read_only_memory() ? kReadOnly : kReadWrite);
}

// What the host's vCPUs can have.
struct HostCpuid {
  kvm::CpuidTable supported;
  bool tsc_deadline;  // a local APIC's timer in that mode
};

void add_vcpus(LaunchedGuest& guest, const HostCpuid& cpuid, const LaunchConfig& config, std::uint32_t signature,
               std::uint32_t ap_reset_address) {
  guest.vcpus.reserve(config.vcpus);
  for (unsigned index = 0; index < config.vcpus; ++index) {
    guest.vcpus.push_back(guest.vm.create_vcpu(index));
    const kvm::Vcpu& vcpu = guest.vcpus.back();
    vcpu.set_cpuid(make_cpuid_table(cpuid.supported, {.signature = signature,
                                                      .vcpus = config.vcpus,
                                                      .apic_id = index,
                                                      .model = config.cpu_model,
                                                      .tsc_deadline = cpuid.tsc_deadline,
                                                      .encrypted = config.confidential == Confidential::kSevEs}));
    set_reset_state(vcpu, index == 0 ? sev::kBspResetAddress : ap_reset_address, signature);
  }
}

LaunchedGuest launch_encrypted(kvm::Host& host, const kvm::Kvm& kvm, const HostCpuid& cpuid, const GuestRam& ram,
                               const LaunchConfig& config) {
  const std::uint32_t ap_reset_address = check_firmware(config.firmware);
  const InitApi init_api = choose_init_api(kvm, config.init_api);
  kvm::Vm made = kvm.create_vm(init_api == InitApi::kInit2 ? kvm::kVmTypeSevEs : kvm::kVmTypeDefault);
  if (!made.can_encrypt()) {
    throw Error(ExitCode::kHostCannot,
                fmt::format("encrypt a guest on the {} host (KVM_MEMORY_ENCRYPT_OP)", host.name()), errno_text(errno),
                "SEV is off or absent; 'sevisor doctor' says why.");
  }
  LaunchedGuest guest{kvm::SevDevice::open(host), load_firmware(config.firmware.bytes()), std::move(made), {}, {}};
  const kvm::Vm& vm = guest.vm;
  if (init_api == InitApi::kInit2) {
    vm.sev_init2();
    guest.report.init_api = "KVM_SEV_INIT2";
  } else {
    vm.sev_es_init();
    guest.report.init_api = "KVM_SEV_ES_INIT";
  }
  const sev_user_data_status status = guest.sev->platform_status();
  guest.report.api = {status.api_major, status.api_minor, status.build};

  if ((static_cast<unsigned>(kvm.capability(KVM_CAP_EXIT_HYPERCALL)) >> kMapGpaRange & 1) != 0) {
    vm.report_hypercall(kMapGpaRange);
  }
  add_interrupt_controllers(vm, config.irqchip);
  // A writable slot: a write to a read-only one would need emulation, which no SEV-ES guest gets.
  add_memory(vm, ram, guest.firmware.bytes(), kvm::Vm::SlotAccess::kReadWrite, config.flash);
  for (const GuestRam::Region& region : ram.regions()) vm.register_encrypted_region(region.memory.bytes());
  vm.register_encrypted_region(guest.firmware.bytes());

  vm.launch_start(*guest.sev, config.policy, config.owner_certificate, config.session);
  vm.launch_update_data(guest.firmware.bytes());
  if (config.hashes_table) {
    const GuestRam::Region& low = ram.regions().front();
    const Gpa at = check_hashes_area(config.firmware, low.memory.size());
    const std::span<std::byte> place = low.memory.bytes().subspan(at.value, sev::kHashesTableSize);
    std::ranges::copy(*config.hashes_table, place.begin());
    vm.launch_update_data(place);
  }
  add_vcpus(guest, cpuid, config, config.cpu_signature, ap_reset_address);
  vm.launch_update_vmsa();
  guest.report.measurement = vm.launch_measure();
  guest.report.digest = digest_of(config, init_api, ap_reset_address);
  if (config.secret) inject_secret(vm, ram, config, guest.report);
  vm.launch_finish();
  return guest;
}

LaunchedGuest launch_plain(const kvm::Kvm& kvm, HostCpuid cpuid, const GuestRam& ram, const LaunchConfig& config) {
  check_plain_firmware(config.firmware);
  std::erase_if(cpuid.supported, [](const kvm_cpuid_entry2& entry) { return entry.function == kLeafEncryption; });
  const kvm_cpuid_entry2* processor = find_leaf(cpuid.supported, kLeafSignature);
  const std::uint32_t own_signature = processor != nullptr ? processor->eax : 0;
  LaunchedGuest guest{std::nullopt, load_firmware(config.firmware.bytes()), kvm.create_vm(), {}, {}};
  const kvm::Vm& vm = guest.vm;
  if (kvm.capability(KVM_CAP_SET_TSS_ADDR) > 0) vm.set_tss_address(kTssAddress);
  add_interrupt_controllers(vm, config.irqchip);
  using enum kvm::Vm::SlotAccess;
  add_memory(vm, ram, guest.firmware.bytes(), vm.has_read_only_memory() ? kReadOnly : kReadWrite, config.flash);
  // Further vCPUs start by INIT and SIPI.
  add_vcpus(guest, cpuid, config, config.cpu_signature != 0 ? config.cpu_signature : own_signature,
            sev::kBspResetAddress);
  return guest;
}

}  // namespace

LaunchedGuest launch(kvm::Host& host, const GuestRam& ram, const LaunchConfig& config) {
  const kvm::Kvm kvm = kvm::Kvm::open(host);
  if (config.vcpus > kvm.max_vcpus()) {
    throw Error(ExitCode::kBadUsage, fmt::format("make {} vCPUs", config.vcpus),
                fmt::format("the {} host allows {}", host.name(), kvm.max_vcpus()), "Lower --cpus.");
  }
  const bool encrypted = config.confidential == Confidential::kSevEs;
  const HostCpuid cpuid{kvm.supported_cpuid(), kvm.capability(KVM_CAP_TSC_DEADLINE_TIMER) > 0};
  check_address_width(cpuid.supported, ram, encrypted);
  if (config.cpu_model != nullptr) {
    spdlog::debug("the CPU type {} without what this host lacks: {}", config.cpu_model->name,
                  fmt::join(feature_names(lacking_features(cpuid.supported, *config.cpu_model)), " "));
  }
  return encrypted ? launch_encrypted(host, kvm, cpuid, ram, config) : launch_plain(kvm, cpuid, ram, config);
}

}  // namespace sevisor::vmm
