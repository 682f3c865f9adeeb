#include "plain_machine.hpp"

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <elf.h>
#include <fmt/format.h>
#include <sys/mman.h>

#include "base/bytes.hpp"
#include "base/error.hpp"
#include "emulator/cpu/state/registers.hpp"
#include "ghcb/event.hpp"
#include "ghcb/exit_code.hpp"
#include "ghcb/ioio.hpp"
#include "vmm/machine/cpuid_table.hpp"

namespace sevisor::kvm_unit_tests {

namespace {

using emulator::CpuExit;
using emulator::Vmsa;

constexpr std::uint64_t kDeviceRam = 0xff00'0000;  // pc-testdev's
constexpr std::uint64_t kDeviceRamSize = 1 << 20;
constexpr std::uint64_t kBootInfo = 0x5000;  // multiboot's, and behind it the command line
constexpr std::uint64_t kCommandLine = 0x5100;
constexpr std::uint64_t kSlice = 20'000;  // instructions
constexpr std::uint32_t kMultibootMagic = 0x2badb002;
constexpr std::uint64_t kGpError = 0;
enum : unsigned { kRax = 0, kRcx = 1, kRdx = 2, kRbx = 3 };  // numbers in encodings
constexpr unsigned kGp = 13;
constexpr unsigned kUd = 6;
constexpr unsigned kDb = 1;
constexpr std::uint64_t kTrapFlag = 1 << 8;
constexpr std::uint64_t kDr6SingleStep = 1 << 14;

// The state after INIT (APM vol. 2 table 14-1), real mode at `vector`:0.
Vmsa after_init(std::uint8_t vector) {
  Vmsa v{};
  const sev::VmsaSegment data = {0, 0x93, 0xffff, 0};
  v.es = v.ss = v.ds = v.fs = v.gs = data;
  v.cs = {static_cast<std::uint16_t>(vector << 8), 0x9b, 0xffff, std::uint64_t{vector} << 12};
  v.gdtr = v.idtr = {0, 0, 0xffff, 0};
  v.ldtr = {0, 0x82, 0xffff, 0};
  v.tr = {0, 0x8b, 0xffff, 0};
  v.cr0 = 0x10;
  v.efer = emulator::kEferSvme;
  v.dr6 = 0xffff0ff0;
  v.dr7 = 0x400;
  v.rflags = 2;
  v.g_pat = 0x0007040600070406;
  v.xcr0 = 1;
  v.mxcsr = 0x1f80;
  v.x87_fcw = 0x37f;
  return v;
}

}  // namespace

PlainMachine::PlainMachine(std::span<const std::byte> image, const std::string& command_line, unsigned vcpus)
    : ram_(Mapping::anonymous(kRamSize, PROT_READ | PROT_WRITE)),
      device_ram_(Mapping::anonymous(kDeviceRamSize, PROT_READ | PROT_WRITE)),
      code_(emulator::make_code_cache()),
      vcpus_(vcpus) {
  (void)memory_.set_slot(0, 0, Gpa(0), kRamSize, ram_.data());
  (void)memory_.set_slot(1, 0, Gpa(kDeviceRam), kDeviceRamSize, device_ram_.data());
  chip_.create_pit(true);
  const std::vector<kvm_cpuid_entry2> supported = emulator::supported_cpuid(51);
  for (unsigned i = 0; i < vcpus; ++i) {
    Vcpu& vcpu = vcpus_[i];
    vcpu.cpu = std::make_unique<emulator::Cpu>(
        emulator::CpuConfig{.protection = emulator::Protection::kNone, .random_seed = i}, memory_, *code_, clock_);
    vcpu.devices = std::make_unique<Devices>(*this, i);
    vcpu.instructions = std::make_unique<emulator::InstructionEmulator>(*vcpu.devices);
    vcpu.cpuid = vmm::make_cpuid_table(supported, {.signature = 0x00a00f11, .vcpus = vcpus, .apic_id = i});
    std::erase_if(vcpu.cpuid, [](const kvm_cpuid_entry2& e) { return e.function == 0x8000001f; });
    chip_.add_vcpu(i, i == 0);
    if (i != 0) vcpu.state = State::kWaitsForSipi;
  }
  load(image, command_line);
}

PlainMachine::~PlainMachine() = default;

void PlainMachine::put(std::uint64_t gpa, std::span<const std::byte> bytes) {
  if (gpa > kRamSize || bytes.size() > kRamSize - gpa) {
    throw Error(ExitCode::kBadUsage, "load the image", "it wants memory that is not there", "Give another image.");
  }
  std::ranges::copy(bytes, ram_.bytes().begin() + static_cast<std::ptrdiff_t>(gpa));
}

void PlainMachine::load(std::span<const std::byte> image, const std::string& command_line) {
  Elf32_Ehdr header{};
  const bool whole = image.size() >= sizeof header;
  if (whole) std::memcpy(&header, image.data(), sizeof header);
  if (!whole || std::memcmp(header.e_ident, ELFMAG, SELFMAG) != 0 || header.e_ident[EI_CLASS] != ELFCLASS32 ||
      std::uint64_t{header.e_phoff} + std::uint64_t{header.e_phnum} * sizeof(Elf32_Phdr) > image.size()) {
    throw Error(ExitCode::kBadUsage, "load the image", "it is no ELF of 32 bits",
                "Give a .flat file of kvm-unit-tests.");
  }
  for (unsigned i = 0; i < header.e_phnum; ++i) {
    Elf32_Phdr part{};
    std::memcpy(&part, image.data() + header.e_phoff + i * sizeof part, sizeof part);
    if (part.p_type != PT_LOAD) continue;
    if (std::uint64_t{part.p_offset} + part.p_filesz > image.size()) {
      throw Error(ExitCode::kBadUsage, "load the image", "it is cut off", "Build it again.");
    }
    put(part.p_paddr, image.subspan(part.p_offset, part.p_filesz));
  }
  // Multiboot's information (0.6.96, 3.3): memory sizes in KiB and the command line.
  const std::uint32_t info[] = {0x5, 640, (kRamSize >> 10) - 1024, 0, kCommandLine};
  put(kBootInfo, std::as_bytes(std::span(info)));
  put(kCommandLine, std::as_bytes(std::span(command_line.c_str(), command_line.size() + 1)));

  Vmsa v = after_init(0);
  v.cs = {0x8, 0xc9b, 0xffff'ffff, 0};
  v.es = v.ss = v.ds = v.fs = v.gs = {0x10, 0xc93, 0xffff'ffff, 0};
  v.cr0 = 0x11;
  v.rip = header.e_entry;
  v.rax = kMultibootMagic;
  v.rbx = kBootInfo;
  (void)vcpus_[0].cpu->load(v);
}

void PlainMachine::inject(Vcpu& vcpu, unsigned vector, std::optional<std::uint32_t> error) {
  vcpu.injection = ghcb::encode(ghcb::Event{.vector = static_cast<std::uint8_t>(vector),
                                            .type = ghcb::EventType::kException,
                                            .has_error_code = error.has_value(),
                                            .error_code = error.value_or(0)});
}

void PlainMachine::take_init_and_sipi(unsigned index) {
  Vcpu& vcpu = vcpus_[index];
  if (chip_.init_pending(index) && chip_.take_init(index)) {
    vcpu.injection = 0;
    vcpu.nmi_masked = false;
    vcpu.state = index == 0 ? State::kRunning : State::kWaitsForSipi;
    Vmsa reset = after_init(0);
    reset.cs = {0xf000, 0x9b, 0xffff, 0xffff0000};
    reset.rip = 0xfff0;
    (void)vcpu.cpu->load(reset);
  }
  if (const auto vector = chip_.sipi_pending(index)) {
    (void)chip_.take_sipi(index);
    if (vcpu.state != State::kWaitsForSipi) return;
    (void)vcpu.cpu->load(after_init(*vector));
    vcpu.state = State::kRunning;
  }
}

bool PlainMachine::ready(unsigned index) {
  Vcpu& vcpu = vcpus_[index];
  take_init_and_sipi(index);
  if (vcpu.state == State::kHalted) {
    const bool interrupt = chip_.interrupt_pending(index) && vcpu.cpu->interrupts_enabled();
    if (interrupt || (chip_.nmi_pending(index) && !vcpu.nmi_masked)) vcpu.state = State::kRunning;
  }
  return vcpu.state == State::kRunning;
}

emulator::RunControls PlainMachine::controls_of(unsigned index) {
  Vcpu& vcpu = vcpus_[index];
  emulator::RunControls controls{.instruction_limit = kSlice};
  if (const std::uint64_t deadline = chip_.next_deadline(); deadline != emulator::kNoDeadline) {
    controls.instruction_limit = std::clamp<std::uint64_t>(deadline - std::min(deadline, clock_.now), 1, kSlice);
  }
  controls.iret_window = vcpu.nmi_masked;
  if (vcpu.injection != 0) {
    controls.event_injection = std::exchange(vcpu.injection, 0);
    controls.interrupt_window = chip_.interrupt_pending(index);
    return controls;
  }
  const bool shadow = vcpu.cpu->interrupt_shadow();
  const bool nmi = chip_.nmi_pending(index) && !vcpu.nmi_masked;
  if (nmi && !shadow) {
    chip_.take_nmi(index);
    vcpu.nmi_masked = controls.iret_window = true;
    controls.event_injection = ghcb::encode(ghcb::Event{.vector = 2, .type = ghcb::EventType::kNmi});
  } else if (nmi) {
    controls.instruction_limit = 1;
  } else if (chip_.interrupt_pending(index)) {
    if (!shadow && vcpu.cpu->interrupts_enabled()) {
      if (const auto vector = chip_.acknowledge(index)) {
        controls.event_injection = ghcb::encode(ghcb::Event{.vector = *vector, .type = ghcb::EventType::kExternal});
      }
    }
    controls.interrupt_window = chip_.interrupt_pending(index);
  }
  return controls;
}

Ending PlainMachine::run(std::uint64_t instructions) {
  std::uint64_t retired = 0;
  while (!ending_) {
    bool any = false;
    for (unsigned i = 0; i < vcpus_.size() && !ending_; ++i) {
      chip_.advance(clock_.now);
      if (!ready(i)) continue;
      any = true;
      slice(i);
    }
    if (!any) {
      const std::uint64_t deadline = chip_.next_deadline();
      if (deadline == emulator::kNoDeadline) return {Ending::Why::kStuck, 0, "all vCPUs wait, and no timer is set"};
      clock_.now = std::max(clock_.now + 1, deadline);
      chip_.advance(clock_.now);
    }
    retired = 0;
    for (const Vcpu& vcpu : vcpus_) retired += vcpu.cpu->retired();
    if (retired > instructions) return {Ending::Why::kLimit, 0, vcpus_[0].cpu->describe()};
  }
  return *ending_;
}

void PlainMachine::slice(unsigned index) {
  emulator::Cpu& cpu = *vcpus_[index].cpu;
  const std::uint64_t start = cpu.retired();
  while (!ending_ && cpu.retired() - start < kSlice) {
    chip_.advance(clock_.now);
    if (!ready(index)) return;
    if (cpu.cr8() != chip_.cr8(index)) cpu.set_cr8(chip_.cr8(index));
    const CpuExit exit = cpu.run(controls_of(index));
    chip_.advance(clock_.now);
    if (cpu.cr8() != chip_.cr8(index)) chip_.set_cr8(index, cpu.cr8());
    if (exit.interrupted_event != 0) vcpus_[index].injection = exit.interrupted_event;
    if (!handle(index, exit)) return;
  }
}

bool PlainMachine::handle(unsigned index, const CpuExit& exit) {
  Vcpu& vcpu = vcpus_[index];
  if (!exit.unimplemented.empty()) {
    ending_ = Ending{Ending::Why::kUnsupported, 0, exit.unimplemented};
    return false;
  }
  switch (exit.code) {
    case ghcb::kExitIntr:
    case ghcb::kExitVintr:
      return true;
    case ghcb::kExitIret:
      vcpu.nmi_masked = false;
      return true;
    case ghcb::kExitHlt:
      vcpu.state = State::kHalted;
      trap_if_stepping(vcpu);
      return true;
    case ghcb::kExitPause:
      return false;
    case ghcb::kExitShutdown:
      ending_ = Ending{Ending::Why::kShutdown, 0, vcpu.cpu->describe()};
      return false;
    case ghcb::kExitInvalid:
      ending_ = Ending{Ending::Why::kUnsupported, 0, "VMRUN refuses the state\n" + vcpu.cpu->describe()};
      return false;
    default:
      if (exit.code >= ghcb::kExitEferWriteTrap && exit.code < ghcb::kExitCr0WriteTrap + 16) return true;
      emulate(index, exit);
      return !ending_;
  }
}

void PlainMachine::emulate(unsigned index, const CpuExit& exit) {
  Vcpu& vcpu = vcpus_[index];
  emulator::Cpu& cpu = *vcpu.cpu;
  switch (exit.code) {
    case ghcb::kExitCpuid: {
      Vmsa guest{};
      cpu.save(guest);
      const auto values = emulator::answer_cpuid(vcpu.cpuid, static_cast<std::uint32_t>(guest.rax),
                                                 static_cast<std::uint32_t>(guest.rcx),
                                                 {.osxsave = (guest.cr4 & emulator::kCr4Osxsave) != 0,
                                                  .apic = (chip_.apic(index).apic_base() & 1 << 11) != 0,
                                                  .xcr0 = guest.xcr0});
      cpu.set_general(kRax, values.eax);
      cpu.set_general(kRbx, values.ebx);
      cpu.set_general(kRcx, values.ecx);
      cpu.set_general(kRdx, values.edx);
      break;
    }
    case ghcb::kExitIoio:
    case ghcb::kExitNpf: {
      const bool single = exit.code == ghcb::kExitIoio && (exit.info1 & ghcb::kIoString) == 0;
      const auto outcome = single ? vcpu.instructions->port(cpu, exit) : vcpu.instructions->emulate(cpu);
      if (const auto* failed = std::get_if<CpuExit>(&outcome)) cannot_emulate(vcpu, *failed);
      return;
    }
    case ghcb::kExitMsr:
      if (!msr(index, (exit.info1 & 1) != 0)) {
        inject(vcpu, kGp, kGpError);
        return;
      }
      break;
    case ghcb::kExitVmmcall:
      cpu.set_general(kRax, static_cast<std::uint64_t>(-1000));  // KVM_ENOSYS
      break;
    case ghcb::kExitInvd:
    case ghcb::kExitWbinvd:
    case ghcb::kExitMonitor:
    case ghcb::kExitMwait:
      break;
    case ghcb::kExitRdpmc:
      inject(vcpu, kGp, kGpError);
      return;
    case ghcb::kExitTaskSwitch:
      cannot_emulate(vcpu, exit);
      return;
    default:
      inject(vcpu, kUd);
      return;
  }
  if (cpu.complete_instruction(exit.next_rip)) inject(vcpu, kDb);
}

void PlainMachine::cannot_emulate(const Vcpu& vcpu, const CpuExit& exit) {
  ending_ =
      Ending{Ending::Why::kUnsupported, 0,
             fmt::format("exit {:#x}, {:02x}\n{}", exit.code, fmt::join(exit.instruction, " "), vcpu.cpu->describe())};
}

// An instruction that exited has been completed: #DB is the hypervisor's to raise (kvm_skip_emulated_instruction()).
void PlainMachine::trap_if_stepping(Vcpu& vcpu) {
  Vmsa guest{};
  vcpu.cpu->save(guest);
  if ((guest.rflags & kTrapFlag) == 0) return;
  guest.dr6 |= kDr6SingleStep;
  (void)vcpu.cpu->load(guest);
  vcpu.state = State::kRunning;
  inject(vcpu, kDb);
}

bool PlainMachine::msr(unsigned index, bool write) {
  Vcpu& vcpu = vcpus_[index];
  emulator::Cpu& cpu = *vcpu.cpu;
  const auto number = static_cast<std::uint32_t>(cpu.general(kRcx));
  const bool apic = emulator::Irqchip::owns_msr(number);
  if (write) {
    const std::uint64_t value = cpu.general(kRdx) << 32 | (cpu.general(kRax) & 0xffff'ffff);
    return apic ? chip_.write_msr(index, number, value) : vcpu.msrs.write(number, value);
  }
  const auto value = apic ? chip_.read_msr(index, number) : vcpu.msrs.read(number, clock_.now);
  if (!value) return false;
  cpu.set_general(kRax, *value & 0xffff'ffff);
  cpu.set_general(kRdx, *value >> 32);
  return true;
}

// Every access is answered at once: this machine has no user space.
bool PlainMachine::Devices::port(const ghcb::PortAccess& access) {
  for (std::size_t at = 0; at < access.data.size(); at += access.size) {
    const auto element = access.data.subspan(at, access.size);
    std::uint64_t value = 0;
    if (access.in) {
      value = machine.read_port(access.port, access.size);
      std::memcpy(element.data(), &value, element.size());
    } else {
      std::memcpy(&value, element.data(), element.size());
      machine.write_port(access.port, access.size, value);
    }
  }
  return true;
}

bool PlainMachine::Devices::mmio(const ghcb::MmioAccess& access) {
  if (access.write) {
    (void)machine.chip_.write_mmio(index, access.gpa, access.data);
  } else if (!machine.chip_.read_mmio(index, access.gpa, access.data)) {
    std::ranges::fill(access.data, std::byte{0xff});
  }
  return true;
}

void PlainMachine::Devices::inject_exception(std::uint8_t vector, std::optional<std::uint32_t> error_code) {
  machine.inject(machine.vcpus_[index], vector, error_code);
}

void PlainMachine::write_port(std::uint16_t number, unsigned size, std::uint64_t value) {
  if (number == 0xf4) {
    ending_ = Ending{Ending::Why::kExit, static_cast<unsigned>(value), {}};
  } else if (number == 0x3f8) {
    std::fputc(static_cast<int>(value & 0xff), stdout);
  } else if (number >= 0xe0 && number < 0xe4) {
    store(reinterpret_cast<std::byte*>(&test_port_) + (number - 0xe0), static_cast<std::uint8_t>(value));
    if (size == 2) test_port_ = static_cast<std::uint16_t>(value);
    if (size == 4) test_port_ = static_cast<std::uint32_t>(value);
  } else if (number >= 0x2000 && number < 0x2018) {
    chip_.set_gsi(number - 0x2000U, value != 0);
  } else if (number == 0x510) {
    config_entry_ = static_cast<std::uint16_t>(value);
    config_offset_ = 0;
  } else if (number == 0x70) {
    cmos_index_ = value & 0x7f;
  } else {
    for (unsigned i = 0; i < size; ++i) {
      (void)chip_.write_port(static_cast<std::uint16_t>(number + i), static_cast<std::uint8_t>(value >> 8 * i));
    }
  }
}

std::uint64_t PlainMachine::read_port(std::uint16_t number, unsigned size) {
  if (number == 0x3fd) return 0x60;  // the transmitter is empty
  if (number >= 0xe0 && number < 0xe4) return test_port_ >> 8 * (number - 0xe0);
  if (number == 0x511) {
    // QEMU include/standard-headers/linux/qemu_fw_cfg.h: RAM_SIZE 3, NB_CPUS 5, MAX_CPUS 15.
    const std::uint64_t value = config_entry_ == 3                          ? kRamSize
                                : config_entry_ == 5 || config_entry_ == 15 ? vcpus_.size()
                                                                            : 0;
    return value >> 8 * std::min(config_offset_++, 7U) & 0xff;
  }
  if (number == 0x608) return clock_.now * 3'579'545 / 1'000'000'000 & 0xff'ffff;  // the PM timer
  if (number == 0x71) return cmos_index_ == 0xb ? 2 : clock_.now / 1'000'000'000 % 60;
  std::uint64_t value = 0;
  for (unsigned i = 0; i < size; ++i) {
    std::uint8_t byte = 0xff;
    if (!chip_.read_port(static_cast<std::uint16_t>(number + i), byte)) byte = 0xff;
    value |= std::uint64_t{byte} << 8 * i;
  }
  return value;
}

}  // namespace sevisor::kvm_unit_tests
