// Typed handles over the seam: /dev/kvm, a VM, a vCPU, /dev/sev. They carry the ABI's structs; nothing above them
// spells an ioctl number. A call that fails throws Error (kHostCannot) that says what was tried, errno and the
// firmware's status by name, and what the user can do; exceptions from this are marked. Linux
// Documentation/virt/kvm/api.rst and x86/amd-memory-encryption.rst.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/address.hpp"
#include "kvm/abi.hpp"
#include "kvm/host_fd.hpp"

namespace sevisor::kvm {

using CpuidTable = std::vector<kvm_cpuid_entry2>;
using MeasureBlob = std::array<std::byte, kLaunchMeasureSize>;

// As they are: nothing of them is checked.
struct ExportedCertificates {
  std::vector<std::byte> pdh;
  std::vector<std::byte> chain;  // PEK, OCA, CEK
};

// /dev/sev: the Secure Processor's management interface. Kept open for the life of the VMs that were launched with it.
class SevDevice {
 public:
  static SevDevice open(Host& host);

  [[nodiscard]] int fd() const noexcept { return fd_.get(); }
  [[nodiscard]] sev_user_data_status platform_status() const;
  // SEV_PDH_CERT_EXPORT.
  [[nodiscard]] ExportedCertificates export_certificates() const;

 private:
  explicit SevDevice(HostFd fd) : fd_(std::move(fd)) {}
  HostFd fd_;
};

class Vcpu {
 public:
  Vcpu(Vcpu&& other) noexcept;
  Vcpu& operator=(Vcpu&&) = delete;
  Vcpu(const Vcpu&) = delete;
  Vcpu& operator=(const Vcpu&) = delete;
  ~Vcpu();

  [[nodiscard]] unsigned index() const noexcept { return index_; }
  [[nodiscard]] const HostFd& descriptor() const noexcept { return fd_; }

  void set_cpuid(const CpuidTable& table) const;
  [[nodiscard]] kvm_sregs sregs() const;
  void set_sregs(const kvm_sregs& sregs) const;
  void set_regs(const kvm_regs& regs) const;

  // KVM_RUN. 0, or the errno with which it failed; never throws.
  [[nodiscard]] int run() const noexcept;

  // The area shared with the host.
  [[nodiscard]] kvm_run& state() const noexcept { return *state_; }
  [[nodiscard]] std::size_t state_size() const noexcept { return state_size_; }  // bytes, with the port data page

  // Makes the present or next run() return EINTR soon, until it is cleared. From any thread.
  void set_immediate_exit(bool value) const noexcept;

 private:
  friend class Vm;
  Vcpu(HostFd fd, unsigned index, void* state, std::size_t state_size) noexcept
      : fd_(std::move(fd)), index_(index), state_(static_cast<kvm_run*>(state)), state_size_(state_size) {}

  HostFd fd_;
  unsigned index_;
  kvm_run* state_;
  std::size_t state_size_;
};

// KVM_IRQ_ROUTING_MSI.
struct MsiRoute {
  std::uint32_t gsi = 0;
  std::uint64_t address = 0;
  std::uint32_t data = 0;
};

class Vm {
 public:
  // For calls that have no form of their own here.
  [[nodiscard]] const HostFd& descriptor() const noexcept { return fd_; }

  // KVM_MEMORY_ENCRYPT_OP without a command: whether this kernel can encrypt guests at all.
  [[nodiscard]] bool can_encrypt() const noexcept;

  // KVM_SEV_ES_INIT: before any vCPU. A guest made so speaks GHCB version 1 at most.
  void sev_es_init() const;
  // KVM_SEV_INIT2, of a VM of type kVmTypeSevEs: before any vCPU. With the FPU in the initial VMSA, GHCB version 2 at
  // most unless `init` says less.
  void sev_init2(const SevInit& init = {}) const;

  // Lets a hypercall (KVM_HC_*) exit to user space; Kvm::capability(KVM_CAP_EXIT_HYPERCALL) has a bit for each that
  // may.
  void report_hypercall(unsigned number) const;

  void create_irqchip() const;  // LAPICs, IOAPIC and PICs in the host
  void create_pit() const;      // with port 0x61, whose gate bit guests need to calibrate; needs the irqchip
  // LAPICs alone in the host, before any vCPU. The first `pins` global interrupts are those of the caller's IOAPIC,
  // which is told by KVM_EXIT_IOAPIC_EOI when a level-triggered one ends that set_msi_routes() names.
  void create_split_irqchip(unsigned pins) const;
  // What each global interrupt sends, instead of what was set before. Those that are not in it send nothing.
  void set_msi_routes(std::span<const MsiRoute> routes) const;
  // Sends a message to the LAPICs. Whether one took it; never throws, as it is called while the guest runs.
  bool signal_msi(std::uint64_t address, std::uint32_t data) const noexcept;

  // Memory of the guest; `memory` page-aligned in address and size, and alive for as long as the VM.
  enum class SlotAccess : std::uint8_t { kReadWrite, kReadOnly };
  void set_memory_slot(std::uint32_t slot, Gpa at, std::span<std::byte> memory,
                       SlotAccess access = SlotAccess::kReadWrite) const;
  // Whether this VM can have read-only memory: those of the newer, typed kind of SEV-ES VM cannot (Linux 6.11).
  [[nodiscard]] bool has_read_only_memory() const noexcept;
  // Three pages that Intel's processors may need for a guest in real mode; others take no notice.
  void set_tss_address(std::uint32_t address) const;
  // Pins what will be encrypted.
  void register_encrypted_region(std::span<std::byte> memory) const;
  // The opposite, with the same memory. The host writes its caches back: what the guest last wrote is there, encrypted.
  void unregister_encrypted_region(std::span<std::byte> memory) const;

  // `owner_certificate` and `session`: of the guest owner, both or none; without them nobody knows the guest's keys.
  void launch_start(const SevDevice& sev, std::uint32_t policy, std::span<const std::byte> owner_certificate = {},
                    std::span<const std::byte> session = {}) const;
  // Encrypts in place and extends the digest. Address and size multiples of 16.
  void launch_update_data(std::span<std::byte> memory) const;
  void launch_update_vmsa() const;
  [[nodiscard]] MeasureBlob launch_measure() const;
  // Decrypts a packet of the guest owner into `memory` of the guest, which is as long as the payload.
  void launch_secret(std::span<std::byte> memory, std::span<const std::byte> header,
                     std::span<const std::byte> payload) const;
  void launch_finish() const;
  [[nodiscard]] kvm_sev_guest_status guest_status() const;

  [[nodiscard]] Vcpu create_vcpu(unsigned index) const;

  // Raises or lowers an input of the interrupt controllers. false (and no effect) if the host refuses; never throws, as
  // it is called while the guest runs.
  bool set_irq_line(std::uint32_t gsi, bool level) const noexcept;

  // The VM's clock in ns, virtual if the host's time is; nullopt if the host has none.
  [[nodiscard]] std::optional<std::uint64_t> clock_ns() const noexcept;

 private:
  friend class Kvm;
  Vm(HostFd fd, std::size_t vcpu_state_size) noexcept : fd_(std::move(fd)), vcpu_state_size_(vcpu_state_size) {}

  void sev_command(std::uint32_t id, void* data, const std::string& tried, int sev_fd = 0) const;

  HostFd fd_;
  std::size_t vcpu_state_size_;
};

class Kvm {
 public:
  // Opens /dev/kvm and checks the API version.
  static Kvm open(Host& host);
  [[nodiscard]] const HostFd& descriptor() const noexcept { return fd_; }

  // KVM_CHECK_EXTENSION: 0 if the host does not have it.
  [[nodiscard]] int capability(int number) const noexcept;
  [[nodiscard]] unsigned max_vcpus() const noexcept;
  [[nodiscard]] CpuidTable supported_cpuid() const;
  [[nodiscard]] Vm create_vm(unsigned long type = kVmTypeDefault) const;
  // KVM_CAP_VM_TYPES: whether there are VMs of this type. An older kernel has those of kVmTypeDefault alone.
  [[nodiscard]] bool has_vm_type(unsigned long type) const noexcept;

 private:
  explicit Kvm(HostFd fd) : fd_(std::move(fd)) {}
  HostFd fd_;
};

}  // namespace sevisor::kvm
