#include "boot_machine.hpp"

#include <algorithm>
#include <cstring>
#include <sys/mman.h>
#include <utility>
#include <variant>

#include "base/bytes.hpp"
#include "base/mapping.hpp"
#include "devices/acpi/tables.hpp"
#include "devices/e820.hpp"
#include "devices/smbios.hpp"
#include "emulator/cpu/cpu.hpp"
#include "emulator/memory/guest_memory.hpp"
#include "firmware/image.hpp"
#include "ghcb/event.hpp"
#include "ghcb/exit_code.hpp"
#include "ghcb/msr_protocol.hpp"
#include "sev/footer_table.hpp"
#include "sev/initial_vmsa.hpp"

namespace sevisor::test {

namespace {
constexpr std::uint64_t kRamBytes = 64 << 20;
constexpr unsigned kCBit = 51;
constexpr std::uint64_t kHighBase = std::uint64_t{1} << 32;
constexpr std::uint64_t kTicks = 100;  // so that waiting for what never comes takes less instructions
constexpr std::uint32_t kSignature = 0x00a00f11;
constexpr std::uint64_t kSlice = 2000;  // instructions a vCPU runs before the next has its turn
constexpr std::uint64_t kExitLimit = 4'000'000;

constexpr std::uint16_t kSerialPort = 0x3f8;
constexpr std::uint16_t kLineStatusPort = 0x3fd;
constexpr std::uint8_t kTransmitterEmpty = 0x60;
constexpr std::uint16_t kPciDataPort = 0xcfc;
constexpr std::uint32_t kHostBridge = 0x29c08086;  // whatever the address register says
constexpr std::uint64_t kIcrLow = 0xfee00300;
constexpr std::uint64_t kDeliveryModeMask = 0x700;
constexpr std::uint64_t kInit = 0x500;
constexpr std::uint64_t kStartup = 0x600;
constexpr std::uint32_t kMsrApicBase = 0x1b;
constexpr std::uint32_t kMsrX2Icr = 0x830;
constexpr std::uint64_t kApicBaseX2 = 1 << 10;
constexpr std::uint32_t kMsrMtrrCap = 0xfe;

constexpr std::size_t kSetupBytes = 1024;
constexpr std::size_t kEntry = 0x200;  // of the 64-bit code, behind the setup part

enum class VcpuState { kUnstarted, kWaitsForSipi, kRuns, kHeld };

std::vector<std::byte> bytes_of(std::span<const std::uint8_t> from) {
  const auto view = std::as_bytes(from);
  return {view.begin(), view.end()};
}
}  // namespace

std::vector<std::byte> tiny_kernel(std::size_t padding) {
  constexpr std::uint32_t kRequest = 0x100 | kKernelReasonSet << 12 | kKernelReason << 16;
  std::vector<std::uint8_t> code{0xb9, 0x30, 0x01, 0x01, 0xc0, 0xb8};  // mov ecx, GHCB MSR; mov eax,
  for (unsigned i = 0; i < 4; ++i) code.push_back(static_cast<std::uint8_t>(kRequest >> 8 * i));
  code.insert(code.end(), {0x31, 0xd2, 0x0f, 0x30, 0xf3, 0x0f, 0x01, 0xd9, 0xeb, 0xfe});  // wrmsr; vmgexit; jmp $
  std::size_t rest = align_up(kEntry + code.size() + padding, 16);
  std::vector<std::byte> file(kSetupBytes + rest);
  std::byte* at = file.data();
  store<std::uint8_t>(at + 0x1f1, 1);  // setup_sects
  store<std::uint32_t>(at + 0x1f4, static_cast<std::uint32_t>(rest / 16));
  store<std::uint16_t>(at + 0x1fe, 0xaa55);
  store<std::uint16_t>(at + 0x200, 0x6aeb);
  store<std::uint32_t>(at + 0x202, 0x53726448);  // "HdrS"
  store<std::uint16_t>(at + 0x206, 0x020f);
  store<std::uint8_t>(at + 0x211, 1);            // LOADED_HIGH
  store<std::uint32_t>(at + 0x22c, 0x7fffffff);  // initrd_addr_max
  store<std::uint32_t>(at + 0x230, 0x200000);    // kernel_alignment
  store<std::uint8_t>(at + 0x234, 1);            // relocatable
  store<std::uint16_t>(at + 0x236, 0x7f);        // xloadflags
  store<std::uint32_t>(at + 0x238, 2047);        // cmdline_size
  store<std::uint64_t>(at + 0x258, 0x1000000);   // pref_address
  store<std::uint32_t>(at + 0x260, 0x800000);    // init_size
  std::ranges::copy(bytes_of(code), file.begin() + kSetupBytes + kEntry);
  return file;
}

namespace {
constexpr std::uint8_t kMmioByte = 0x2a;  // what devices read as: '*'
}

struct BootMachine::Impl final : devices::GuestDma {
  struct Vcpu final : ghcb::Environment {
    Vcpu(Impl& machine, unsigned which);

    bool read_shared(Gpa gpa, std::span<std::byte> out) override { return machine.memory.read_shared(gpa, out); }
    bool write_shared(Gpa gpa, std::span<const std::byte> in) override { return machine.memory.write_shared(gpa, in); }
    std::uint64_t ghcb_msr() override { return cpu.ghcb_msr(); }
    void set_ghcb_msr(std::uint64_t value) override { cpu.set_ghcb_msr(value); }
    ghcb::CpuidValues cpuid(std::uint32_t leaf, std::uint32_t sub_leaf, std::optional<std::uint64_t>) override;
    std::optional<std::uint64_t> read_msr(std::uint32_t index) override;
    bool write_msr(std::uint32_t index, std::uint64_t value) override;
    std::uint64_t hypercall(const ghcb::Hypercall&) override { return 0; }
    bool port(const ghcb::PortAccess& access) override;
    bool mmio(const ghcb::MmioAccess& access) override;
    void inject_exception(std::uint8_t, std::optional<std::uint32_t>) override {}
    void nmi_complete() override {}
    std::uint64_t ap_jump_table() override { return machine.jump_table; }
    void set_ap_jump_table(std::uint64_t gpa) override { machine.jump_table = gpa; }

    Impl& machine;
    emulator::Cpu cpu;
    ghcb::Service service;
    VcpuState state;
    bool started = false;
    std::uint64_t apic_base;
    unsigned number;
    unsigned holds = 0;
    bool nmi = false;  // comes at the next VMRUN
  };

  Impl(Lies told, unsigned count);

  // GuestDma
  bool read(Gpa at, std::span<std::byte> to) override { return memory.read_shared(at, to); }
  bool write(Gpa at, std::span<const std::byte> from) override;

  void init_and_startup(std::uint64_t command);
  void give_kernel();
  // The guest's end, if this exit is one.
  std::optional<BootEnd> handle(Vcpu& vcpu, const emulator::CpuExit& exit);
  std::optional<BootEnd> vmgexit(Vcpu& vcpu);

  Lies lies;
  emulator::GuestMemory memory;
  std::unique_ptr<emulator::CodeCache, void (*)(emulator::CodeCache*)> code = emulator::make_code_cache();
  emulator::VirtualClock clock;
  Mapping ram = Mapping::anonymous(kRamBytes, PROT_READ | PROT_WRITE);
  std::optional<Mapping> high_ram;
  Mapping image = Mapping::anonymous(firmware::image().size(), PROT_READ | PROT_WRITE);
  devices::FwCfg fw_cfg{this};
  std::vector<std::byte> kernel = tiny_kernel();
  std::vector<std::byte> initrd;
  std::string command_line;
  std::vector<std::unique_ptr<Vcpu>> vcpus;
  std::uint64_t jump_table = 0;
  std::uint64_t vmgexits = 0;
  std::uint64_t page_replies = 0;
  unsigned x2_commands = 0;
  std::vector<ApRequest> ap_requests;
  std::optional<std::uint64_t> unsupported_event;
  std::vector<std::pair<std::uint64_t, std::uint64_t>> mmio_writes;
  std::string console;
};

BootMachine::Impl::Vcpu::Vcpu(Impl& owner, unsigned which)
    : machine(owner),
      cpu({.c_bit = kCBit, .tsc_per_instruction = kTicks, .random_seed = which}, owner.memory, *owner.code,
          owner.clock),
      service({.c_bit = kCBit, .min_version = owner.lies.min_version, .max_version = owner.lies.max_version}, *this),
      state(which == 0 ? VcpuState::kRuns : VcpuState::kUnstarted),
      apic_base(owner.lies.apic_base),
      number(which) {
  const std::uint32_t reset =
      which == 0 ? sev::kBspResetAddress : sev::require_ap_reset_address(sev::parse_footer_table(firmware::image()));
  if (!cpu.load(sev::initial_vmsa(reset, kSignature, sev::VmsaForm::kEsInit))) std::abort();
  cpu.set_ghcb_msr(service.initial_msr());
}

ghcb::CpuidValues BootMachine::Impl::Vcpu::cpuid(std::uint32_t leaf, std::uint32_t sub_leaf,
                                                 std::optional<std::uint64_t>) {
  ghcb::CpuidValues values;
  switch (leaf) {
    case 0:
      values = {0xd, 0x68747541, 0x444d4163, 0x69746e65};
      break;
    case 1:
      values = {kSignature, 0x800, 0xc0200001, 0x078bfbff};  // x2APIC among others
      break;
    case 0x80000000:
      values.eax = 0x8000001f;
      break;
    case 0x80000008:
      values.eax = 0x3030;
      break;
    case 0x8000001f:
      values = {0xb, kCBit | 5 << 6, 15, 5};
      break;
    default:
      break;
  }
  if (machine.lies.cpuid) machine.lies.cpuid(leaf, sub_leaf, values);
  return values;
}

std::optional<std::uint64_t> BootMachine::Impl::Vcpu::read_msr(std::uint32_t index) {
  if (machine.lies.read_msr) {
    if (const auto value = machine.lies.read_msr(index)) return value;
  }
  if (index == kMsrApicBase) return apic_base;
  if (index == kMsrMtrrCap) return 0x508;
  return std::nullopt;
}

bool BootMachine::Impl::Vcpu::write_msr(std::uint32_t index, std::uint64_t value) {
  if (index == kMsrApicBase) apic_base = value;
  if (index == kMsrX2Icr) {
    if ((apic_base & kApicBaseX2) == 0) return false;
    ++machine.x2_commands;
    machine.init_and_startup(value);
  }
  return true;
}

bool BootMachine::Impl::Vcpu::port(const ghcb::PortAccess& access) {
  for (std::size_t at = 0; at < access.data.size(); at += access.size) {
    const auto element = access.data.subspan(at, access.size);
    const auto offset = static_cast<std::uint16_t>(access.port - devices::kFwCfgPort);
    if (offset < devices::FwCfg::kLength) {
      if (access.in) {
        machine.fw_cfg.read(offset, element);
      } else {
        machine.fw_cfg.write(offset, element);
      }
    } else if (access.in && access.port == kPciDataPort && access.size == sizeof kHostBridge) {
      store(element.data(), kHostBridge);
    } else if (access.in) {
      std::ranges::fill(element, std::byte{access.port == kLineStatusPort ? kTransmitterEmpty : std::uint8_t{0xff}});
    } else if (access.port == kSerialPort) {
      machine.console.push_back(static_cast<char>(element[0]));
    }
  }
  return true;
}

bool BootMachine::Impl::Vcpu::mmio(const ghcb::MmioAccess& access) {
  if (access.write && access.gpa.value == kIcrLow && access.data.size() == 4 && (apic_base & kApicBaseX2) == 0) {
    machine.init_and_startup(load<std::uint32_t>(access.data.data()));
  }
  if (!access.write) std::ranges::fill(access.data, std::byte{kMmioByte});
  if (access.write && access.gpa.page() != Gpa(kIcrLow).page()) {
    std::uint64_t value = 0;
    std::memcpy(&value, access.data.data(), access.data.size());
    machine.mmio_writes.emplace_back(access.gpa.value, value);
  }
  return true;
}

BootMachine::Impl::Impl(Lies told, unsigned count) : lies(std::move(told)) {
  std::array<std::byte, 16> key{}, tweak{};
  key[0] = std::byte{1};
  tweak[0] = std::byte{2};
  memory.set_key(key, tweak);
  std::ranges::copy(firmware::image(), image.data());
  if (memory.set_slot(0, 0, Gpa(0), ram.size(), ram.data()) != 0) std::abort();
  if (memory.set_slot(1, 0, Gpa((std::uint64_t{1} << 32) - image.size()), image.size(), image.data()) != 0)
    std::abort();
  if (lies.high_memory != 0) {
    high_ram.emplace(Mapping::anonymous(lies.high_memory, PROT_READ | PROT_WRITE));
    if (memory.set_slot(2, 0, Gpa(kHighBase), high_ram->size(), high_ram->data()) != 0) std::abort();
  }
  memory.encrypt_host(image.data(), image.size());
  for (unsigned i = 0; i < count; ++i) vcpus.push_back(std::make_unique<Vcpu>(*this, i));

  std::vector<devices::E820Entry> ranges{{Gpa(0), kRamBytes, devices::E820Type::kRam}};
  if (high_ram) ranges.push_back({Gpa(kHighBase), high_ram->size(), devices::E820Type::kRam});
  fw_cfg.add_file(devices::kE820File, devices::FwCfgItem(devices::encode_e820(ranges)));
  devices::acpi::Machine tables;
  for (unsigned i = 0; i < count; ++i) tables.apic_ids.push_back(i);
  devices::acpi::Files files = devices::acpi::build(tables);
  fw_cfg.add_file(devices::acpi::kTablesFile, devices::FwCfgItem(std::move(files.tables)));
  fw_cfg.add_file(devices::acpi::kRsdpFile, devices::FwCfgItem(std::move(files.rsdp)));
  fw_cfg.add_file(devices::acpi::kLoaderFile, devices::FwCfgItem(std::move(files.loader)));
  devices::SmbiosFiles smbios = devices::build_smbios(kRamBytes);
  fw_cfg.add_file(devices::kSmbiosEntryFile, devices::FwCfgItem(std::move(smbios.entry)));
  fw_cfg.add_file(devices::kSmbiosTablesFile, devices::FwCfgItem(std::move(smbios.tables)));
  fw_cfg.add(devices::FwCfgKey::kCpuCount, devices::FwCfgItem::u16(static_cast<std::uint16_t>(count)));
}

bool BootMachine::Impl::write(Gpa at, std::span<const std::byte> from) {
  std::vector<std::byte> bytes(from.begin(), from.end());
  if (lies.dma) lies.dma(bytes);
  return memory.write_shared(at, bytes);
}

void BootMachine::Impl::init_and_startup(std::uint64_t command) {
  for (std::size_t i = 1; i < vcpus.size(); ++i) {
    Vcpu& vcpu = *vcpus[i];
    if ((command & kDeliveryModeMask) == kInit) {
      vcpu.state = VcpuState::kWaitsForSipi;
    } else if ((command & kDeliveryModeMask) == kStartup && vcpu.state == VcpuState::kWaitsForSipi) {
      if (vcpu.started) vcpu.service.finish_hold(true);
      vcpu.started = true;
      vcpu.state = VcpuState::kRuns;
    }
  }
}

void BootMachine::Impl::give_kernel() {
  using devices::FwCfgItem;
  using devices::FwCfgKey;
  const std::size_t setup = std::min(kernel.size(), kSetupBytes);
  const auto file = std::span<const std::byte>(kernel);
  fw_cfg.add(FwCfgKey::kSetupSize, FwCfgItem::u32(static_cast<std::uint32_t>(setup)));
  fw_cfg.add(FwCfgKey::kSetupData, FwCfgItem(file.first(setup)));
  fw_cfg.add(FwCfgKey::kKernelSize, FwCfgItem::u32(static_cast<std::uint32_t>(file.size() - setup)));
  fw_cfg.add(FwCfgKey::kKernelData, FwCfgItem(file.subspan(setup)));
  fw_cfg.add(FwCfgKey::kInitrdSize, FwCfgItem::u32(static_cast<std::uint32_t>(initrd.size())));
  fw_cfg.add(FwCfgKey::kInitrdData, FwCfgItem(std::span<const std::byte>(initrd)));
  const auto text = std::as_bytes(std::span(command_line.c_str(), command_line.size() + 1));
  fw_cfg.add(FwCfgKey::kCommandLineSize, FwCfgItem::u32(static_cast<std::uint32_t>(text.size())));
  fw_cfg.add(FwCfgKey::kCommandLineData, FwCfgItem(text));
  if (lies.fw_cfg) lies.fw_cfg(fw_cfg);
}

std::optional<BootEnd> BootMachine::Impl::vmgexit(Vcpu& vcpu) {
  ++vmgexits;
  const std::uint64_t request = vcpu.cpu.ghcb_msr();
  const bool by_page = (request & 0xfff) == 0;
  ghcb::Page page{};
  const auto page_bytes = std::as_writable_bytes(std::span(&page, 1));
  std::uint64_t exit_code = 0;
  if (by_page && memory.read_shared(Gpa(request), page_bytes)) exit_code = page.exit_code;
  if (by_page && vcpu.number != 0) ap_requests.push_back({vcpu.number, request, exit_code});

  const ghcb::Outcome outcome = vcpu.service.vmgexit();
  if (const auto* end = std::get_if<ghcb::Terminated>(&outcome)) {
    return BootEnd{.kind = BootEnd::Kind::kTerminated,
                   .reason_set = static_cast<unsigned>(end->ghcb_msr >> 12 & 0xf),
                   .reason = static_cast<unsigned>(end->ghcb_msr >> 16 & 0xff)};
  }
  if (std::holds_alternative<ghcb::Held>(outcome)) {
    vcpu.state = VcpuState::kHeld;
    ++vcpu.holds;
    const Wake wake = lies.hold ? lies.hold(vcpu.number, vcpu.holds) : Wake::kNothing;
    if (wake != Wake::kNothing) {
      vcpu.service.finish_hold(wake == Wake::kSipi);
      vcpu.state = VcpuState::kRuns;
      vcpu.nmi = wake == Wake::kNmi;
      if (wake == Wake::kRefusal && memory.read_shared(Gpa(request), page_bytes)) {
        page.exit_info_1 = ghcb::kResultMalformed;
        page.exit_info_2 = static_cast<std::uint64_t>(ghcb::InputError::kUnsupportedEvent);
        (void)memory.write_shared(Gpa(request), page_bytes);
      }
    }
    return std::nullopt;
  }
  const auto* failed = std::get_if<ghcb::Failed>(&outcome);
  if (failed != nullptr && failed->exit_code == ghcb::kExitUnsupportedEvent) {
    // KVM would stop the guest. This hypervisor does not, so that it is the guest's turn to end.
    unsupported_event = page.exit_info_1;
    page.valid.clear();
    page.exit_info_1 = page.exit_info_2 = 0;
    for (const auto field : {ghcb::Field::kExitInfo1, ghcb::Field::kExitInfo2}) page.valid.set(field);
    (void)memory.write_shared(Gpa(request), page_bytes);
    return std::nullopt;
  }
  if (!std::holds_alternative<ghcb::Resume>(outcome)) {
    return BootEnd{.text = "the GHCB service gave outcome " + std::to_string(outcome.index())};
  }
  if (by_page) {
    if (lies.page_reply && memory.read_shared(Gpa(request), page_bytes)) {
      lies.page_reply(page_replies, exit_code, page);
      (void)memory.write_shared(Gpa(request), page_bytes);
    }
    ++page_replies;
  } else if (lies.msr_reply) {
    vcpu.cpu.set_ghcb_msr(lies.msr_reply(request, vcpu.cpu.ghcb_msr()));
  }
  return std::nullopt;
}

std::optional<BootEnd> BootMachine::Impl::handle(Vcpu& vcpu, const emulator::CpuExit& exit) {
  if (!exit.unimplemented.empty()) return BootEnd{.text = exit.unimplemented};
  switch (exit.code) {
    case ghcb::kExitIntr:
    case ghcb::kExitPause:
    case ghcb::kExitEferWriteTrap:
      return std::nullopt;
    case ghcb::kExitVmgexit:
      return vmgexit(vcpu);
    case ghcb::kExitShutdown:
      return BootEnd{.kind = BootEnd::Kind::kShutdown, .text = vcpu.cpu.describe()};
    default:
      if (exit.code >= ghcb::kExitCr0WriteTrap && exit.code < ghcb::kExitCr0WriteTrap + 16) return std::nullopt;
      return BootEnd{.text = "exit " + std::to_string(exit.code) + "\n" + vcpu.cpu.describe()};
  }
}

BootMachine::BootMachine(Lies lies, unsigned vcpus) : impl_(std::make_unique<Impl>(std::move(lies), vcpus)) {}
BootMachine::~BootMachine() = default;

void BootMachine::set_kernel(std::vector<std::byte> file) { impl_->kernel = std::move(file); }
void BootMachine::set_initrd(std::vector<std::byte> file) { impl_->initrd = std::move(file); }
void BootMachine::set_command_line(std::string text) { impl_->command_line = std::move(text); }

void BootMachine::launch_private(std::uint64_t address, std::span<const std::byte> bytes) {
  impl_->memory.store_private(impl_->ram.data() + address, bytes);
}

std::vector<std::byte> BootMachine::private_bytes(std::uint64_t address, std::size_t size) {
  const auto page = impl_->memory.open(Gpa(align_down(address, kPageSize)), emulator::View::kPrivate);
  const std::byte* at = page.host + address % kPageSize;
  return {at, at + size};
}

void BootMachine::write_private(std::uint64_t address, std::span<const std::byte> bytes) {
  const auto page = impl_->memory.open(Gpa(align_down(address, kPageSize)), emulator::View::kPrivate);
  std::ranges::copy(bytes, page.host + address % kPageSize);
}

BootEnd BootMachine::run(std::uint64_t instruction_limit) {
  Impl& machine = *impl_;
  machine.give_kernel();
  std::uint64_t retired = 0;
  const auto finish = [&](BootEnd end) {
    end.console = machine.console;
    end.vmgexits = machine.vmgexits;
    end.x2_commands = machine.x2_commands;
    end.ap_requests = machine.ap_requests;
    end.mmio_writes = machine.mmio_writes;
    end.unsupported_event = machine.unsupported_event;
    end.instructions = 0;
    for (const auto& vcpu : machine.vcpus) end.instructions += vcpu->cpu.retired();
    return end;
  };
  std::uint64_t exits = 0;
  while (retired < instruction_limit && exits < kExitLimit) {
    for (const auto& vcpu : machine.vcpus) {
      const std::uint64_t turn_end = vcpu->cpu.retired() + kSlice;
      while (vcpu->state == VcpuState::kRuns && vcpu->cpu.retired() < turn_end && ++exits < kExitLimit) {
        emulator::RunControls controls{.instruction_limit = turn_end - vcpu->cpu.retired()};
        if (std::exchange(vcpu->nmi, false)) {
          controls.event_injection = ghcb::encode(ghcb::Event{.vector = 2, .type = ghcb::EventType::kNmi});
        }
        if (machine.lies.inject) controls.event_injection = machine.lies.inject(machine.vmgexits);
        const std::uint64_t before = vcpu->cpu.retired();
        const emulator::CpuExit exit = vcpu->cpu.run(controls);
        retired += vcpu->cpu.retired() - before;
        if (auto end = machine.handle(*vcpu, exit)) return finish(std::move(*end));
        if (exit.code == ghcb::kExitPause) break;
      }
    }
  }
  return finish({.kind = BootEnd::Kind::kStuck, .text = machine.vcpus.front()->cpu.describe()});
}

}  // namespace sevisor::test
