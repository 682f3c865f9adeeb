// An emulated VM: what a descriptor of KVM_CREATE_VM stands for.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "emulator/cpu/cpu.hpp"
#include "emulator/irqchip/irqchip.hpp"
#include "emulator/kvm/coalesced_ring.hpp"
#include "emulator/kvm/event_watch.hpp"
#include "emulator/kvm/file.hpp"
#include "emulator/kvm/io_eventfds.hpp"
#include "emulator/kvm/irqfds.hpp"
#include "emulator/kvm/machine_lock.hpp"
#include "emulator/kvm/msr_filter.hpp"
#include "emulator/kvm/platform.hpp"
#include "emulator/kvm/scheduler.hpp"
#include "kvm/abi.hpp"

namespace sevisor::emulator {

class Vcpu;

// SEV_FEATURES that a guest of KVM_SEV_INIT2 may have. Debug-register swap (bit 5) is not one: the engine keeps DR0..3
// with the rest of the vCPU, and there is nobody else whose breakpoints they could be.
inline constexpr std::uint64_t kSupportedVmsaFeatures = 0;

class Vm final : public IdleClock, public std::enable_shared_from_this<Vm> {
 public:
  Vm(std::shared_ptr<Platform> platform, unsigned long type);
  ~Vm() override;

  int ioctl(unsigned long request, void* argument);

  // --- for the vCPUs; with the machine locked ---
  [[nodiscard]] MachineLock& lock() noexcept { return platform_->machine_lock(); }
  // Its context was moved away: each ioctl of it and its vCPUs is EIO.
  [[nodiscard]] bool dead() const noexcept { return dead_; }
  [[nodiscard]] Scheduler& scheduler() noexcept { return scheduler_; }
  [[nodiscard]] Platform& platform() noexcept { return *platform_; }
  [[nodiscard]] GuestMemory& memory() noexcept { return memory_; }
  [[nodiscard]] VirtualClock& clock() noexcept { return clock_; }
  [[nodiscard]] CodeCache& code() noexcept { return *code_; }
  [[nodiscard]] Irqchip* irqchip() noexcept { return irqchip_ ? &*irqchip_ : nullptr; }
  // An SEV guest: one of KVM_SEV_INIT, KVM_SEV_ES_INIT, KVM_SEV_INIT2, or with the context of another.
  [[nodiscard]] bool encrypted() const noexcept { return sev_.asid != 0; }
  // An SEV-ES guest: its registers are encrypted too.
  [[nodiscard]] bool encrypted_state() const noexcept { return encrypted() && sev_.es; }
  [[nodiscard]] unsigned long type() const noexcept { return type_; }
  // VMs of the newer type hide what a protected vCPU holds; those of type 0 show stale values.
  [[nodiscard]] bool has_protected_state() const noexcept { return type_ == kvm::kVmTypeSevEs; }
  // KVM_SEV_INIT2 has to come first. Linux asks for it even when a context has moved in, and then refuses it: VMs of
  // these types do not run after a move (sev_migrate_from() leaves need_init as it is).
  [[nodiscard]] bool needs_init() const noexcept { return type_ != kvm::kVmTypeDefault && !initialised_; }
  [[nodiscard]] std::uint16_t ghcb_version() const noexcept { return sev_.ghcb_version; }
  [[nodiscard]] std::uint64_t vmsa_features() const noexcept { return sev_.vmsa_features; }
  [[nodiscard]] std::size_t vcpu_count() const noexcept { return vcpus_.size(); }
  [[nodiscard]] std::uint64_t ap_jump_table() const noexcept { return ap_jump_table_; }
  void set_ap_jump_table(std::uint64_t gpa) noexcept { ap_jump_table_ = gpa; }

  // --- vm_reports.cpp: what is asked of user space ---
  // KVM_CAP_EXIT_HYPERCALL: a bit for each hypercall that exits.
  [[nodiscard]] std::uint64_t hypercall_exits() const noexcept { return hypercall_exits_; }
  // KVM_CAP_X86_USER_SPACE_MSR: KVM_MSR_EXIT_REASON_*, for which a refused access exits.
  [[nodiscard]] std::uint64_t msr_exits() const noexcept { return msr_exits_; }
  [[nodiscard]] const MsrFilter& msr_filter() const noexcept { return msr_filter_; }
  [[nodiscard]] const MsrIntercepts& msr_intercepts() const noexcept { return msr_intercepts_; }

  // --- vm_eventfd.cpp ---
  // The interrupts of eventfds that were signalled. At the start of each ioctl.
  void deliver_irqfds();
  // What the guest's last accesses have led to: signalled eventfds that interrupt, ended interrupts. Before it runs on.
  void settle_eventfds();
  [[nodiscard]] const CoalescedRing& coalesced() const noexcept { return coalesced_; }
  // A write of 1 to 8 bytes by the guest. true: a device of the host took it.
  [[nodiscard]] bool write_device(IoBus bus, std::uint64_t address, std::span<const std::byte> data);

 private:
  static const Ioctl<Vm> kIoctls[];
  static const Ioctl<Vm> kSevCommands[];

  // --- vm.cpp ---
  int check_extension(void* argument);
  int create_vcpu(void* argument);
  int set_memory_region(void* argument);
  int set_memory_region_2(void* argument);
  int set_slot(const kvm_userspace_memory_region& region);
  int accept(void* argument);  // what SVM has no use for
  int get_clock(void* argument);
  int set_clock(void* argument);
  int enable_cap(void* argument);
  int get_tsc_khz(void* argument);
  int set_tsc_khz(void* argument);
  int limit_vcpu_ids(std::uint64_t ids);
  // --- vm_sev_context.cpp: KVM_CAP_VM_COPY_ENC_CONTEXT_FROM, KVM_CAP_VM_MOVE_ENC_CONTEXT_FROM ---
  int mirror_context(std::uint64_t source_fd);
  int move_context(std::uint64_t source_fd);
  [[nodiscard]] std::shared_ptr<Vm> find_vm(std::uint64_t fd) const;
  void leave_owner();
  void set_tsc_forward(std::uint64_t ticks);

  // --- vm.cpp again ---
  std::optional<std::chrono::nanoseconds> time_to_next_event() override;
  void skip_to_next_event() override;

  // --- vm_irqchip.cpp ---
  int create_irqchip(void* argument);
  int split_irqchip(std::uint64_t io_apic_pins);
  int create_pit(void* argument);
  int irq_line(void* argument);
  int irq_line_status(void* argument);
  int set_gsi_routing(void* argument);
  int signal_msi(void* argument);
  int get_irqchip(void* argument);
  int set_irqchip(void* argument);
  int get_pit(void* argument);
  int set_pit(void* argument);

  // --- vm_dirty_log.cpp ---
  int get_dirty_log(void* argument);
  int clear_dirty_log(void* argument);
  int set_manual_dirty_log(std::uint64_t options);

  // --- vm_reports.cpp ---
  int set_msr_filter(void* argument);
  int set_hypercall_exits(std::uint64_t hypercalls);
  int set_msr_exits(std::uint64_t reasons);

  // --- vm_eventfd.cpp ---
  int irqfd(void* argument);
  int ioeventfd(void* argument);
  int register_coalesced(void* argument);
  int unregister_coalesced(void* argument);
  std::optional<std::chrono::milliseconds> irqfds_signalled();  // in a thread of its own

  // --- vm_sev.cpp: KVM_MEMORY_ENCRYPT_OP, REG_REGION, UNREG_REGION. A command gets the copied-in kvm_sev_cmd. ---
  int memory_encrypt_op(void* argument);
  int register_region(void* argument);
  int unregister_region(void* argument);
  int sev_init(void* command);
  int sev_es_init(void* command);
  int sev_init2(void* command);
  int make_encrypted(kvm_sev_cmd& command, const kvm::SevInit& init, bool es);
  // --- vm_sev_launch.cpp ---
  int launch_start(void* command);
  int launch_update_data(void* command);
  int launch_update_vmsa(void* command);
  int launch_measure(void* command);
  int launch_secret(void* command);
  int launch_finish(void* command);
  int attestation_report(void* command);
  // Makes a guest of the firmware this VM's, with its ASID.
  int bind(kvm_sev_cmd& command, std::uint32_t handle);

  // --- vm_sev_migration.cpp ---
  int send_start(void* command);
  int send_update_data(void* command);
  int send_finish(void* command);
  int send_cancel(void* command);
  int receive_start(void* command);
  int receive_update_data(void* command);
  int receive_finish(void* command);
  int handle_command(void* command, psp::Command id);

  // --- vm_sev.cpp again ---
  int snp_guests_only(void* command);
  int guest_status(void* command);
  int dbg_decrypt(void* command);
  int dbg_encrypt(void* command);
  int debug(kvm_sev_cmd& command, bool encrypt);
  // Runs a firmware command for this VM through the /dev/sev descriptor that LAUNCH_START was given; errno as KVM has
  // it.
  template <class Buffer>
  int firmware(kvm_sev_cmd& command, psp::Command id, Buffer& buffer);
  [[nodiscard]] bool sev_fd_valid(std::uint32_t fd) const;
  void decommission();

  struct Region {
    std::uint64_t address;
    std::uint64_t size;
  };

  std::shared_ptr<Platform> platform_;
  VirtualClock clock_;
  GuestMemory memory_;
  std::unique_ptr<CodeCache, void (*)(CodeCache*)> code_;
  std::optional<Irqchip> irqchip_;
  Scheduler scheduler_;
  std::vector<std::unique_ptr<Vcpu>> vcpus_;  // in the order of creation
  std::uint64_t clock_offset_ = 0;            // KVM_SET_CLOCK
  std::uint64_t vcpu_ids_ = 0;                // KVM_CAP_MAX_VCPU_ID; 0: not limited
  bool manual_dirty_log_ = false;  // KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2: who asks for the log does not clear it
  std::uint64_t hypercall_exits_ = 0;
  std::uint64_t msr_exits_ = 0;
  MsrFilter msr_filter_;
  MsrIntercepts msr_intercepts_;  // that follow from it
  IoEventfds io_eventfds_;
  CoalescedRing coalesced_;
  Irqfds irqfds_;
  bool eventfd_signalled_ = false;           // by the guest: it may be one that interrupts
  std::unique_ptr<EventWatch> event_watch_;  // from the first KVM_IRQFD on; its thread uses what is above

  // struct kvm_sev_info: what a mirror shares and a move takes along.
  struct SevContext {
    std::uint32_t asid = 0;  // 0: not an SEV VM
    bool es = false;
    std::uint32_t handle = 0;  // of the firmware's guest; 0: not started
    std::uint32_t fd = 0;      // the number given to LAUNCH_START
    std::uint16_t ghcb_version = 0;
    std::uint64_t vmsa_features = 0;
    std::vector<Region> regions;
  };

  unsigned long type_;
  bool dead_ = false;
  std::shared_ptr<Vm> owner_;  // of a mirror: whose context it shares
  std::vector<Vm*> mirrors_;
  // Where the running ioctl keeps another VM until the lock is free: it may be the last who knows it.
  std::shared_ptr<Vm>* keep_ = nullptr;
  SevContext sev_;
  bool initialised_ = false;  // by KVM_SEV_INIT2, or as a mirror
  std::uint64_t ap_jump_table_ = 0;
};

// The descriptor. vCPU descriptors keep the VM alive beside it.
class VmFile final : public File {
 public:
  explicit VmFile(std::shared_ptr<Vm> vm) : vm_(std::move(vm)) {}
  int ioctl(unsigned long request, void* argument) override { return vm_->ioctl(request, argument); }
  [[nodiscard]] const std::shared_ptr<Vm>& vm() const noexcept { return vm_; }

 private:
  std::shared_ptr<Vm> vm_;
};

}  // namespace sevisor::emulator
