#include "vmm/machine/platform.hpp"

#include <numeric>
#include <span>
#include <vector>

#include "devices/acpi/tables.hpp"
#include "devices/e820.hpp"
#include "devices/smbios.hpp"

namespace sevisor::vmm {

namespace {

using devices::FwCfgItem;
using devices::FwCfgKey;

FwCfgItem item_of(const FileBytes& file, std::size_t begin, std::size_t size) {
  return FwCfgItem(std::span(*file).subspan(begin, size), file);
}

}  // namespace

devices::IrqLine Platform::line_of(const Wiring& wiring, std::uint32_t gsi) const {
  if (devices::IoApic* chip = io_apic_.get()) return [chip, gsi](bool level) { chip->set_line(gsi, level); };
  return [set_irq = wiring.set_irq, gsi](bool level) { set_irq(gsi, level); };
}

Platform::Platform(const Wiring& wiring, const Config& config)
    : io_apic_(wiring.io_apic ? std::make_unique<devices::IoApic>(*wiring.io_apic) : nullptr),
      uart_(line_of(wiring, devices::kCom1Irq), wiring.console),
      serial_input_(uart_),
      rtc_(wiring.clock, {config.rtc_time, config.memory.low_size(), config.memory.high_size()},
           line_of(wiring, devices::kRtcIrq)),
      pm_timer_(wiring.clock),
      pm1_(wiring.events, line_of(wiring, devices::kSciIrq)),
      reset_(wiring.events),
      pci_(reset_, wiring.events),
      system_control_(wiring.events),
      keyboard_(wiring.events),
      pvpanic_(wiring.events),
      fw_cfg_(&wiring.dma) {
  ports_.add(devices::kI8042DataPort, 1, keyboard_, "i8042 data", devices::I8042Stub::kDataOffset);
  ports_.add(devices::kI8042CommandPort, 1, keyboard_, "i8042 command", devices::I8042Stub::kCommandOffset);
  ports_.add(devices::kRtcPort, devices::RtcCmos::kLength, rtc_, "RTC");
  ports_.add(devices::kPostCodePort, 1, post_code_, "POST code");
  ports_.add(devices::kSystemControlPortA, devices::SystemControlA::kLength, system_control_, "system control A");
  ports_.add(devices::kCom1Port, devices::Uart16550::kLength, serial_input_, "COM1");
  ports_.add(devices::kPvpanicPort, devices::Pvpanic::kLength, pvpanic_, "pvpanic");
  ports_.add(devices::kFwCfgPort, devices::FwCfg::kLength, fw_cfg_, "fw_cfg");
  ports_.add(devices::kPmTimerPort, devices::PmTimer::kLength, pm_timer_, "PM timer");
  ports_.add(devices::kPm1Port, devices::Pm1Registers::kLength, pm1_, "ACPI PM1");
  ports_.add(devices::kPciConfigPort, devices::PciHost::kLength, pci_, "PCI configuration and reset register");
  mmio_.add_movable(pci_);
  // A request by GHCB may name any address. RAM is no device's, wherever the guest puts the configuration space.
  for (const RamRange& range : config.memory.ram) mmio_.add(range.base.value, range.size, ram_, "RAM");
  if (io_apic_) mmio_.add(devices::IoApic::kBase, devices::IoApic::kLength, *io_apic_, "IOAPIC");
  if (!config.flash.content.empty()) {
    flash_.emplace(config.flash.content, config.flash.changed);
    mmio_.add(config.flash.base.value, config.flash.content.size(), *flash_, "flash");
  }
  add_tables(config);
}

void Platform::add_tables(const Config& config) {
  std::vector<devices::E820Entry> map;
  for (const RamRange& range : config.memory.ram) map.push_back({range.base, range.size, devices::E820Type::kRam});
  fw_cfg_.add_file(devices::kE820File, FwCfgItem(devices::encode_e820(map)));

  devices::acpi::Machine machine;
  machine.pic = !io_apic_;
  machine.pvpanic_port = devices::kPvpanicPort;
  machine.apic_ids.resize(config.vcpus);
  std::iota(machine.apic_ids.begin(), machine.apic_ids.end(), 0U);
  devices::acpi::Files files = devices::acpi::build(machine);
  fw_cfg_.add_file(devices::acpi::kTablesFile, FwCfgItem(std::move(files.tables)));
  fw_cfg_.add_file(devices::acpi::kRsdpFile, FwCfgItem(std::move(files.rsdp)));
  fw_cfg_.add_file(devices::acpi::kLoaderFile, FwCfgItem(std::move(files.loader)));

  devices::SmbiosFiles smbios = devices::build_smbios(config.memory.low_size() + config.memory.high_size());
  fw_cfg_.add_file(devices::kSmbiosEntryFile, FwCfgItem(std::move(smbios.entry)));
  fw_cfg_.add_file(devices::kSmbiosTablesFile, FwCfgItem(std::move(smbios.tables)));

  const auto vcpus = static_cast<std::uint16_t>(config.vcpus);
  fw_cfg_.add(FwCfgKey::kCpuCount, FwCfgItem::u16(vcpus));
  fw_cfg_.add(FwCfgKey::kMaxCpus, FwCfgItem::u16(vcpus));
  fw_cfg_.add(FwCfgKey::kRamSize, FwCfgItem::u64(config.memory.low_size() + config.memory.high_size()));
  fw_cfg_.add(FwCfgKey::kNoGraphic, FwCfgItem::u16(1));
}

void Platform::add_kernel(const FileBytes& kernel, const KernelImage& header, const FileBytes& initrd,
                          const std::string& cmdline) {
  const std::size_t rest = kernel->size() - header.setup_size;
  fw_cfg_.add(FwCfgKey::kSetupSize, FwCfgItem::u32(static_cast<std::uint32_t>(header.setup_size)));
  fw_cfg_.add(FwCfgKey::kSetupData, item_of(kernel, 0, header.setup_size));
  fw_cfg_.add(FwCfgKey::kKernelSize, FwCfgItem::u32(static_cast<std::uint32_t>(rest)));
  fw_cfg_.add(FwCfgKey::kKernelData, item_of(kernel, header.setup_size, rest));
  if (initrd != nullptr) {
    fw_cfg_.add(FwCfgKey::kInitrdSize, FwCfgItem::u32(static_cast<std::uint32_t>(initrd->size())));
    fw_cfg_.add(FwCfgKey::kInitrdData, item_of(initrd, 0, initrd->size()));
  }
  const auto text = std::as_bytes(std::span(cmdline.c_str(), cmdline.size() + 1));  // with the final NUL
  fw_cfg_.add(FwCfgKey::kCommandLineSize, FwCfgItem::u32(static_cast<std::uint32_t>(text.size())));
  fw_cfg_.add(FwCfgKey::kCommandLineData, FwCfgItem(std::vector<std::byte>(text.begin(), text.end())));
}

}  // namespace sevisor::vmm
