// The NAE events that the hypervisor knows: what each must bring, what is done, what comes back. One table.
// GHCB specification (AMD 56421) table 7; what is checked, in which order and with which answer is Linux's
// arch/x86/kvm/svm/sev.c sev_es_validate_vmgexit() and sev_handle_vmgexit(). docs/nae-events.md shows it to readers.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

#include "ghcb/event.hpp"
#include "ghcb/page.hpp"

namespace sevisor::ghcb {

// What the service does with a request that has passed the checks.
enum class Action {
  kNothing,  // succeeds without an effect
  kCpuid,
  kPort,
  kMsr,
  kVmmcall,
  kInjectGp,    // #GP(0) comes upon the guest behind its VMGEXIT, and the answer says success
  kInjectUd,    // #UD, likewise
  kUnexpected,  // accepted by the checks, but KVM has no handler: the run fails
  kMmioRead,
  kMmioWrite,
  kNmiComplete,
  kApResetHold,
  kApJumpTable,
  kFeatures,
  kTerminate,
  kUnsupported,  // the guest met a #VC that it cannot handle: the run fails
};

// A request as the snapshot of the page has it: fields not marked valid are 0.
struct Request {
  ExitCode exit_code = 0;
  std::uint64_t exit_info_1 = 0;
  std::uint64_t exit_info_2 = 0;
  std::uint64_t rax = 0, rbx = 0, rcx = 0, rdx = 0, rsi = 0;
  std::uint64_t scratch = 0;
  std::uint64_t xcr0 = 0;
  std::uint8_t cpl = 0;
  std::uint32_t usage = 0;
  std::uint16_t version = 0;
  ValidBitmap valid{};
};

[[nodiscard]] Request read_request(const Page& snapshot) noexcept;

// Fields that are required only of some requests.
struct Condition {
  std::string_view when;  // in words; empty: no condition
  bool (*holds)(const Request&) = nullptr;
  ValidBitmap fields{};
};

struct NaeEvent {
  ExitCode code = 0;
  ValidBitmap required{};  // besides the exit code and both infos, which each request must have
  std::array<Condition, 2> also{};
  Action action = Action::kNothing;
  ValidBitmap returned{};   // what the answer holds for the guest. KVM marks RAX to RDX valid in every answer
  std::string_view effect;  // in words
};

// Sorted by exit code.
[[nodiscard]] std::span<const NaeEvent> nae_events() noexcept;
// Null: not an event of SEV-ES guests.
[[nodiscard]] const NaeEvent* find_nae_event(ExitCode code) noexcept;

// Which requests a hypervisor knows: KVM learnt some with SNP, and tells SEV-ES guests that send SNP's differently from
// one version to the next. By the Linux release; the newest is what the table above describes.
enum class KnownRequests : std::uint8_t {
  kLinux61,   // neither the MSR protocol's reset hold and features nor the page events 0x8000fffd and 0x8000fffe
  kLinux612,  // all; SNP's events lack input
  kLinux72,   // all; SNP's events are not supported, whatever is valid
};

struct Verdict {
  std::optional<InputError> error;   // why the request is refused
  Action action = Action::kNothing;  // what to do when it is not
};
[[nodiscard]] Verdict validate(const Request& request, KnownRequests known = KnownRequests::kLinux72) noexcept;

}  // namespace sevisor::ghcb
