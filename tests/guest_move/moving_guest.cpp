#include "moving_guest.hpp"

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <filesystem>
#include <fmt/format.h>
#include <poll.h>
#include <stdexcept>

#include "emulator/kvm/emulated_host.hpp"
#include "firmware/image.hpp"
#include "sev/cpu_type.hpp"
#include "vmm/boot/input_file.hpp"
#include "vmm/boot/kernel_image.hpp"
#include "vmm/machine/cpuid_table.hpp"
#include "vmm/run/vcpu_threads.hpp"

namespace sevisor::test {

namespace {

constexpr std::uint64_t kMemory = 256 << 20;
constexpr std::uint64_t kMaxFile = 64 << 20;
constexpr std::uint32_t kPolicy = 5;  // SEV-ES, no debugging
constexpr std::int64_t kRtcTime = 1'750'000'000;
constexpr std::chrono::seconds kTimeout{600};  // of the wall clock; the guest's own time is virtual

const vmm::CpuModel* cpu_model() { return vmm::find_cpu_model(sev::kDefaultCpuType); }
std::uint32_t cpu_signature() { return sev::cpu_signature(sev::find_cpu_type(sev::kDefaultCpuType)); }

}  // namespace

std::string guest_folder() {
  const std::string folder = SEVISOR_SOURCE_DIR "/build/guest/";
  return std::filesystem::exists(folder + "vmlinuz") && std::filesystem::exists(folder + "initrd.cpio") ? folder : "";
}

NamingHost::NamingHost() : host_(emulator::make_emulated_host()) {}

int NamingHost::ioctl(int fd, unsigned long request, void* argument) {
  const int result = host_->ioctl(fd, request, argument);
  if (result >= 0 && request == KVM_CREATE_VM) {
    kvm_ = fd;
    machine_ = {result, {}};
  }
  if (result >= 0 && request == KVM_CREATE_VCPU && fd == machine_.vm) machine_.vcpus.push_back(result);
  return result;
}

std::uint64_t MovingGuest::Clock::now_ns() { return guest_.machine_->vm.clock_ns().value_or(0); }

MovingGuest::MovingGuest(const GuestSetting& setting)
    : setting_(setting), map_(vmm::make_memory_map(kMemory)), kvm_(kvm::Kvm::open(host_)), ram_(map_) {
  vmm::LaunchConfig config;
  config.policy = kPolicy;
  config.vcpus = setting.vcpus;
  config.cpu_signature = cpu_signature();
  config.cpu_model = cpu_model();
  config.firmware = {firmware::image(), "sevisor"};
  config.init_api = setting.init_api;
  vmm::LaunchedGuest launched = vmm::launch(host_, ram_, config);
  sev_ = std::move(launched.sev);
  firmware_ = std::move(launched.firmware);
  machine_ = std::make_unique<Machine>(Machine{std::move(launched.vm), std::move(launched.vcpus), host_.latest()});

  platform_ = std::make_unique<vmm::Platform>(
      vmm::Platform::Wiring{
          .dma = ram_,
          .clock = clock_,
          .set_irq = [this](std::uint32_t gsi, bool level) { (void)machine_->vm.set_irq_line(gsi, level); },
          .console = [this](std::span<const std::byte> bytes) { print(bytes); },
          .events =
              [this](const devices::MachineEvent& event) {
                const bool power_off = event.kind == devices::MachineEvent::Kind::kPowerOff;
                state_->end({power_off ? ExitCode::kPoweredOff : ExitCode::kCrash, "the guest's own doing"});
              }},
      vmm::Platform::Config{.vcpus = setting.vcpus, .memory = map_, .rtc_time = kRtcTime});
  const vmm::FileBytes kernel = vmm::read_input_file("kernel", guest_folder() + "vmlinuz", kMaxFile);
  const vmm::FileBytes initrd = vmm::read_input_file("initrd", guest_folder() + "initrd.cpio", kMaxFile);
  platform_->add_kernel(kernel, vmm::parse_kernel_image(*kernel, "vmlinuz"), initrd, setting.command_line);
}

MovingGuest::~MovingGuest() = default;

void MovingGuest::print(std::span<const std::byte> bytes) {
  const std::lock_guard lock(mutex_);
  for (const std::byte byte : bytes) console_.push_back(static_cast<char>(byte));
  if (!wanted_.empty() && console_.find(wanted_, seen_) != std::string::npos) {
    state_->end({kStopped, "the console has shown what was waited for"});
  }
}

std::string MovingGuest::console() const {
  const std::lock_guard lock(mutex_);
  return console_;
}

vmm::Outcome MovingGuest::run_until(const std::string& text) {
  vmm::RunState state;
  state_ = &state;
  {
    const std::lock_guard lock(mutex_);
    seen_ = console_.size();
    wanted_ = text;
  }
  vmm::Buses buses = platform_->buses();
  buses.memory = &ram_;
  for (const kvm::Vcpu& vcpu : machine_->vcpus) vcpu.set_immediate_exit(false);
  vmm::VcpuThreads threads(machine_->vcpus, buses, state);
  const auto deadline = std::chrono::steady_clock::now() + kTimeout;
  while (!state.ended()) {
    pollfd event{state.event_fd(), POLLIN, 0};
    (void)::poll(&event, 1, 1000);
    if (std::chrono::steady_clock::now() > deadline) state.end({ExitCode::kTimedOut, "the guest is still running"});
  }
  threads.stop();
  vmm::Outcome outcome = *state.outcome();
  if (outcome.code == kStopped) complete_exits(state);
  state_ = nullptr;
  return outcome;
}

// What the devices have answered last is in kvm_run: KVM takes it up with the next KVM_RUN, and no move carries it
// over.
void MovingGuest::complete_exits(vmm::RunState& state) {
  vmm::Buses buses = platform_->buses();
  for (const kvm::Vcpu& vcpu : machine_->vcpus) {
    vcpu.set_immediate_exit(true);
    int error_number = 0;
    while ((error_number = vcpu.run()) == 0) {
      if (auto outcome = vmm::handle_exit(vcpu.state(), vcpu.state_size(), vcpu.index(), buses)) {
        state.end(std::move(*outcome));
        throw std::runtime_error(fmt::format("vCPU {} ended while it was stopped", vcpu.index()));
      }
    }
    if (error_number != EINTR) {
      throw std::runtime_error(fmt::format("stop vCPU {}: {}", vcpu.index(), std::strerror(error_number)));
    }
  }
}

MovingGuest::Machine MovingGuest::make_machine() {
  const kvm::CpuidTable supported = kvm_.supported_cpuid();
  const unsigned long type = setting_.init_api == vmm::InitApi::kInit2 ? kvm::kVmTypeSevEs : kvm::kVmTypeDefault;
  Machine machine{kvm_.create_vm(type), {}, {}};
  machine.vm.create_irqchip();
  machine.vm.create_pit();
  std::uint32_t slot = 0;
  for (const vmm::GuestRam::Region& region : ram_.regions()) {
    machine.vm.set_memory_slot(slot++, region.base, region.memory.bytes());
  }
  machine.vm.set_memory_slot(slot, Gpa(vmm::kFirmwareEnd - firmware_->size()), firmware_->bytes());
  for (unsigned index = 0; index < setting_.vcpus; ++index) {
    machine.vcpus.push_back(machine.vm.create_vcpu(index));
    machine.vcpus.back().set_cpuid(
        vmm::make_cpuid_table(supported, {cpu_signature(), setting_.vcpus, index, cpu_model()}));
  }
  machine.fds = host_.latest();
  return machine;
}

// Linux virt/kvm/kvm_main.c kvm_vm_ioctl(), kvm_vcpu_ioctl(): before they look at the number.
void MovingGuest::must_be_dead(const MachineFds& machine) {
  constexpr unsigned long kVmRequests[] = {KVM_CHECK_EXTENSION,
                                           KVM_CREATE_VCPU,
                                           KVM_SET_USER_MEMORY_REGION,
                                           KVM_CREATE_IRQCHIP,
                                           KVM_IRQ_LINE,
                                           KVM_GET_IRQCHIP,
                                           KVM_SET_IRQCHIP,
                                           KVM_GET_CLOCK,
                                           KVM_ENABLE_CAP,
                                           KVM_MEMORY_ENCRYPT_OP,
                                           KVM_MEMORY_ENCRYPT_REG_REGION,
                                           KVM_MEMORY_ENCRYPT_UNREG_REGION,
                                           0xaeff};
  constexpr unsigned long kVcpuRequests[] = {KVM_RUN,          KVM_GET_REGS,  KVM_SET_REGS,        KVM_GET_SREGS,
                                             KVM_GET_MSRS,     KVM_SET_MSRS,  KVM_GET_VCPU_EVENTS, KVM_GET_MP_STATE,
                                             KVM_SET_MP_STATE, KVM_GET_LAPIC, KVM_SET_LAPIC,       KVM_NMI,
                                             KVM_SET_CPUID2,   0xaeff};
  alignas(16) std::array<std::byte, 8192> any{};
  const auto must_be_eio = [&](int fd, unsigned long request, const char* of) {
    errno = 0;
    if (host_.ioctl(fd, request, any.data()) != -1 || errno != EIO) {
      throw std::runtime_error(fmt::format("ioctl {:#x} of a {} that was left: errno {}, not EIO", request, of, errno));
    }
  };
  for (const unsigned long request : kVmRequests) must_be_eio(machine.vm, request, "VM");
  for (const int vcpu : machine.vcpus) {
    for (const unsigned long request : kVcpuRequests) must_be_eio(vcpu, request, "vCPU");
  }
}

void MovingGuest::move() {
  auto next = std::make_unique<Machine>(make_machine());
  const MachineState state = read_state(host_, host_.kvm(), machine_->fds);
  write_state_before(state, host_, next->fds);
  kvm_enable_cap cap{};
  cap.cap = KVM_CAP_VM_MOVE_ENC_CONTEXT_FROM;
  cap.args[0] = static_cast<std::uint64_t>(machine_->fds.vm);
  if (host_.ioctl(next->fds.vm, KVM_ENABLE_CAP, &cap) != 0) {
    throw std::runtime_error(fmt::format("KVM_CAP_VM_MOVE_ENC_CONTEXT_FROM: {}", std::strerror(errno)));
  }
  write_state_after(state, host_, next->fds);
  left_.push_back(std::exchange(machine_, std::move(next)));
  for (const auto& left : left_) must_be_dead(left->fds);
}

}  // namespace sevisor::test
