#include "kvm/handles.hpp"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <fmt/format.h>
#include <utility>

#include "base/bytes.hpp"
#include "kvm/failure.hpp"
#include "sev/firmware_status.hpp"

namespace sevisor::kvm {

namespace {

constexpr int kApiVersion = 12;                // KVM_GET_API_VERSION has answered this since Linux 2.6.22
constexpr std::size_t kMaxCpuidEntries = 256;  // KVM_MAX_CPUID_ENTRIES
constexpr const char* kNoneForSevEs =
    "SEV-ES is off or has no ASIDs: kvm_amd needs sev_es=1, and the BIOS a SEV-ES ASID Space Limit above 1. 'sevisor "
    "doctor' tells which.";
constexpr unsigned kDefaultMaxVcpus = 4;  // if the host has neither capability (KVM API document, 4.7)

HostFd open_device(Host& host, const char* path) {
  const int fd = host.open(path, O_RDWR | O_CLOEXEC);
  if (fd < 0) throw_failure(fmt::format("open {} of the {} host", path, host.name()), errno);
  return {host, fd};
}

// A struct with an array behind it, as a block of bytes that is aligned for both.
template <class Header, class Entry>
class Table {
 public:
  explicit Table(std::size_t entries) : words_((sizeof(Header) + entries * sizeof(Entry) + 7) / 8) {}
  [[nodiscard]] Header* header() noexcept { return reinterpret_cast<Header*>(words_.data()); }
  [[nodiscard]] std::byte* entries() noexcept { return reinterpret_cast<std::byte*>(words_.data()) + sizeof(Header); }

 private:
  std::vector<std::uint64_t> words_;
};
using CpuidBlock = Table<kvm_cpuid2, kvm_cpuid_entry2>;

std::uint64_t address_of(const void* pointer) { return reinterpret_cast<std::uintptr_t>(pointer); }

std::string size_text(std::size_t size) {
  return size >= 1 << 20 ? fmt::format("{} MiB", size >> 20) : fmt::format("{} KiB", size >> 10);
}

}  // namespace

// --- /dev/sev ---

SevDevice SevDevice::open(Host& host) { return SevDevice(open_device(host, "/dev/sev")); }

sev_user_data_status SevDevice::platform_status() const {
  sev_user_data_status status{};
  sev_issue_cmd command{};
  command.cmd = SEV_PLATFORM_STATUS;
  command.data = address_of(&status);
  if (fd_.ioctl(SEV_ISSUE_CMD, &command) < 0) {
    throw_failure("ask the Secure Processor for its status (SEV_PLATFORM_STATUS)", errno, command.error);
  }
  return status;
}

ExportedCertificates SevDevice::export_certificates() const {
  static constexpr const char* kTried = "export the platform's certificates (PDH_CERT_EXPORT)";
  sev_user_data_pdh_cert_export data{};
  sev_issue_cmd command{};
  command.cmd = SEV_PDH_CERT_EXPORT;
  command.data = address_of(&data);
  // Without addresses it answers INVALID_LEN, and the lengths.
  if (fd_.ioctl(SEV_ISSUE_CMD, &command) < 0 &&
      command.error != static_cast<std::uint32_t>(sev::FirmwareStatus::kInvalidLength)) {
    throw_failure(kTried, errno, command.error);
  }
  if (data.pdh_cert_len > kSevBlobMaxSize || data.cert_chain_len > kSevBlobMaxSize) throw_failure(kTried, EFBIG);
  ExportedCertificates certificates{std::vector<std::byte>(data.pdh_cert_len),
                                    std::vector<std::byte>(data.cert_chain_len)};
  command.error = 0;
  data.pdh_cert_address = address_of(certificates.pdh.data());
  data.cert_chain_address = address_of(certificates.chain.data());
  if (fd_.ioctl(SEV_ISSUE_CMD, &command) < 0) throw_failure(kTried, errno, command.error);
  certificates.pdh.resize(std::min<std::size_t>(data.pdh_cert_len, certificates.pdh.size()));
  certificates.chain.resize(std::min<std::size_t>(data.cert_chain_len, certificates.chain.size()));
  return certificates;
}

// --- vCPU ---

Vcpu::Vcpu(Vcpu&& other) noexcept
    : fd_(std::move(other.fd_)),
      index_(other.index_),
      state_(std::exchange(other.state_, nullptr)),
      state_size_(other.state_size_) {}

Vcpu::~Vcpu() {
  if (state_ != nullptr) fd_.host().munmap(state_, state_size_);
}

void Vcpu::set_cpuid(const CpuidTable& table) const {
  CpuidBlock block(table.size());
  block.header()->nent = static_cast<std::uint32_t>(table.size());
  if (!table.empty()) std::memcpy(block.entries(), table.data(), table.size() * sizeof(kvm_cpuid_entry2));
  if (fd_.ioctl(KVM_SET_CPUID2, block.header()) < 0) {
    throw_failure(fmt::format("set the {} CPUID leaves of vCPU {} (KVM_SET_CPUID2)", table.size(), index_), errno);
  }
}

kvm_sregs Vcpu::sregs() const {
  kvm_sregs sregs{};
  if (fd_.ioctl(KVM_GET_SREGS, &sregs) < 0) {
    throw_failure(fmt::format("read the segments of vCPU {} (KVM_GET_SREGS)", index_), errno);
  }
  return sregs;
}

void Vcpu::set_sregs(const kvm_sregs& sregs) const {
  kvm_sregs copy = sregs;
  if (fd_.ioctl(KVM_SET_SREGS, &copy) < 0) {
    throw_failure(fmt::format("set the segments of vCPU {} (KVM_SET_SREGS)", index_), errno);
  }
}

void Vcpu::set_regs(const kvm_regs& regs) const {
  kvm_regs copy = regs;
  if (fd_.ioctl(KVM_SET_REGS, &copy) < 0) {
    throw_failure(fmt::format("set the registers of vCPU {} (KVM_SET_REGS)", index_), errno);
  }
}

int Vcpu::run() const noexcept { return fd_.ioctl(KVM_RUN) < 0 ? errno : 0; }

void Vcpu::set_immediate_exit(bool value) const noexcept {
  __atomic_store_n(&state_->immediate_exit, static_cast<__u8>(value), __ATOMIC_SEQ_CST);
}

// --- VM ---

bool Vm::can_encrypt() const noexcept { return fd_.ioctl(KVM_MEMORY_ENCRYPT_OP, nullptr) == 0; }

void Vm::sev_command(std::uint32_t id, void* data, const std::string& tried, int sev_fd) const {
  kvm_sev_cmd command{};  // `error` keeps this 0 when the firmware is not reached
  command.id = id;
  command.data = address_of(data);
  command.sev_fd = static_cast<std::uint32_t>(sev_fd);
  if (fd_.ioctl(KVM_MEMORY_ENCRYPT_OP, &command) >= 0) return;
  const bool none_for_es = errno == ENOTTY && (id == KVM_SEV_ES_INIT || id == kSevInit2);
  throw_failure(tried, errno, command.error, none_for_es ? kNoneForSevEs : "");
}

void Vm::sev_es_init() const { sev_command(KVM_SEV_ES_INIT, nullptr, "make the VM an SEV-ES one (KVM_SEV_ES_INIT)"); }

void Vm::sev_init2(const SevInit& init) const {
  SevInit copy = init;
  sev_command(kSevInit2, &copy, "make the VM an SEV-ES one (KVM_SEV_INIT2)");
}

void Vm::report_hypercall(unsigned number) const {
  kvm_enable_cap cap{};
  cap.cap = KVM_CAP_EXIT_HYPERCALL;
  cap.args[0] = 1U << number;
  if (fd_.ioctl(KVM_ENABLE_CAP, &cap) < 0) {
    throw_failure("take the guest's word on shared pages (KVM_ENABLE_CAP, KVM_CAP_EXIT_HYPERCALL)", errno);
  }
}

void Vm::create_irqchip() const {
  if (fd_.ioctl(KVM_CREATE_IRQCHIP) < 0) throw_failure("create the interrupt controllers (KVM_CREATE_IRQCHIP)", errno);
}

void Vm::create_pit() const {
  kvm_pit_config config{};
  config.flags = KVM_PIT_SPEAKER_DUMMY;
  if (fd_.ioctl(KVM_CREATE_PIT2, &config) < 0) throw_failure("create the interval timer (KVM_CREATE_PIT2)", errno);
}

void Vm::create_split_irqchip(unsigned pins) const {
  kvm_enable_cap cap{};
  cap.cap = KVM_CAP_SPLIT_IRQCHIP;
  cap.args[0] = pins;
  if (fd_.ioctl(KVM_ENABLE_CAP, &cap) < 0) {
    throw_failure("leave the IOAPIC to user space (KVM_ENABLE_CAP, KVM_CAP_SPLIT_IRQCHIP)", errno, 0,
                  "Use --irqchip kernel.");
  }
}

void Vm::set_msi_routes(std::span<const MsiRoute> routes) const {
  Table<kvm_irq_routing, kvm_irq_routing_entry> table(routes.size());
  table.header()->nr = static_cast<std::uint32_t>(routes.size());
  for (std::size_t i = 0; i < routes.size(); ++i) {
    kvm_irq_routing_entry entry{};
    entry.gsi = routes[i].gsi;
    entry.type = KVM_IRQ_ROUTING_MSI;
    entry.u.msi.address_lo = static_cast<std::uint32_t>(routes[i].address);
    entry.u.msi.address_hi = static_cast<std::uint32_t>(routes[i].address >> 32);
    entry.u.msi.data = routes[i].data;
    store(table.entries() + i * sizeof entry, entry);
  }
  if (fd_.ioctl(KVM_SET_GSI_ROUTING, table.header()) < 0) {
    throw_failure(fmt::format("name the messages of {} interrupts (KVM_SET_GSI_ROUTING)", routes.size()), errno);
  }
}

bool Vm::signal_msi(std::uint64_t address, std::uint32_t data) const noexcept {
  kvm_msi msi{};
  msi.address_lo = static_cast<std::uint32_t>(address);
  msi.address_hi = static_cast<std::uint32_t>(address >> 32);
  msi.data = data;
  return fd_.ioctl(KVM_SIGNAL_MSI, &msi) > 0;
}

void Vm::set_tss_address(std::uint32_t address) const {
  if (fd_.ioctl_value(KVM_SET_TSS_ADDR, address) < 0) {
    throw_failure("set aside pages for real mode (KVM_SET_TSS_ADDR)", errno);
  }
}

void Vm::set_memory_slot(std::uint32_t slot, Gpa at, std::span<std::byte> memory, SlotAccess access) const {
  kvm_userspace_memory_region region{};
  region.slot = slot;
  region.flags = access == SlotAccess::kReadOnly ? KVM_MEM_READONLY : 0;
  region.guest_phys_addr = at.value;
  region.memory_size = memory.size();
  region.userspace_addr = address_of(memory.data());
  if (fd_.ioctl(KVM_SET_USER_MEMORY_REGION, &region) < 0) {
    throw_failure(fmt::format("give the guest {} of memory at {:#x} (KVM_SET_USER_MEMORY_REGION, slot {})",
                              size_text(memory.size()), at.value, slot),
                  errno);
  }
}

bool Vm::has_read_only_memory() const noexcept {
  return fd_.ioctl_value(KVM_CHECK_EXTENSION, KVM_CAP_READONLY_MEM) > 0;
}

void Vm::register_encrypted_region(std::span<std::byte> memory) const {
  kvm_enc_region region{address_of(memory.data()), memory.size()};
  if (fd_.ioctl(KVM_MEMORY_ENCRYPT_REG_REGION, &region) < 0) {
    throw_failure(fmt::format("pin {} of guest memory (KVM_MEMORY_ENCRYPT_REG_REGION)", size_text(memory.size())),
                  errno, 0, errno == ENOMEM ? pinning_advice(memory.size()) : std::string());
  }
}

void Vm::unregister_encrypted_region(std::span<std::byte> memory) const {
  kvm_enc_region region{address_of(memory.data()), memory.size()};
  if (fd_.ioctl(KVM_MEMORY_ENCRYPT_UNREG_REGION, &region) < 0) {
    throw_failure(fmt::format("release {} of guest memory (KVM_MEMORY_ENCRYPT_UNREG_REGION)", size_text(memory.size())),
                  errno);
  }
}

void Vm::launch_start(const SevDevice& sev, std::uint32_t policy, std::span<const std::byte> owner_certificate,
                      std::span<const std::byte> session) const {
  kvm_sev_launch_start start{};
  start.policy = policy;
  if (!owner_certificate.empty() || !session.empty()) {
    start.dh_uaddr = address_of(owner_certificate.data());
    start.dh_len = static_cast<std::uint32_t>(owner_certificate.size());
    start.session_uaddr = address_of(session.data());
    start.session_len = static_cast<std::uint32_t>(session.size());
  }
  sev_command(KVM_SEV_LAUNCH_START, &start, fmt::format("start the launch with policy {:#x} (LAUNCH_START)", policy),
              sev.fd());
}

void Vm::launch_update_data(std::span<std::byte> memory) const {
  if (memory.size() > UINT32_MAX) {
    throw_failure("encrypt and measure memory (LAUNCH_UPDATE_DATA)", EINVAL, 0, "Use a smaller firmware image.");
  }
  kvm_sev_launch_update_data update{};
  update.uaddr = address_of(memory.data());
  update.len = static_cast<std::uint32_t>(memory.size());
  sev_command(KVM_SEV_LAUNCH_UPDATE_DATA, &update,
              fmt::format("encrypt and measure {} bytes (LAUNCH_UPDATE_DATA)", memory.size()));
}

void Vm::launch_update_vmsa() const {
  sev_command(KVM_SEV_LAUNCH_UPDATE_VMSA, nullptr, "encrypt and measure the vCPUs' state (LAUNCH_UPDATE_VMSA)");
}

MeasureBlob Vm::launch_measure() const {
  static constexpr const char* kTried = "read the launch measurement (LAUNCH_MEASURE)";
  MeasureBlob blob{};
  kvm_sev_launch_measure measure{};
  measure.uaddr = address_of(blob.data());
  measure.len = static_cast<std::uint32_t>(blob.size());
  sev_command(KVM_SEV_LAUNCH_MEASURE, &measure, kTried);
  if (measure.len != blob.size()) {
    throw Error(ExitCode::kHostCannot, kTried, fmt::format("it has {} bytes, not {}", measure.len, blob.size()),
                "Report this host's kernel and firmware versions.");
  }
  return blob;
}

void Vm::launch_secret(std::span<std::byte> memory, std::span<const std::byte> header,
                       std::span<const std::byte> payload) const {
  kvm_sev_launch_secret secret{};
  secret.hdr_uaddr = address_of(header.data());
  secret.hdr_len = static_cast<std::uint32_t>(header.size());
  secret.guest_uaddr = address_of(memory.data());
  secret.guest_len = static_cast<std::uint32_t>(memory.size());
  secret.trans_uaddr = address_of(payload.data());
  secret.trans_len = static_cast<std::uint32_t>(payload.size());
  sev_command(KVM_SEV_LAUNCH_SECRET, &secret,
              fmt::format("inject a secret of {} bytes (LAUNCH_SECRET)", payload.size()));
}

void Vm::launch_finish() const { sev_command(KVM_SEV_LAUNCH_FINISH, nullptr, "finish the launch (LAUNCH_FINISH)"); }

kvm_sev_guest_status Vm::guest_status() const {
  kvm_sev_guest_status status{};
  sev_command(KVM_SEV_GUEST_STATUS, &status, "ask for the guest's status (GUEST_STATUS)");
  return status;
}

Vcpu Vm::create_vcpu(unsigned index) const {
  const int fd = fd_.ioctl_value(KVM_CREATE_VCPU, index);
  if (fd < 0) throw_failure(fmt::format("create vCPU {} (KVM_CREATE_VCPU)", index), errno);
  HostFd vcpu(fd_.host(), fd);
  void* state = fd_.host().mmap(fd, vcpu_state_size_);
  if (state == nullptr) throw_failure(fmt::format("map the run area of vCPU {}", index), errno);
  return {std::move(vcpu), index, state, vcpu_state_size_};
}

bool Vm::set_irq_line(std::uint32_t gsi, bool level) const noexcept {
  kvm_irq_level line{};
  line.irq = gsi;
  line.level = level ? 1 : 0;
  return fd_.ioctl(KVM_IRQ_LINE, &line) >= 0;
}

std::optional<std::uint64_t> Vm::clock_ns() const noexcept {
  kvm_clock_data data{};
  if (fd_.ioctl(KVM_GET_CLOCK, &data) < 0) return std::nullopt;
  return data.clock;
}

// --- /dev/kvm ---

Kvm Kvm::open(Host& host) {
  Kvm kvm(open_device(host, "/dev/kvm"));
  const int version = kvm.fd_.ioctl(KVM_GET_API_VERSION);
  if (version < 0) throw_failure("ask for the KVM API version (KVM_GET_API_VERSION)", errno);
  if (version != kApiVersion) {
    throw Error(ExitCode::kHostCannot, "use /dev/kvm",
                fmt::format("its API version is {}, not {}", version, kApiVersion), "Use a kernel of this century.");
  }
  return kvm;
}

int Kvm::capability(int number) const noexcept {
  return std::max(0, fd_.ioctl_value(KVM_CHECK_EXTENSION, static_cast<unsigned long>(number)));
}

unsigned Kvm::max_vcpus() const noexcept {
  for (const int number : {KVM_CAP_MAX_VCPUS, KVM_CAP_NR_VCPUS}) {
    if (const int count = capability(number); count > 0) return static_cast<unsigned>(count);
  }
  return kDefaultMaxVcpus;
}

CpuidTable Kvm::supported_cpuid() const {
  CpuidBlock block(kMaxCpuidEntries);
  block.header()->nent = kMaxCpuidEntries;
  if (fd_.ioctl(KVM_GET_SUPPORTED_CPUID, block.header()) < 0) {
    throw_failure("ask which CPUID leaves the host supports (KVM_GET_SUPPORTED_CPUID)", errno);
  }
  CpuidTable table(std::min<std::size_t>(block.header()->nent, kMaxCpuidEntries));
  if (!table.empty()) std::memcpy(table.data(), block.entries(), table.size() * sizeof(kvm_cpuid_entry2));
  return table;
}

bool Kvm::has_vm_type(unsigned long type) const noexcept {
  return type == kVmTypeDefault || (capability(kCapVmTypes) >> type & 1) != 0;
}

Vm Kvm::create_vm(unsigned long type) const {
  const int mmap_size = fd_.ioctl(KVM_GET_VCPU_MMAP_SIZE);
  if (mmap_size < 0) throw_failure("ask for the size of a vCPU's run area (KVM_GET_VCPU_MMAP_SIZE)", errno);
  if (static_cast<std::size_t>(mmap_size) < sizeof(kvm_run)) {
    throw Error(ExitCode::kHostCannot, "use /dev/kvm", fmt::format("a vCPU's run area has only {} bytes", mmap_size));
  }
  const int fd = fd_.ioctl_value(KVM_CREATE_VM, type);
  if (fd < 0) throw_failure(fmt::format("create a VM of type {} (KVM_CREATE_VM)", type), errno);
  return {HostFd(fd_.host(), fd), static_cast<std::size_t>(mmap_size)};
}

}  // namespace sevisor::kvm
