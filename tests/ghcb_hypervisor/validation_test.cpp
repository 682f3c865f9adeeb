#include <catch2/catch.hpp>
#include <initializer_list>

#include "ghcb/hypervisor/event_table.hpp"
#include "ghcb/ioio.hpp"

using namespace sevisor::ghcb;

namespace {

Request request_with(ExitCode code, std::uint64_t info_1, std::initializer_list<Field> fields) {
  Request request{.exit_code = code, .exit_info_1 = info_1};
  for (Field field : {Field::kExitCode, Field::kExitInfo1, Field::kExitInfo2}) request.valid.set(field);
  for (Field field : fields) request.valid.set(field);
  return request;
}

constexpr std::uint64_t kOut = 0x3f80010;  // byte to port 0x3f8
constexpr std::uint64_t kIn = kOut | 1;
constexpr std::uint64_t kOutString = kOut | 4;
constexpr std::uint64_t kInString = kIn | 4;

}  // namespace

TEST_CASE("each event must bring its fields, and each one alone is missed") {
  struct Case {
    ExitCode code;
    std::uint64_t info_1;
    std::initializer_list<Field> required;
  };
  // Linux sev_es_validate_vmgexit().
  const Case cases[] = {
      {kExitReadDr7, 0, {}},
      {kExitWriteDr7, 0, {Field::kRax}},
      {kExitRdtsc, 0, {}},
      {kExitRdpmc, 0, {Field::kRcx}},
      {kExitCpuid, 0, {Field::kRax, Field::kRcx}},
      {kExitInvd, 0, {}},
      {kExitIoio, kOut, {Field::kRax}},
      {kExitIoio, kIn, {}},
      {kExitIoio, kOutString, {Field::kScratch}},
      {kExitIoio, kInString, {Field::kScratch}},
      {kExitMsr, 0, {Field::kRcx}},
      {kExitMsr, 1, {Field::kRcx, Field::kRax, Field::kRdx}},
      {kExitVmmcall, 0, {Field::kRax, Field::kCpl}},
      {kExitRdtscp, 0, {}},
      {kExitWbinvd, 0, {}},
      {kExitMonitor, 0, {Field::kRax, Field::kRcx, Field::kRdx}},
      {kExitMwait, 0, {Field::kRax, Field::kRcx}},
      {kExitMmioRead, 0, {Field::kScratch}},
      {kExitMmioWrite, 0, {Field::kScratch}},
      {kExitNmiComplete, 0, {}},
      {kExitApResetHold, 0, {}},
      {kExitApJumpTable, 0, {}},
      {kExitHypervisorFeatures, 0, {}},
      {kExitTerminate, 0, {}},
      {kExitUnsupportedEvent, 0, {}},
  };
  for (const Case& c : cases) {
    INFO("exit code 0x" << std::hex << c.code << " info_1 0x" << c.info_1);
    CHECK_FALSE(validate(request_with(c.code, c.info_1, c.required)).error.has_value());
    for (Field left_out : c.required) {
      Request request = request_with(c.code, c.info_1, {});
      for (Field field : c.required) {
        if (field != left_out) request.valid.set(field);
      }
      CHECK(validate(request).error == InputError::kMissingInput);
    }
  }
}

TEST_CASE("CPUID leaf 0xd needs XCR0") {
  Request request = request_with(kExitCpuid, 0, {Field::kRax, Field::kRcx});
  request.rax = 0xd;
  CHECK(validate(request).error == InputError::kMissingInput);
  request.valid.set(Field::kXcr0);
  CHECK_FALSE(validate(request).error.has_value());
}

TEST_CASE("checks come in KVM's order") {
  Request request{.exit_code = 0x12345, .usage = 1};
  CHECK(validate(request).error == InputError::kUnsupportedUsage);
  request.usage = 0;
  CHECK(validate(request).error == InputError::kMissingInput);
  for (Field field : {Field::kExitCode, Field::kExitInfo1}) request.valid.set(field);
  CHECK(validate(request).error == InputError::kMissingInput);
  request.valid.set(Field::kExitInfo2);
  CHECK(validate(request).error == InputError::kUnsupportedEvent);
}

TEST_CASE("automatic exits and SNP events are refused") {
  for (ExitCode code : {kExitHlt, kExitPause, kExitIntr, kExitNpf, kExitVmgexit, kExitInvalid}) {
    CHECK(validate(request_with(code, 0, {})).error == InputError::kUnsupportedEvent);
  }
}

// Linux arch/x86/kvm/svm/sev.c, sev_es_validate_vmgexit() of each release.
TEST_CASE("what a kernel of another age answers otherwise") {
  for (const ExitCode code : {0x80000010ull, 0x80000011ull, 0x80000012ull, 0x80000013ull}) {
    const Request request = request_with(code, 0, {});
    CHECK(validate(request, KnownRequests::kLinux61).error == InputError::kUnsupportedEvent);
    CHECK(validate(request, KnownRequests::kLinux612).error == InputError::kMissingInput);
    CHECK(validate(request, KnownRequests::kLinux72).error == InputError::kUnsupportedEvent);
    // Only 7.2 looks at the code before it looks at what is valid besides.
    Request bare;
    bare.exit_code = code;
    bare.valid.set(Field::kExitCode);
    CHECK(validate(bare, KnownRequests::kLinux61).error == InputError::kMissingInput);
    CHECK(validate(bare, KnownRequests::kLinux612).error == InputError::kMissingInput);
    CHECK(validate(bare, KnownRequests::kLinux72).error == InputError::kUnsupportedEvent);
  }
  for (const ExitCode code : {kExitHypervisorFeatures, kExitTerminate}) {
    const Request request = request_with(code, 0, {});
    CHECK(validate(request, KnownRequests::kLinux61).error == InputError::kUnsupportedEvent);
    CHECK_FALSE(validate(request, KnownRequests::kLinux612).error.has_value());
    CHECK_FALSE(validate(request, KnownRequests::kLinux72).error.has_value());
  }
  for (const auto known : {KnownRequests::kLinux61, KnownRequests::kLinux612, KnownRequests::kLinux72}) {
    CHECK_FALSE(validate(request_with(kExitApResetHold, 0, {}), known).error.has_value());
  }
}

TEST_CASE("fields that are not marked valid read as zero") {
  Page page{};
  page.rax = 0x1111;
  page.rcx = 0x2222;
  page.scratch = 0x3333;
  page.valid.set(Field::kRcx);
  const Request request = read_request(page);
  CHECK(request.rax == 0);
  CHECK(request.rcx == 0x2222);
  CHECK(request.scratch == 0);
}
