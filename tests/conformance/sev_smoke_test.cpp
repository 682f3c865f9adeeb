// The points of the kernel's sev_smoke_test.
#include <array>
#include <cstring>

#include "base/bytes.hpp"
#include "guests.hpp"
#include "sev_rig.hpp"

using namespace sevisor;
using namespace sevisor::conformance;

namespace {
constexpr std::uint64_t kTerminate = 0x100;  // GHCB MSR protocol: termination request, set 0, code 0
constexpr std::size_t kXsaveHeader = 512;
constexpr std::size_t kYmmHigh = 576;  // CPUID leaf 0xD, subleaf 2, EBX

// The host's XCR0 for guests has AVX.
bool has_avx(const SevHost& rig) {
  std::uint64_t components = 0;
  kvm_device_attr attribute{};
  attribute.attr = KVM_X86_XCOMP_GUEST_SUPP;
  attribute.addr = reinterpret_cast<std::uintptr_t>(&components);
  return answer(rig.kvm.descriptor(), KVM_GET_DEVICE_ATTR, &attribute) == 0 && (components & 4) != 0;
}
}  // namespace

TEST_CASE("a guest of each kind and policy is launched, and finds itself encrypted", "[sev]") {
  const Kind kind = GENERATE(Kind::kSev, Kind::kSevInit2, Kind::kSevEs, Kind::kSevEsInit2);
  const std::uint32_t policy = GENERATE(0U, kPolicyNoDebug) | (has_es(kind) ? kPolicyEs : 0);
  INFO(name_of(kind) << ", policy " << policy);
  if (!kernel_has(kind)) return;
  SevRig rig(kind, policy);
  rig.load(has_es(kind) ? sev_es_status_guest() : sev_status_guest());
  rig.launch();
  if (!has_es(kind)) {
    const kvm_run& state = rig.run_to(KVM_EXIT_IO);
    CHECK(load<std::uint32_t>(reinterpret_cast<const std::byte*>(&state) + state.io.data_offset) == 1);
    return;
  }
  const kvm_run& state = rig.run_to(KVM_EXIT_SYSTEM_EVENT);
  CHECK(state.system_event.type == KVM_SYSTEM_EVENT_SEV_TERM);
  CHECK(state.system_event.ndata == 1);
  CHECK(state.system_event.data[0] == kTerminate);
}

TEST_CASE("an exception without a vector table ends in KVM_EXIT_SHUTDOWN", "[sev]") {
  const Kind kind = GENERATE(Kind::kSev, Kind::kSevInit2, Kind::kSevEs, Kind::kSevEsInit2);
  INFO(name_of(kind));
  // KVM_RUN of an SEV-ES guest fails with EINVAL on kernels up to 6.1 at least; those with KVM_SEV_INIT2 are newer.
  if (!kernel_has(kind) || (has_es(kind) && !kernel_has(Kind::kSevEsInit2))) return;
  SevRig rig(kind, has_es(kind) ? kPolicyEs : 0);
  rig.load(sev_shutdown_guest());
  rig.launch();
  (void)rig.run_to(KVM_EXIT_SHUTDOWN);
}

TEST_CASE("the FPU's state that KVM_SET_XSAVE gave is the guest's", "[sev]") {
  if (!kernel_has(Kind::kSevEsInit2)) return;
  SevRig rig(Kind::kSevEsInit2, kPolicyEs);
  rig.load(sev_xsave_guest());
  const bool avx = has_avx(rig);
  const std::uint64_t components = avx ? 7 : 3;
  kvm_xcrs xcrs{};
  xcrs.nr_xcrs = 1;
  xcrs.xcrs[0].value = components;
  REQUIRE(answer(rig.vcpus[0].descriptor(), KVM_SET_XCRS, &xcrs) == 0);
  kvm_xsave area{};
  auto* bytes = reinterpret_cast<std::byte*>(&area);
  store(bytes, std::uint16_t{0x37f});
  store(bytes + 4, std::uint8_t{0x80});  // ST(0), with TOP 0 physical register 7's bit stands for ST(7)
  store(bytes + 24, std::uint32_t{0x1f80});
  std::memset(bytes + 32 + 7 * 16, 0x5b, 10);  // ST(7)
  std::memset(bytes + 160 + 4 * 16, 0xa1, 16);
  if (avx) std::memset(bytes + kYmmHigh + 4 * 16, 0xa2, 16);
  store(bytes + kXsaveHeader, components);
  REQUIRE(answer(rig.vcpus[0].descriptor(), KVM_SET_XSAVE, &area) == 0);
  rig.launch();
  (void)rig.run_to(KVM_EXIT_SYSTEM_EVENT);
  const std::byte* seen = rig.ram.data() + SevRig::kShared;
  CHECK(load<std::uint16_t>(seen) == 0x37f);
  CHECK(load<std::uint32_t>(seen + 24) == 0x1f80);
  CHECK(std::memcmp(seen + 32 + 7 * 16, bytes + 32 + 7 * 16, 10) == 0);
  CHECK(std::memcmp(seen + 160, bytes + 160, 256) == 0);
  if (avx) CHECK(std::memcmp(seen + kYmmHigh, bytes + kYmmHigh, 256) == 0);
}
