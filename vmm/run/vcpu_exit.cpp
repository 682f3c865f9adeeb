#include "vmm/run/vcpu_exit.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <fmt/format.h>
#include <span>
#include <type_traits>

#include "base/bytes.hpp"
#include "firmware/failure.hpp"
#include "ghcb/exit_name.hpp"
#include "ghcb/msr_protocol.hpp"
#include "ghcb/page.hpp"
#include "kvm/exit_name.hpp"

namespace sevisor::vmm {

namespace {

Outcome crash(unsigned vcpu, std::string what) {
  return {ExitCode::kCrash, fmt::format("vCPU {}: {}", vcpu, std::move(what)), vcpu};
}

std::optional<Outcome> handle_port(kvm_run& run, std::size_t run_size, unsigned vcpu, const devices::Bus& ports) {
  const auto& io = run.io;
  const std::uint64_t total = std::uint64_t{io.size} * io.count;
  if (io.size == 0 || io.data_offset > run_size || total > run_size - io.data_offset) {
    return crash(vcpu, fmt::format("the host gave port data out of bounds ({} x {} bytes at {:#x})", io.count, io.size,
                                   io.data_offset));
  }
  const std::span<std::byte> data(reinterpret_cast<std::byte*>(&run) + io.data_offset, total);
  const bool in = io.direction == KVM_EXIT_IO_IN;
  if (io.count == 1) {
    in ? ports.read(io.port, data) : ports.write(io.port, data);
  } else {
    in ? ports.read_string(io.port, io.size, data) : ports.write_string(io.port, io.size, data);
  }
  return std::nullopt;
}

std::optional<Outcome> handle_mmio(kvm_run& run, unsigned vcpu, const devices::Bus& mmio) {
  if (run.mmio.len > sizeof run.mmio.data) {
    return crash(vcpu, fmt::format("the host gave an MMIO access of {} bytes", run.mmio.len));
  }
  const std::span<std::byte> data = std::as_writable_bytes(std::span(run.mmio.data)).first(run.mmio.len);
  if (run.mmio.is_write) {
    mmio.write(run.mmio.phys_addr, data);
  } else {
    mmio.read(run.mmio.phys_addr, data);
  }
  return std::nullopt;
}

Outcome system_event(const kvm_run& run, unsigned vcpu, devices::GuestDma* memory) {
  const auto& event = run.system_event;
  const std::uint64_t data = event.ndata > 0 ? event.data[0] : 0;
  switch (event.type) {
    case KVM_SYSTEM_EVENT_SEV_TERM:
      return {ExitCode::kSevTermination,
              fmt::format("vCPU {}: the guest asked for SEV termination: {}", vcpu, sev_termination_text(data, memory)),
              vcpu};
    case KVM_SYSTEM_EVENT_RESET:
      return {ExitCode::kResetAsked, "the guest asked for a reset"};
    case KVM_SYSTEM_EVENT_CRASH:
      return {ExitCode::kGuestPanic, "the guest reported a crash"};
    default:
      return crash(vcpu, fmt::format("unexpected system event {} with data {:#x}", event.type, data));
  }
}

const char* internal_error_name(std::uint32_t suberror) {
  switch (suberror) {
    case KVM_INTERNAL_ERROR_EMULATION:
      return "an instruction could not be emulated";
    case KVM_INTERNAL_ERROR_SIMUL_EX:
      return "an exception while another was delivered";
    case KVM_INTERNAL_ERROR_DELIVERY_EV:
      return "an exit while an event was delivered";
    case KVM_INTERNAL_ERROR_UNEXPECTED_EXIT_REASON:
      return "an exit that the host does not know";
    default:
      return "of a kind without a name";
  }
}

Outcome internal_error(const kvm_run& run, unsigned vcpu) {
  std::string data;
  const std::uint32_t count = std::min(run.internal.ndata, std::uint32_t{std::extent_v<decltype(run.internal.data)>});
  for (std::uint32_t i = 0; i < count; ++i) data += fmt::format(" {:#x}", run.internal.data[i]);
  if (run.internal.suberror == KVM_INTERNAL_ERROR_UNEXPECTED_EXIT_REASON && count > 0) {
    data += fmt::format(" (exit code {})", ghcb::exit_name(run.internal.data[0]));
  }
  return crash(vcpu, fmt::format("internal error {} of the host, {}{}{}", run.internal.suberror,
                                 internal_error_name(run.internal.suberror), data.empty() ? "" : ", data", data));
}

// KVM_HC_MAP_GPA_RANGE: the guest says which of its pages are shared. Nothing here depends on it, but what it says must
// make sense. Linux Documentation/virt/kvm/x86/hypercalls.rst.
void handle_hypercall(kvm_run& run) {
  constexpr std::uint64_t kMapGpaRange = 12;
  constexpr std::uint64_t kPageBits = 12;
  constexpr auto kNotSupported = static_cast<std::uint64_t>(-1000);  // KVM_ENOSYS
  constexpr auto kInvalid = static_cast<std::uint64_t>(-22);         // KVM_EINVAL
  auto& call = run.hypercall;
  const std::uint64_t first = call.args[0];
  const std::uint64_t pages = call.args[1];
  if (call.nr != kMapGpaRange) {
    call.ret = kNotSupported;
  } else if (first % (1U << kPageBits) != 0 || pages == 0 || pages > (UINT64_MAX - first) >> kPageBits) {
    call.ret = kInvalid;
  } else {
    call.ret = 0;
  }
}

// An exit that nobody asked for, with what KVM says of it.
Outcome unexpected_exit(const kvm_run& run, unsigned vcpu) {
  std::string data;
  switch (run.exit_reason) {
    case KVM_EXIT_UNKNOWN:
      data = fmt::format("hardware exit reason {:#x}", run.hw.hardware_exit_reason);
      break;
    case KVM_EXIT_EXCEPTION:
      data = fmt::format("exception {}, error code {:#x}", run.ex.exception, run.ex.error_code);
      break;
    case KVM_EXIT_DEBUG:
      data = fmt::format("exception {} at {:#x}, DR6 {:#x}", run.debug.arch.exception, run.debug.arch.pc,
                         run.debug.arch.dr6);
      break;
    case KVM_EXIT_IOAPIC_EOI:
      data = fmt::format("vector {}", run.eoi.vector);
      break;
    case KVM_EXIT_X86_RDMSR:
    case KVM_EXIT_X86_WRMSR:
      data = fmt::format("MSR {:#x}, data {:#x}, reason {}", run.msr.index, run.msr.data, run.msr.reason);
      break;
    case KVM_EXIT_HLT:
    case KVM_EXIT_SET_TPR:
    case KVM_EXIT_AP_RESET_HOLD:
      data = "which only a host without a LAPIC of its own gives";
      break;
    default:
      break;
  }
  return crash(vcpu, fmt::format("unexpected exit {} of KVM_RUN, {}{}{}", run.exit_reason,
                                 kvm::exit_reason_name(run.exit_reason), data.empty() ? "" : ": ", data));
}

}  // namespace

std::string sev_termination_text(std::uint64_t data, devices::GuestDma* memory) {
  std::string where;
  std::optional<ghcb::msr::Termination> reason = ghcb::msr::decode_termination(data);
  if (ghcb::msr::info(data) == ghcb::msr::kGhcbPage) {
    std::array<std::byte, 2 * sizeof(std::uint64_t)> infos{};  // KVM leaves them as the guest wrote them
    if (memory == nullptr || !memory->read(Gpa(data) + offsetof(ghcb::Page, exit_info_1), infos)) {
      return fmt::format("through its GHCB at {:#x}, which cannot be read", data);
    }
    const auto info_1 = load<std::uint64_t>(infos.data());
    reason = {.reason_set = static_cast<std::uint8_t>(info_1 & 0xf), .reason = static_cast<std::uint8_t>(info_1 >> 4)};
    where = fmt::format(" (through its GHCB, with {:#x} beside)", load<std::uint64_t>(&infos[sizeof info_1]));
  }
  if (!reason) return fmt::format("by {:#x} in the GHCB MSR, a request that only SEV-SNP guests may make", data);
  const unsigned code = reason->reason;
  // Set 0 is the specification's; the others belong to whoever wrote the guest.
  static constexpr const char* kGeneral[] = {
      "no particular reason",
      "the GHCB protocol version is not supported",
      "SEV-SNP features are missing",
  };
  // Linux arch/x86/include/asm/sev-common.h, SEV_TERM_SET_LINUX.
  static constexpr const char* kLinux[] = {
      "registration of the GHCB failed", "page state change failed",   "PVALIDATE failed", "it does not run at VMPL0",
      "CPUID values are not consistent", "the CPUID table is missing", "no secrets page"};
  std::string meaning = reason->reason_set == ghcb::msr::kReasonSetGhcb && code < std::size(kGeneral) ? kGeneral[code]
                        : reason->reason_set == ghcb::msr::kReasonSetGhcb ? "not defined by the GHCB specification"
                                                                          : "defined by the guest's firmware or kernel";
  const auto failure = static_cast<firmware::Failure>(code);
  if (reason->reason_set == firmware::kFailureReasonSet && firmware::is_failure(failure)) {
    meaning = fmt::format("{}, if it is sevisor's firmware that says so", firmware::failure_text(failure));
  }
  if (reason->reason_set == ghcb::msr::kReasonSetGuest && code < std::size(kLinux)) {
    meaning += fmt::format("; {}, if it is Linux", kLinux[code]);
  }
  return fmt::format("reason set {}, code {}: {}{}", reason->reason_set, code, meaning, where);
}

std::string run_failure_text(int error_number) {
  std::string text = fmt::format("KVM_RUN failed: {}", errno_text(error_number));
  if (error_number == EINVAL) {
    text +=
        ". KVM ends a guest so that reports a #VC which it cannot handle (0x8000ffff); on kernels up to 6.1 at least "
        "one "
        "that shut down (triple fault) ends so too";
  }
  if (error_number == EFAULT) text += ". KVM ends a guest so whose GHCB names a scratch area without memory";
  return text;
}

std::optional<Outcome> handle_exit(kvm_run& run, std::size_t run_size, unsigned vcpu, const Buses& buses) {
  switch (run.exit_reason) {
    case KVM_EXIT_IO:
      return handle_port(run, run_size, vcpu, buses.ports);
    case KVM_EXIT_MMIO:
      return handle_mmio(run, vcpu, buses.mmio);
    case KVM_EXIT_INTR:
    case KVM_EXIT_IRQ_WINDOW_OPEN:
      return std::nullopt;
    case KVM_EXIT_SYSTEM_EVENT:
      return system_event(run, vcpu, buses.memory);
    case KVM_EXIT_SHUTDOWN:
      return crash(vcpu, "the guest shut down (triple fault); its state cannot be read");
    case KVM_EXIT_FAIL_ENTRY:
      return crash(vcpu, fmt::format("the processor refused to run the guest: hardware reason {:#x} on CPU {}",
                                     run.fail_entry.hardware_entry_failure_reason, run.fail_entry.cpu));
    case KVM_EXIT_INTERNAL_ERROR:
      return internal_error(run, vcpu);
    case KVM_EXIT_HYPERCALL:
      handle_hypercall(run);
      return std::nullopt;
    case KVM_EXIT_IOAPIC_EOI:
      if (buses.io_apic == nullptr) return unexpected_exit(run, vcpu);
      buses.io_apic->end_of_interrupt(run.eoi.vector);
      return std::nullopt;
    default:
      return unexpected_exit(run, vcpu);
  }
}

}  // namespace sevisor::vmm
