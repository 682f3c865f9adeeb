#include "ghcb/hypervisor/event_table.hpp"

#include <algorithm>
#include <array>
#include <iterator>

#include "ghcb/ioio.hpp"

namespace sevisor::ghcb {

namespace {

constexpr ValidBitmap fields(std::initializer_list<Field> list) {
  ValidBitmap bitmap{};
  for (Field field : list) bitmap.set(field);
  return bitmap;
}

constexpr bool includes(const ValidBitmap& has, const ValidBitmap& wanted) {
  return (wanted.word[0] & ~has.word[0]) == 0 && (wanted.word[1] & ~has.word[1]) == 0;
}

constexpr std::uint32_t kCpuidXsaveLeaf = 0xd;

constexpr ValidBitmap kNone = fields({});
constexpr ValidBitmap kRax = fields({Field::kRax});
constexpr ValidBitmap kRaxRdx = fields({Field::kRax, Field::kRdx});
constexpr ValidBitmap kRaxToRdx = fields({Field::kRax, Field::kRbx, Field::kRcx, Field::kRdx});
constexpr ValidBitmap kInfo2 = fields({Field::kExitInfo2});
constexpr ValidBitmap kScratchOnly = fields({Field::kScratch});

bool is_xsave_leaf(const Request& request) { return request.rax == kCpuidXsaveLeaf; }
bool is_string(const Request& request) { return (request.exit_info_1 & kIoString) != 0; }
bool is_plain_out(const Request& request) { return (request.exit_info_1 & (kIoString | kIoIn)) == 0; }
bool is_msr_write(const Request& request) { return request.exit_info_1 != 0; }

constexpr std::array<Condition, 2> kAlways = {};
constexpr std::array<Condition, 2> kCpuidConditions = {Condition{"leaf 0xd", is_xsave_leaf, fields({Field::kXcr0})},
                                                       Condition{}};
constexpr std::array<Condition, 2> kPortConditions = {Condition{"OUT", is_plain_out, kRax},
                                                      Condition{"INS, OUTS", is_string, kScratchOnly}};
constexpr std::array<Condition, 2> kMsrConditions = {Condition{"WRMSR", is_msr_write, kRaxRdx}, Condition{}};

// By exit code.
constexpr NaeEvent kEvents[] = {
    {kExitReadDr7, kNone, kAlways, Action::kNothing, kNone, "nothing: DR7 is the guest's own"},
    {kExitWriteDr7, kRax, kAlways, Action::kNothing, kNone, "nothing: DR7 is the guest's own"},
    {kExitRdtsc, kNone, kAlways, Action::kUnexpected, kNone, "KVM_EXIT_INTERNAL_ERROR: KVM has no handler"},
    {kExitRdpmc, fields({Field::kRcx}), kAlways, Action::kInjectGp, kNone,
     "#GP(0) injected behind the VMGEXIT: no PMU is offered"},
    {kExitCpuid, fields({Field::kRax, Field::kRcx}), kCpuidConditions, Action::kCpuid, kRaxToRdx,
     "the vCPU's CPUID table"},
    {kExitInvd, kNone, kAlways, Action::kNothing, kNone, "nothing"},
    {kExitIoio, kNone, kPortConditions, Action::kPort, kRax,
     "port bus, or KVM_EXIT_IO; IN gives RAX, INS the scratch area"},
    {kExitMsr, fields({Field::kRcx}), kMsrConditions, Action::kMsr, kRaxRdx,
     "the vCPU's MSRs; one that is not there gives #GP in exit_info_2"},
    {kExitVmmcall, fields({Field::kRax, Field::kCpl}), kAlways, Action::kVmmcall, kRax,
     "a hypercall: RAX -1000 (unknown), or -1 from outside CPL 0"},
    {kExitRdtscp, kNone, kAlways, Action::kInjectUd, kNone, "#UD injected behind the VMGEXIT"},
    {kExitWbinvd, kNone, kAlways, Action::kNothing, kNone, "nothing"},
    {kExitMonitor, fields({Field::kRax, Field::kRcx, Field::kRdx}), kAlways, Action::kNothing, kNone, "nothing"},
    {kExitMwait, fields({Field::kRax, Field::kRcx}), kAlways, Action::kNothing, kNone, "nothing"},
    {kExitMmioRead, kScratchOnly, kAlways, Action::kMmioRead, kNone,
     "MMIO bus, or KVM_EXIT_MMIO in pieces of 8 bytes; data in the scratch area"},
    {kExitMmioWrite, kScratchOnly, kAlways, Action::kMmioWrite, kNone, "likewise"},
    {kExitNmiComplete, kNone, kAlways, Action::kNmiComplete, kNone, "the next NMI may come"},
    {kExitApResetHold, kNone, kAlways, Action::kApResetHold, kInfo2, "waits; exit_info_2 is 1 after a SIPI, else 0"},
    {kExitApJumpTable, kNone, kAlways, Action::kApJumpTable, kInfo2,
     "exit_info_1 0 keeps exit_info_2, 1 gives it back; others are refused with 5"},
    {kExitHypervisorFeatures, kNone, kAlways, Action::kFeatures, kInfo2,
     "exit_info_2 is 3 (SNP, AP creation), as KVM says"},
    {kExitTerminate, kNone, kAlways, Action::kTerminate, kNone, "KVM_EXIT_SYSTEM_EVENT, SEV_TERM"},
    {kExitUnsupportedEvent, kNone, kAlways, Action::kUnsupported, kNone, "KVM_RUN fails with EINVAL"},
};
static_assert(std::is_sorted(std::begin(kEvents), std::end(kEvents),
                             [](const NaeEvent& a, const NaeEvent& b) { return a.code < b.code; }));

// Events of SNP guests; an SEV-ES guest that sends one lacks the input that only SNP can give (GHCB specification 4.1).
constexpr ExitCode kSnpEvents[] = {0x80000010, 0x80000011, 0x80000012, 0x80000013};

constexpr ValidBitmap kAlwaysRequired = fields({Field::kExitCode, Field::kExitInfo1, Field::kExitInfo2});

}  // namespace

Request read_request(const Page& page) noexcept {
  Request request{.usage = page.usage, .version = page.version, .valid = page.valid};
  const auto take = [&](Field field, auto value, auto& to) {
    if (request.valid.has(field)) to = value;
  };
  take(Field::kExitCode, page.exit_code, request.exit_code);
  take(Field::kExitInfo1, page.exit_info_1, request.exit_info_1);
  take(Field::kExitInfo2, page.exit_info_2, request.exit_info_2);
  take(Field::kRax, page.rax, request.rax);
  take(Field::kRbx, page.rbx, request.rbx);
  take(Field::kRcx, page.rcx, request.rcx);
  take(Field::kRdx, page.rdx, request.rdx);
  take(Field::kRsi, page.rsi, request.rsi);
  take(Field::kScratch, page.scratch, request.scratch);
  take(Field::kXcr0, page.xcr0, request.xcr0);
  take(Field::kCpl, page.cpl, request.cpl);
  return request;
}

Verdict validate(const Request& request, KnownRequests known) noexcept {
  if (request.usage != kUsageStandard) return {.error = InputError::kUnsupportedUsage};
  const bool snp = std::find(std::begin(kSnpEvents), std::end(kSnpEvents), request.exit_code) != std::end(kSnpEvents);
  if (snp && known == KnownRequests::kLinux72 && request.valid.has(Field::kExitCode)) {
    return {.error = InputError::kUnsupportedEvent};
  }
  if (!includes(request.valid, kAlwaysRequired)) return {.error = InputError::kMissingInput};
  const NaeEvent* event = find_nae_event(request.exit_code);
  const bool later = request.exit_code == kExitHypervisorFeatures || request.exit_code == kExitTerminate;
  if (event == nullptr || (later && known == KnownRequests::kLinux61)) {
    const bool lacks_input = snp && known == KnownRequests::kLinux612;
    return {.error = lacks_input ? InputError::kMissingInput : InputError::kUnsupportedEvent};
  }
  if (!includes(request.valid, event->required)) return {.error = InputError::kMissingInput};
  for (const Condition& condition : event->also) {
    if (condition.holds != nullptr && condition.holds(request) && !includes(request.valid, condition.fields)) {
      return {.error = InputError::kMissingInput};
    }
  }
  return {.error = std::nullopt, .action = event->action};
}

std::span<const NaeEvent> nae_events() noexcept { return kEvents; }

const NaeEvent* find_nae_event(ExitCode code) noexcept {
  const NaeEvent* event = std::lower_bound(std::begin(kEvents), std::end(kEvents), code,
                                           [](const NaeEvent& e, ExitCode wanted) { return e.code < wanted; });
  return event != std::end(kEvents) && event->code == code ? event : nullptr;
}

}  // namespace sevisor::ghcb
