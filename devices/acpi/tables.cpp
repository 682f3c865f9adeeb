#include "devices/acpi/tables.hpp"

#include <algorithm>
#include <fmt/format.h>
#include <span>
#include <string_view>

#include "base/bytes.hpp"
#include "base/error.hpp"
#include "devices/acpi/aml.hpp"
#include "devices/acpi/loader.hpp"

namespace sevisor::devices::acpi {

namespace {
using Bytes = std::vector<std::byte>;

constexpr std::string_view kOemId = "SEVISR";         // 6 bytes
constexpr std::string_view kOemTableId = "SEVISOR ";  // 8 bytes
constexpr std::string_view kCreatorId = "SVSR";       // 4 bytes

// The header of every table (ACPI 6.4, table 5.4).
namespace header {
constexpr std::size_t kLength = 4;
constexpr std::size_t kRevision = 8;
constexpr std::size_t kChecksum = 9;
constexpr std::size_t kOem = 10;
constexpr std::size_t kOemTable = 16;
constexpr std::size_t kOemRevision = 24;
constexpr std::size_t kCreator = 28;
constexpr std::size_t kCreatorRevision = 32;
constexpr std::size_t kSize = 36;
}  // namespace header

// Fixed ACPI Description Table, revision 6 (ACPI 6.4, table 5.9).
namespace fadt {
constexpr std::uint8_t kRevision = 6;
constexpr std::uint8_t kMinorRevisionValue = 4;
constexpr std::size_t kFirmwareControl = 36;
constexpr std::size_t kSciInterrupt = 46;
constexpr std::size_t kPm1EventBlock = 56;
constexpr std::size_t kPm1ControlBlock = 64;
constexpr std::size_t kPmTimerBlock = 76;
constexpr std::size_t kPm1EventLength = 88;
constexpr std::size_t kPm1ControlLength = 89;
constexpr std::size_t kPmTimerLength = 91;
constexpr std::size_t kLevel2Latency = 96;
constexpr std::size_t kLevel3Latency = 98;
constexpr std::size_t kCentury = 108;
constexpr std::size_t kBootArchitecture = 109;
constexpr std::size_t kFlags = 112;
constexpr std::size_t kResetRegister = 116;
constexpr std::size_t kResetValue = 128;
constexpr std::size_t kMinorRevision = 131;
constexpr std::size_t kXDsdt = 140;
constexpr std::size_t kXPm1EventBlock = 148;
constexpr std::size_t kXPm1ControlBlock = 172;
constexpr std::size_t kXPmTimerBlock = 208;
constexpr std::size_t kSize = 276;

// Flags (table 5.10).
constexpr std::uint32_t kWbinvd = 1U << 0;
constexpr std::uint32_t kNoFixedSleepButton = 1U << 5;
constexpr std::uint32_t kNoFixedRtcWake = 1U << 6;
constexpr std::uint32_t kResetRegisterSupported = 1U << 10;

// IA-PC boot architecture flags (table 5.11). No 8042, so that nobody looks for it.
constexpr std::uint16_t kLegacyDevices = 1U << 0;
constexpr std::uint16_t kNoVga = 1U << 2;
constexpr std::uint16_t kNoAspm = 1U << 4;
constexpr std::uint16_t kNoCmosRtc = 1U << 5;

constexpr std::uint16_t kNoC2 = 101;  // latencies above 100 and 1000 us say that there is no such state
constexpr std::uint16_t kNoC3 = 1001;
constexpr std::uint8_t kPm1EventBytes = 4;
constexpr std::uint8_t kPm1ControlBytes = 2;
constexpr std::uint8_t kPmTimerBytes = 4;
constexpr std::uint8_t kCmosCentury = 0x32;
}  // namespace fadt

// Firmware ACPI Control Structure (ACPI 6.4, table 5.13): only the global lock, which nobody else takes.
namespace facs {
constexpr std::size_t kLength = 4;
constexpr std::size_t kVersion = 32;
constexpr std::size_t kSize = 64;
constexpr std::size_t kAlignment = 64;
constexpr std::uint8_t kVersionValue = 2;
}  // namespace facs

// Multiple APIC Description Table (ACPI 6.4, 5.2.12).
namespace madt {
constexpr std::uint8_t kRevision = 5;
constexpr std::uint8_t kLocalApic = 0;
constexpr std::uint8_t kIoApic = 1;
constexpr std::uint8_t kInterruptOverride = 2;
constexpr std::uint8_t kLocalApicNmi = 4;
constexpr std::uint8_t kLocalX2Apic = 9;
constexpr std::uint8_t kLocalX2ApicNmi = 10;
constexpr std::uint32_t kEnabled = 1;
constexpr std::uint32_t kPcatCompatible = 1;     // there is a pair of 8259s
constexpr std::uint16_t kActiveHighLevel = 0xd;  // MPS INTI flags (table 5.27)
constexpr std::uint32_t kFirstX2ApicOnlyId = 255;
constexpr std::uint8_t kAllProcessors = 0xff;
constexpr std::uint32_t kAllX2Processors = 0xffffffff;
constexpr std::uint8_t kNmiInput = 1;  // LINT1, as on every PC
}  // namespace madt

constexpr std::uint8_t kDsdtRevision = 2;  // 64-bit integers
constexpr std::uint8_t kXsdtRevision = 1;

// Root System Description Pointer (ACPI 6.4, table 5.3).
namespace rsdp {
constexpr std::string_view kSignature = "RSD PTR ";
constexpr std::size_t kChecksum = 8;
constexpr std::size_t kOem = 9;
constexpr std::size_t kRevision = 15;
constexpr std::size_t kLength = 20;
constexpr std::size_t kXsdt = 24;
constexpr std::size_t kExtendedChecksum = 32;
constexpr std::size_t kSize = 36;
constexpr std::size_t kFirstPart = 20;  // what the first checksum covers
constexpr std::uint8_t kRevisionValue = 2;
}  // namespace rsdp

constexpr std::uint32_t kTablesAlignment = 64;
constexpr std::uint32_t kRsdpAlignment = 16;
constexpr std::size_t kTableAlignment = 16;

template <class T>
void add(Bytes& to, T value) {
  to.resize(to.size() + sizeof value);
  store(to.data() + to.size() - sizeof value, value);
}

void put(Bytes& to, std::size_t offset, std::string_view text) {
  std::ranges::copy(std::as_bytes(std::span(text)), to.begin() + static_cast<std::ptrdiff_t>(offset));
}

// A table's header; finish() sets the length.
Bytes begin(std::string_view signature, std::uint8_t revision) {
  Bytes table(header::kSize);
  put(table, 0, signature);
  store(&table[header::kRevision], revision);
  put(table, header::kOem, kOemId);
  put(table, header::kOemTable, kOemTableId);
  store(&table[header::kOemRevision], std::uint32_t{1});
  put(table, header::kCreator, kCreatorId);
  store(&table[header::kCreatorRevision], std::uint32_t{1});
  return table;
}

void finish(Bytes& table) { store(&table[header::kLength], static_cast<std::uint32_t>(table.size())); }

// Generic Address Structure in I/O space (ACPI 6.4, table 5.1), register of `bytes` bytes.
void put_io_register(Bytes& table, std::size_t offset, std::uint16_t port, std::uint8_t bytes) {
  constexpr std::uint8_t kSystemIo = 1;
  // 1: byte, 2: word, 3: double word. PM1's event block is two registers of a word each.
  const std::uint8_t access_size = bytes == 4 ? 3 : bytes;
  table[offset] = std::byte{kSystemIo};
  table[offset + 1] = static_cast<std::byte>(8 * bytes);
  table[offset + 2] = std::byte{0};  // bit offset
  table[offset + 3] = std::byte{access_size};
  store(&table[offset + 4], std::uint64_t{port});
}

Bytes make_dsdt(const Machine& machine) {
  Bytes table = begin("DSDT", kDsdtRevision);
  const auto append = [&](const Aml& aml) { table.insert(table.end(), aml.begin(), aml.end()); };
  constexpr std::uint64_t kPresent = 0xf;  // _STA: present, enabled, shown, working
  append(aml_name("\\_S5",
                  aml_package({aml_integer(machine.sleep_type_s5), aml_integer(0), aml_integer(0), aml_integer(0)})));
  if (machine.com1) {
    append(aml_scope("\\_SB",
                     {aml_device("COM1", {
                                             aml_name("_HID", aml_eisa_id("PNP0501")),
                                             aml_name("_UID", aml_integer(1)),
                                             aml_name("_STA", aml_integer(kPresent)),
                                             aml_name("_CRS", aml_resources({aml_io_ports(0x3f8, 8), aml_irq(4)})),
                                         })}));
  }
  if (machine.rtc) {
    append(
        aml_scope("\\_SB", {aml_device("RTC", {
                                                  aml_name("_HID", aml_eisa_id("PNP0B00")),
                                                  aml_name("_STA", aml_integer(kPresent)),
                                                  aml_name("_CRS", aml_resources({aml_io_ports(0x70, 2), aml_irq(8)})),
                                              })}));
  }
  if (machine.pvpanic_port != 0) {
    append(aml_scope("\\_SB",
                     {aml_device("PEVT", {
                                             aml_name("_HID", aml_string("QEMU0001")),
                                             aml_name("_STA", aml_integer(kPresent)),
                                             aml_name("_CRS", aml_resources({aml_io_ports(machine.pvpanic_port, 1)})),
                                         })}));
  }
  finish(table);
  return table;
}

Bytes make_facs() {
  Bytes table(facs::kSize);
  put(table, 0, "FACS");
  store(&table[facs::kLength], static_cast<std::uint32_t>(facs::kSize));
  store(&table[facs::kVersion], facs::kVersionValue);
  return table;
}

// `facs_offset`, `dsdt`: offsets in the tables file; the loader makes them
// addresses.
Bytes make_fadt(const Machine& machine, std::uint32_t facs_offset, std::uint64_t dsdt) {
  Bytes table = begin("FACP", fadt::kRevision);
  table.resize(fadt::kSize);
  store(&table[fadt::kLevel2Latency], fadt::kNoC2);
  store(&table[fadt::kLevel3Latency], fadt::kNoC3);
  if (machine.rtc) table[fadt::kCentury] = std::byte{fadt::kCmosCentury};
  const std::uint16_t boot = fadt::kLegacyDevices | fadt::kNoVga | fadt::kNoAspm;
  store(&table[fadt::kBootArchitecture], static_cast<std::uint16_t>(machine.rtc ? boot : boot | fadt::kNoCmosRtc));
  // There is a fixed power button: bit 4 would say that there is none.
  store(&table[fadt::kFlags],
        fadt::kWbinvd | fadt::kNoFixedSleepButton | fadt::kNoFixedRtcWake | fadt::kResetRegisterSupported);
  put_io_register(table, fadt::kResetRegister, machine.reset_port, 1);
  store(&table[fadt::kResetValue], machine.reset_value);
  store(&table[fadt::kMinorRevision], fadt::kMinorRevisionValue);
  store(&table[fadt::kXDsdt], dsdt);
  store(&table[fadt::kFirmwareControl], facs_offset);
  store(&table[fadt::kSciInterrupt], std::uint16_t{machine.sci_irq});
  const auto put_block = [&](std::size_t old_field, std::size_t length_field, std::size_t field, std::uint16_t port,
                             std::uint8_t bytes) {
    store(&table[old_field], std::uint32_t{port});
    store(&table[length_field], bytes);
    put_io_register(table, field, port, bytes);
  };
  put_block(fadt::kPm1EventBlock, fadt::kPm1EventLength, fadt::kXPm1EventBlock, machine.pm1_event_port,
            fadt::kPm1EventBytes);
  put_block(fadt::kPm1ControlBlock, fadt::kPm1ControlLength, fadt::kXPm1ControlBlock, machine.pm1_control_port,
            fadt::kPm1ControlBytes);
  put_block(fadt::kPmTimerBlock, fadt::kPmTimerLength, fadt::kXPmTimerBlock, machine.pm_timer_port,
            fadt::kPmTimerBytes);
  finish(table);
  return table;
}

void add_structure_header(Bytes& table, std::uint8_t type, std::uint8_t length) {
  add(table, type);
  add(table, length);
}

void add_processor(Bytes& table, std::uint32_t uid, std::uint32_t apic_id) {
  // An entry of the older kind holds 8 bits of either number, and 255 means all of them.
  if (apic_id < madt::kFirstX2ApicOnlyId && uid < madt::kFirstX2ApicOnlyId) {
    add_structure_header(table, madt::kLocalApic, 8);
    add(table, static_cast<std::uint8_t>(uid));
    add(table, static_cast<std::uint8_t>(apic_id));
    add(table, madt::kEnabled);
  } else {
    add_structure_header(table, madt::kLocalX2Apic, 16);
    add(table, std::uint16_t{0});
    add(table, apic_id);
    add(table, madt::kEnabled);
    add(table, uid);
  }
}

Bytes make_madt(const Machine& machine) {
  Bytes table = begin("APIC", madt::kRevision);
  add(table, machine.local_apic_address);
  add(table, machine.pic ? madt::kPcatCompatible : std::uint32_t{0});
  for (std::size_t i = 0; i < machine.apic_ids.size(); ++i) {
    add_processor(table, static_cast<std::uint32_t>(i), machine.apic_ids[i]);
  }
  add_structure_header(table, madt::kIoApic, 12);
  add(table, std::uint8_t{0});  // its ID
  add(table, std::uint8_t{0});
  add(table, machine.ioapic_address);
  add(table, std::uint32_t{0});  // first global interrupt

  // The SCI alone differs from ISA's edge-triggered interrupts.
  add_structure_header(table, madt::kInterruptOverride, 10);
  add(table, std::uint8_t{0});  // ISA
  add(table, machine.sci_irq);
  add(table, std::uint32_t{machine.sci_irq});
  add(table, madt::kActiveHighLevel);

  add_structure_header(table, madt::kLocalApicNmi, 6);
  add(table, madt::kAllProcessors);
  add(table, std::uint16_t{0});  // polarity and trigger as the bus has them
  add(table, madt::kNmiInput);
  if (std::ranges::any_of(machine.apic_ids, [](std::uint32_t id) { return id >= madt::kFirstX2ApicOnlyId; })) {
    add_structure_header(table, madt::kLocalX2ApicNmi, 12);
    add(table, std::uint16_t{0});
    add(table, madt::kAllX2Processors);
    add(table, madt::kNmiInput);
    table.resize(table.size() + 3);
  }
  finish(table);
  return table;
}

void check(const Machine& machine) {
  constexpr const char* kTried = "build the ACPI tables";
  if (machine.apic_ids.empty()) throw Error(ExitCode::kCrash, kTried, "the machine has no CPU");
  auto ids = machine.apic_ids;
  std::ranges::sort(ids);
  if (const auto twice = std::ranges::adjacent_find(ids); twice != ids.end()) {
    throw Error(ExitCode::kCrash, kTried, fmt::format("two CPUs have the APIC ID {}", *twice));
  }
}

// Puts the tables one after another and writes the script that patches them.
class TablesFile {
 public:
  // Gives the table's offset in the file.
  std::uint32_t append(const Bytes& table) {
    bytes_.resize(align_up(bytes_.size(), kTableAlignment));
    const auto offset = static_cast<std::uint32_t>(bytes_.size());
    bytes_.insert(bytes_.end(), table.begin(), table.end());
    tables_.push_back({offset, static_cast<std::uint32_t>(table.size())});
    return offset;
  }
  // A structure without a header, and so without a checksum.
  std::uint32_t append_bare(const Bytes& structure, std::size_t alignment) {
    bytes_.resize(align_up(bytes_.size(), alignment));
    const auto offset = static_cast<std::uint32_t>(bytes_.size());
    bytes_.insert(bytes_.end(), structure.begin(), structure.end());
    return offset;
  }
  // The `size` bytes at `offset` of the file hold the offset of something in the file.
  void add_pointer(std::uint32_t offset, std::uint8_t size = sizeof(std::uint64_t)) {
    pointers_.push_back({offset, size});
  }

  void write_script(LoaderScript& script) const {
    for (const auto& [offset, size] : pointers_) script.add_pointer(kTablesFile, kTablesFile, offset, size);
    for (const auto& [offset, length] : tables_) {
      script.add_checksum(kTablesFile, static_cast<std::uint32_t>(offset + header::kChecksum), offset, length);
    }
  }

  [[nodiscard]] Bytes take() && { return std::move(bytes_); }

 private:
  struct Placed {
    std::uint32_t offset;
    std::uint32_t length;
  };
  Bytes bytes_;
  std::vector<Placed> tables_;
  struct Pointer {
    std::uint32_t offset;
    std::uint8_t size;
  };
  std::vector<Pointer> pointers_;
};

Bytes make_rsdp(std::uint64_t xsdt) {
  Bytes table(rsdp::kSize);
  put(table, 0, rsdp::kSignature);
  put(table, rsdp::kOem, kOemId);
  store(&table[rsdp::kRevision], rsdp::kRevisionValue);
  store(&table[rsdp::kLength], static_cast<std::uint32_t>(rsdp::kSize));
  store(&table[rsdp::kXsdt], xsdt);
  return table;
}
}  // namespace

Files build(const Machine& machine) {
  check(machine);
  TablesFile tables;
  const std::uint32_t facs_offset = tables.append_bare(make_facs(), facs::kAlignment);
  const std::uint32_t dsdt = tables.append(make_dsdt(machine));
  const std::uint32_t fadt_offset = tables.append(make_fadt(machine, facs_offset, dsdt));
  tables.add_pointer(static_cast<std::uint32_t>(fadt_offset + fadt::kFirmwareControl), sizeof(std::uint32_t));
  tables.add_pointer(static_cast<std::uint32_t>(fadt_offset + fadt::kXDsdt));
  const std::uint32_t madt_offset = tables.append(make_madt(machine));

  Bytes xsdt = begin("XSDT", kXsdtRevision);
  add(xsdt, std::uint64_t{fadt_offset});
  add(xsdt, std::uint64_t{madt_offset});
  finish(xsdt);
  const std::uint32_t xsdt_offset = tables.append(xsdt);
  for (std::size_t entry = header::kSize; entry < xsdt.size(); entry += sizeof(std::uint64_t)) {
    tables.add_pointer(static_cast<std::uint32_t>(xsdt_offset + entry));
  }

  LoaderScript script;
  script.allocate(kTablesFile, kTablesAlignment, LoaderZone::kHigh);
  script.allocate(kRsdpFile, kRsdpAlignment, LoaderZone::kFSegment);
  tables.write_script(script);
  script.add_pointer(kRsdpFile, kTablesFile, rsdp::kXsdt, sizeof(std::uint64_t));
  script.add_checksum(kRsdpFile, rsdp::kChecksum, 0, rsdp::kFirstPart);
  script.add_checksum(kRsdpFile, rsdp::kExtendedChecksum, 0, rsdp::kSize);

  return {std::move(tables).take(), make_rsdp(xsdt_offset), script.bytes()};
}

}  // namespace sevisor::devices::acpi
