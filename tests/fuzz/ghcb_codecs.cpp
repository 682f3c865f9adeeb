// The codecs of the GHCB protocol, which both sides use on what the other one wrote: IOIO information, values of the
// GHCB MSR, injected events. What is accepted encodes to the bits that it was decoded from.
#include "check.hpp"
#include "ghcb/event.hpp"
#include "ghcb/exit_name.hpp"
#include "ghcb/hypervisor/event_table.hpp"
#include "ghcb/ioio.hpp"
#include "ghcb/msr_protocol.hpp"
#include "input.hpp"

using namespace sevisor;

namespace {

constexpr std::uint64_t kNoAddressSize = std::uint64_t{7} << ghcb::kIoAddressSizeShift;

void check_ioio(std::uint64_t value) {
  const auto access = ghcb::decode_ioio(value);
  if (!access) return;
  FUZZ_CHECK(access->size == 1 || access->size == 2 || access->size == 4);
  FUZZ_CHECK(access->address_size == 2 || access->address_size == 4 || access->address_size == 8);
  FUZZ_CHECK(static_cast<unsigned>(access->segment) <= 5);
  // No address size is read as 8 bytes.
  const std::uint64_t encoded = ghcb::encode(*access);
  FUZZ_CHECK(encoded == value || ((value & kNoAddressSize) == 0 && (encoded & ~kNoAddressSize) == value));
}

void check_msr(std::uint64_t value) {
  namespace msr = ghcb::msr;
  if (const auto info = msr::decode_sev_info(value)) FUZZ_CHECK(msr::encode(*info) == value);
  if (const auto request = msr::decode_cpuid_request(value)) FUZZ_CHECK(msr::encode(*request) == value);
  for (const auto reg :
       {msr::CpuidRegister::kEax, msr::CpuidRegister::kEbx, msr::CpuidRegister::kEcx, msr::CpuidRegister::kEdx}) {
    if (const auto reply = msr::decode_cpuid_response(value, reg)) {
      FUZZ_CHECK(msr::encode_cpuid_response(*reply, reg) == value);
    }
  }
  if (const auto sipi = msr::decode_ap_reset_hold_response(value)) FUZZ_CHECK(*sipi == (value >> 12 != 0));
  if (const auto features = msr::decode_features_response(value)) {
    FUZZ_CHECK(msr::encode_features_response(*features) == value);
  }
  if (const auto end = msr::decode_termination(value)) FUZZ_CHECK(msr::encode(*end) == (value & 0xffffff));
}

void check_event(std::uint64_t value) {
  constexpr std::uint64_t kReserved = 0x7ffff000;
  FUZZ_CHECK(ghcb::encode(ghcb::decode_event(value)) == (value & ~kReserved));
}

// A request with some fields marked valid: what the table refuses for a missing field it takes with all of them.
void check_request(fuzz::Input& input) {
  ghcb::Request request;
  request.valid.word[0] = input.take<std::uint64_t>();
  request.valid.word[1] = input.take<std::uint64_t>();
  const auto code = input.take<std::uint16_t>();
  request.exit_code = (code & 0x8000) != 0 ? 0x80000000 | (code & 0xff) : code & 0x4ff;
  request.exit_info_1 = input.take<std::uint64_t>();
  request.rax = input.take<std::uint8_t>();
  const ghcb::Verdict verdict = ghcb::validate(request);
  request.valid.word[0] = request.valid.word[1] = ~std::uint64_t{0};
  const ghcb::Verdict with_all = ghcb::validate(request);
  const bool known = ghcb::find_nae_event(request.exit_code) != nullptr;
  FUZZ_CHECK(!known || (!with_all.error && ghcb::exit_name(request.exit_code) != "unknown"));
  FUZZ_CHECK(known || with_all.error);
  if (!verdict.error) FUZZ_CHECK(!with_all.error && verdict.action == with_all.action);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  fuzz::Input input(data, size);
  while (!input.empty()) {
    const auto value = input.take<std::uint64_t>();
    check_ioio(value);
    check_ioio(value & 0xffff1ffd);  // nothing reserved
    check_msr(value);
    check_event(value);
    check_request(input);
  }
  return 0;
}
