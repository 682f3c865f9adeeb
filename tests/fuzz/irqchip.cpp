// The interrupt controllers as a hostile guest and a careless VMM use them: the input is a list of register accesses,
// lines, messages, saved states and steps of time.
#include "emulator/irqchip/irqchip.hpp"

#include <array>
#include <vector>

#include "base/bytes.hpp"
#include "check.hpp"
#include "input.hpp"

using namespace sevisor;
using namespace sevisor::emulator;

namespace {

constexpr std::size_t kMaxSteps = 256;
constexpr std::array<unsigned, 4> kVcpuCounts = {1, 2, 5, 66};
constexpr std::array<std::uint16_t, 11> kPorts = {0x20, 0x21, 0xa0, 0xa1, 0x4d0, 0x4d1, 0x40, 0x41, 0x42, 0x43, 0x61};

template <std::size_t kSize>
std::array<std::byte, kSize> state_from(fuzz::Input& input) {
  std::array<std::byte, kSize> state{};
  std::ranges::copy(input.bytes(kSize), state.begin());
  return state;
}

// Once a state has been set, getting and setting it again changes nothing.
void check_states_settle(Irqchip& chip, unsigned vcpu) {
  std::array<std::byte, kApicStateSize> lapic{};
  chip.get_lapic(vcpu, lapic);
  FUZZ_CHECK(chip.set_lapic(vcpu, lapic));
  std::array<std::byte, kApicStateSize> lapic_again{};
  chip.get_lapic(vcpu, lapic_again);
  FUZZ_CHECK(lapic == lapic_again);

  for (const Chip which : {Chip::kPicMaster, Chip::kPicSlave, Chip::kIoApic}) {
    std::array<std::byte, kChipStateSize> first{};
    std::array<std::byte, kChipStateSize> second{};
    chip.get_chip(which, first);
    chip.set_chip(which, first);
    chip.get_chip(which, first);  // setting it may have sent a pin that was due
    chip.set_chip(which, first);
    chip.get_chip(which, second);
    FUZZ_CHECK(first == second);
  }

  std::array<std::byte, kPitStateSize> pit{};
  if (!chip.get_pit(pit)) return;
  FUZZ_CHECK(chip.set_pit(pit));
  FUZZ_CHECK(chip.get_pit(pit));  // loaded at this time now
  FUZZ_CHECK(chip.set_pit(pit));
  std::array<std::byte, kPitStateSize> pit_again{};
  FUZZ_CHECK(chip.get_pit(pit_again));
  FUZZ_CHECK(pit == pit_again);
}

void step(Irqchip& chip, fuzz::Input& input) {
  const auto choice = input.take<std::uint8_t>();
  const unsigned vcpu = input.take<std::uint8_t>() % chip.vcpus();
  std::array<std::byte, 8> data{};
  switch (choice & 0x0f) {
    case 0:
    case 1: {  // the APIC's page, mostly by whole registers
      const bool whole = (choice & 0x80) == 0;
      const std::uint64_t offset = whole ? input.take<std::uint8_t>() * 16U : input.take<std::uint16_t>() % kPageSize;
      const auto value = input.take<std::uint32_t>();
      store(data.data(), value);
      const std::span<std::byte> part = std::span(data).first(whole ? 4 : 1 + (choice >> 4 & 7));
      const Gpa address = chip.apic(vcpu).mmio_base() + offset;
      FUZZ_CHECK((choice & 1) != 0 ? chip.write_mmio(vcpu, address, part) : chip.read_mmio(vcpu, address, part));
      break;
    }
    case 2:
      store(data.data(), input.take<std::uint32_t>());
      (void)chip.write_mmio(vcpu, Gpa(kIoApicBase), std::span(data).first(4));
      break;
    case 3:
      store(data.data(), input.take<std::uint64_t>());
      (void)chip.write_mmio(vcpu, Gpa(kIoApicBase + 0x10), std::span(data).first(1 + (choice >> 4 & 7)));
      (void)chip.read_mmio(vcpu, Gpa(kIoApicBase + input.take<std::uint8_t>()), data);
      break;
    case 4:
      (void)chip.write_port(kPorts[(choice >> 4) % kPorts.size()], input.take<std::uint8_t>());
      break;
    case 5: {
      std::uint8_t value = 0;
      (void)chip.read_port(kPorts[(choice >> 4) % kPorts.size()], value);
      break;
    }
    case 6:
      (void)chip.write_msr(vcpu, 0x800U | input.take<std::uint8_t>(), input.take<std::uint64_t>());
      break;
    case 7:
      (void)chip.read_msr(vcpu, 0x800U | input.take<std::uint8_t>());
      break;
    case 8:
      (void)chip.write_msr(vcpu, kMsrApicBase, input.take<std::uint64_t>(), (choice & 0x80) != 0);
      break;
    case 9:
      FUZZ_CHECK(chip.write_msr(vcpu, kMsrTscDeadline, chip.now() + input.take<std::uint32_t>()));
      break;
    case 10:
      (void)chip.set_gsi(input.take<std::uint8_t>() % 32, (choice & 0x80) != 0, LineSource{(choice & 0x40) != 0});
      break;
    case 11:
      (void)chip.signal_msi(input.take<std::uint64_t>(), input.take<std::uint16_t>());
      break;
    case 12:
      chip.advance(chip.now() + input.take<std::uint32_t>());
      break;
    case 13: {
      const bool pending = chip.interrupt_pending(vcpu);
      FUZZ_CHECK(chip.acknowledge(vcpu).has_value() == pending);
      (void)chip.take_nmi(vcpu);
      if (chip.take_init(vcpu)) FUZZ_CHECK(!chip.init_pending(vcpu));
      (void)chip.take_sipi(vcpu);
      FUZZ_CHECK(chip.event_pending(vcpu) == chip.interrupt_pending(vcpu));
      break;
    }
    case 14:
      check_states_settle(chip, vcpu);
      break;
    default:
      switch (choice >> 4 & 3) {
        case 0:
          (void)chip.set_lapic(vcpu, state_from<kApicStateSize>(input));
          break;
        case 1:
          chip.set_chip(Chip{static_cast<std::uint8_t>((choice >> 6) % 3)}, state_from<kChipStateSize>(input));
          break;
        case 2:
          (void)chip.set_pit(state_from<kPitStateSize>(input));
          break;
        default:
          chip.set_x2apic_api((choice & 0x40) != 0, (choice & 0x80) != 0);
          break;
      }
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  fuzz::Input input(data, size);
  const auto setup = input.take<std::uint8_t>();
  Irqchip chip;
  for (unsigned id = 0; id < kVcpuCounts[setup & 3]; ++id) chip.add_vcpu((setup & 4) != 0 ? id + 250 : id);
  if ((setup & 8) != 0) chip.create_pit((setup & 16) != 0);
  for (std::size_t count = 0; count < kMaxSteps && !input.empty(); ++count) {
    step(chip, input);
    // Whatever is due has fired.
    FUZZ_CHECK(chip.next_deadline() > chip.now());
  }
  return 0;
}
