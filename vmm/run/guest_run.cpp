#include "vmm/run/guest_run.hpp"

#include <csignal>
#include <fmt/format.h>
#include <spdlog/spdlog.h>
#include <unistd.h>

#include "vmm/console/console_input.hpp"
#include "vmm/console/console_output.hpp"
#include "vmm/console/terminal.hpp"
#include "vmm/end/end_wait.hpp"
#include "vmm/end/run_state.hpp"
#include "vmm/end/service_manager.hpp"
#include "vmm/launch/firmware_check.hpp"
#include "vmm/machine/guest_ram.hpp"
#include "vmm/machine/memory_map.hpp"
#include "vmm/machine/platform.hpp"
#include "vmm/machine/vm_clock.hpp"
#include "vmm/run/vcpu_threads.hpp"
#include "vmm/text/size_text.hpp"

namespace sevisor::vmm {

namespace {

void take_event(RunState& state, const devices::MachineEvent& event, Confidential confidential) {
  switch (event.kind) {
    case devices::MachineEvent::Kind::kPowerOff:
      state.end({ExitCode::kPoweredOff, "the guest powered off"});
      break;
    case devices::MachineEvent::Kind::kReset:
      state.end({ExitCode::kResetAsked, confidential == Confidential::kSevEs
                                            ? "the guest asked for a reset, which SEV-ES state does not survive"
                                            : "the guest asked for a reset"});
      break;
    case devices::MachineEvent::Kind::kPanic:
      state.end({ExitCode::kGuestPanic, "the guest's kernel panicked"});
      break;
    case devices::MachineEvent::Kind::kDebugExit:
      state.end({ExitCode::kCrash, fmt::format("the guest wrote {:#x} to the debug-exit port", event.value)});
      break;
    case devices::MachineEvent::Kind::kNeedsSmm:
      // No end of the run: whoever may read a register must not be able to end a guest by it.
      spdlog::warn(
          "the firmware looks for memory of System Management Mode, which guests here do not have: a build that "
          "needs it (OVMF_CODE.secboot.fd) stops at this point. Use one without, such as OVMF_CODE.fd");
      break;
  }
}

Outcome final_outcome(const RunState& state, const ConsoleOutput& console, bool expecting) {
  Outcome outcome = state.outcome().value_or(Outcome(ExitCode::kCrash, "the run ended without a reason"));
  if (console.matched()) return {ExitCode::kPoweredOff, "the console matched --expect"};
  if (expecting && outcome.code == 0) {
    return {ExitCode::kCrash, fmt::format("{}, but its console never matched --expect", outcome.reason)};
  }
  return outcome;
}

std::optional<sev::HashesTable> hashes_table_of(const RunConfig& config) {
  if (!config.kernel_hashes || config.kernel == nullptr) return std::nullopt;
  const std::span<const std::byte> initrd = config.initrd != nullptr ? *config.initrd : std::span<const std::byte>{};
  return sev::make_hashes_table(*config.kernel, initrd, config.cmdline);
}

Platform::Flash flash_of(const RunConfig& config) {
  if (config.variables == nullptr) return {};
  const std::span<std::byte> content = config.variables->content();
  return {Gpa(kFirmwareEnd - config.firmware.size() - content.size()), content,
          [store = config.variables](std::size_t offset, std::size_t size) { store->save(offset, size); }};
}

// The IOAPIC of a machine whose host has the local APICs only.
devices::IoApic::Wiring io_apic_wiring(const kvm::Vm& vm) {
  return {.send = [&vm](const interrupts::Msi& msi) { return vm.signal_msi(msi.address, msi.data); },
          .messages_changed =
              [&vm](const devices::IoApic::PinMessages& messages) {
                std::vector<kvm::MsiRoute> routes;
                for (std::uint32_t pin = 0; pin < messages.size(); ++pin) {
                  if (messages[pin]) {
                    routes.push_back({.gsi = pin, .address = messages[pin]->address, .data = messages[pin]->data});
                  }
                }
                vm.set_msi_routes(routes);
              }};
}

}  // namespace

void check_expect(const std::string& pattern) { (void)ExpectMatcher(pattern); }

void check_run_config(const RunConfig& config) {
  const MemoryMap map = make_memory_map(config.memory);
  if (config.confidential == Confidential::kSevEs) {
    (void)check_firmware(config.firmware);
  } else {
    check_plain_firmware(config.firmware);
  }
  if (config.variables != nullptr && config.firmware.size() + config.variables->content().size() > kFirmwareMaxSize) {
    throw Error(ExitCode::kBadUsage, "put the variables below the firmware",
                fmt::format("together they have {} bytes, {} at most fit",
                            config.firmware.size() + config.variables->content().size(), size_text(kFirmwareMaxSize)),
                "Give the variables that belong to the firmware.");
  }
  if (config.expect) check_expect(*config.expect);
  if (config.kernel_hashes) (void)check_hashes_area(config.firmware, map.low_size());
  if (config.secret) (void)check_secret_area(config.firmware, map.low_size());
  if (config.kernel == nullptr) return;
  const KernelImage header = parse_kernel_image(*config.kernel, config.kernel_name, config.booted_by);
  check_boot_fits(header, config.initrd != nullptr ? config.initrd->size() : 0, config.cmdline.size(), map.low_size());
}

Outcome run_guest(kvm::Host& host, const RunConfig& config, const std::function<void(const LaunchReport&)>& launched) {
  check_run_config(config);
  const TerminalGuard guard(STDIN_FILENO);  // before there is guest memory
  const EndSignals signals;
  const ServiceManager manager = ServiceManager::from_environment();
  (void)::signal(SIGPIPE, SIG_IGN);  // a closed standard output is an error of write(2), told in words

  // Each of these may refer to those before it, so they go in the opposite order.
  const MemoryMap map = make_memory_map(config.memory);
  GuestRam ram(map, config.huge_pages);
  const Platform::Flash flash = flash_of(config);
  const LaunchedGuest guest = launch(host, ram,
                                     {.policy = config.policy,
                                      .vcpus = config.vcpus,
                                      .cpu_signature = config.cpu_signature,
                                      .firmware = config.firmware,
                                      .hashes_table = hashes_table_of(config),
                                      .flash = flash.content,
                                      .owner_certificate = config.owner_certificate,
                                      .session = config.session,
                                      .secret = config.secret,
                                      .init_api = config.init_api,
                                      .irqchip = config.irqchip,
                                      .confidential = config.confidential,
                                      .cpu_model = config.cpu_model});
  launched(guest.report);

  const ThreadFilter filter =
      config.confine ? ThreadFilter::for_guest_threads(host.name() == "emulated") : ThreadFilter();
  RunState state;
  std::optional<ExpectMatcher> matcher;
  if (config.expect) matcher.emplace(*config.expect);
  ConsoleOutput output(STDOUT_FILENO, std::move(matcher), state, filter);
  VmClock clock(guest.vm);
  CheckedDma dma(ram, config.checker);
  Platform platform(
      {.dma = dma,
       .clock = clock,
       .set_irq = [&vm = guest.vm](std::uint32_t gsi, bool level) { (void)vm.set_irq_line(gsi, level); },
       .console = [&output](std::span<const std::byte> bytes) { output.write(bytes); },
       .events = [&state,
                  &config](const devices::MachineEvent& event) { take_event(state, event, config.confidential); },
       .io_apic = config.irqchip == IrqchipKind::kSplit ? std::optional(io_apic_wiring(guest.vm)) : std::nullopt},
      {.vcpus = config.vcpus, .memory = map, .rtc_time = config.rtc_time, .flash = flash});
  if (config.kernel != nullptr) {
    platform.add_kernel(config.kernel, parse_kernel_image(*config.kernel, config.kernel_name, config.booted_by),
                        config.initrd, config.cmdline);
  }

  {
    if (::isatty(STDIN_FILENO) != 0 && !in_background(STDIN_FILENO)) {
      spdlog::info("this terminal is the guest's console: Ctrl-a x leaves, Ctrl-a h lists the keys");
    }
    const RawTerminal terminal(STDIN_FILENO, guard);
    std::optional<ConsoleInput> input;
    if (terminal.active() || !in_background(STDIN_FILENO)) {
      input.emplace(STDIN_FILENO, terminal.active(), platform.serial_input(), state, filter);
    }
    Buses buses = platform.buses();
    buses.memory = &ram;
    VcpuThreads threads(guest.vcpus, buses, state, config.pin, filter);
    manager.tell("READY=1\nSTATUS=The guest runs.");
    wait_for_end(
        state, signals, config.end, [&platform] { platform.press_power_button(); }, manager);
    manager.tell(fmt::format("STOPPING=1\nSTATUS={}", state.outcome() ? state.outcome()->reason : "ended"));
    output.release();
    threads.stop();
    input.reset();
    output.finish();
  }
  if (config.checker != nullptr) config.checker->look_for_secrets(ram);
  if (config.memory_dump != nullptr) {
    for (const GuestRam::Region& region : ram.regions()) guest.vm.unregister_encrypted_region(region.memory.bytes());
    config.memory_dump->write(ram);
  }
  return final_outcome(state, output, config.expect.has_value());
}

}  // namespace sevisor::vmm
