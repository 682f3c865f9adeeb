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
constexpr std::uint64_t kMsrWrite = 1;  // exit_info_1 of event 0x7c

ValidBitmap for_cpuid(const Request& request) {
  return request.rax == kCpuidXsaveLeaf ? fields({Field::kXcr0}) : fields({});
}
ValidBitmap for_port(const Request& request) {
  if (request.exit_info_1 & kIoString) return fields({Field::kScratch});
  return request.exit_info_1 & kIoIn ? fields({}) : fields({Field::kRax});
}
ValidBitmap for_msr(const Request& request) {
  return request.exit_info_1 == kMsrWrite ? fields({Field::kRax, Field::kRdx}) : fields({});
}

struct Row {
  ExitCode code;
  ValidBitmap required;                 // besides the exit code and both infos
  ValidBitmap (*also)(const Request&);  // required by what else the request says; may be null
  Action action;
};

// By exit code.
constexpr Row kRows[] = {
    {kExitReadDr7, fields({}), nullptr, Action::kNothing},
    {kExitWriteDr7, fields({Field::kRax}), nullptr, Action::kNothing},
    {kExitRdtsc, fields({}), nullptr, Action::kUnexpected},
    {kExitRdpmc, fields({Field::kRcx}), nullptr, Action::kRaiseGp},
    {kExitCpuid, fields({Field::kRax, Field::kRcx}), for_cpuid, Action::kCpuid},
    {kExitInvd, fields({}), nullptr, Action::kNothing},
    {kExitIoio, fields({}), for_port, Action::kPort},
    {kExitMsr, fields({Field::kRcx}), for_msr, Action::kMsr},
    {kExitVmmcall, fields({Field::kRax, Field::kCpl}), nullptr, Action::kVmmcall},
    {kExitRdtscp, fields({}), nullptr, Action::kRaiseUd},
    {kExitWbinvd, fields({}), nullptr, Action::kNothing},
    {kExitMonitor, fields({Field::kRax, Field::kRcx, Field::kRdx}), nullptr, Action::kNothing},
    {kExitMwait, fields({Field::kRax, Field::kRcx}), nullptr, Action::kNothing},
    {kExitMmioRead, fields({Field::kScratch}), nullptr, Action::kMmioRead},
    {kExitMmioWrite, fields({Field::kScratch}), nullptr, Action::kMmioWrite},
    {kExitNmiComplete, fields({}), nullptr, Action::kNmiComplete},
    {kExitApResetHold, fields({}), nullptr, Action::kApResetHold},
    {kExitApJumpTable, fields({}), nullptr, Action::kApJumpTable},
    {kExitHypervisorFeatures, fields({}), nullptr, Action::kFeatures},
    {kExitTerminate, fields({}), nullptr, Action::kTerminate},
    {kExitUnsupportedEvent, fields({}), nullptr, Action::kUnsupported},
};
static_assert(std::is_sorted(std::begin(kRows), std::end(kRows),
                             [](const Row& a, const Row& b) { return a.code < b.code; }));

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

Verdict validate(const Request& request) noexcept {
  if (request.usage != kUsageStandard) return {.error = InputError::kUnsupportedUsage};
  if (!includes(request.valid, kAlwaysRequired)) return {.error = InputError::kMissingInput};
  const Row* row = std::lower_bound(std::begin(kRows), std::end(kRows), request.exit_code,
                                    [](const Row& r, ExitCode code) { return r.code < code; });
  if (row == std::end(kRows) || row->code != request.exit_code) {
    const bool snp = std::find(std::begin(kSnpEvents), std::end(kSnpEvents), request.exit_code) != std::end(kSnpEvents);
    return {.error = snp ? InputError::kMissingInput : InputError::kUnsupportedEvent};
  }
  if (!includes(request.valid, row->required)) return {.error = InputError::kMissingInput};
  if (row->also != nullptr && !includes(request.valid, row->also(request))) return {.error = InputError::kMissingInput};
  return {.error = std::nullopt, .action = row->action};
}

}  // namespace sevisor::ghcb
