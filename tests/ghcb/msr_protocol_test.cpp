#include "ghcb/msr_protocol.hpp"

#include <catch2/catch.hpp>

namespace {
using namespace sevisor::ghcb::msr;

// Literal values follow the bit tables of the GHCB specification, section 2.3.1.
TEST_CASE("SEV information carries versions and the C-bit", "[ghcb][msr]") {
  REQUIRE(encode(SevInfo{.max_version = 2, .min_version = 1, .c_bit = 51}) == 0x0002'0001'3300'0001);
  REQUIRE(decode_sev_info(0x0002'0001'3300'0001) == SevInfo{.max_version = 2, .min_version = 1, .c_bit = 51});
  REQUIRE_FALSE(decode_sev_info(0x0002'0001'3300'1001));  // reserved bit 12
  REQUIRE_FALSE(decode_sev_info(0x0002'0001'3380'0001));  // reserved bit 23
  REQUIRE_FALSE(decode_sev_info(0x0002'0001'3300'0002));  // the request came back unanswered
}

TEST_CASE("a CPUID request names leaf and register", "[ghcb][msr]") {
  REQUIRE(encode(CpuidRequest{.leaf = 0x8000001f, .reg = CpuidRegister::kEbx}) == 0x8000001f'40000004);
  REQUIRE(decode_cpuid_request(0x8000001f'40000004) == CpuidRequest{.leaf = 0x8000001f, .reg = CpuidRegister::kEbx});
  REQUIRE_FALSE(decode_cpuid_request(0x8000001f'40001004));
  REQUIRE_FALSE(decode_cpuid_request(0x8000001f'40000006));
}

TEST_CASE("a CPUID response must be for the register asked for", "[ghcb][msr]") {
  REQUIRE(encode_cpuid_response(0x12345678, CpuidRegister::kEdx) == 0x12345678'c0000005);
  REQUIRE(decode_cpuid_response(0x12345678'c0000005, CpuidRegister::kEdx) == 0x12345678u);
  REQUIRE_FALSE(decode_cpuid_response(0x12345678'c0000005, CpuidRegister::kEax));
  REQUIRE_FALSE(decode_cpuid_response(0x12345678'e0000005, CpuidRegister::kEdx));  // reserved bit 29
  REQUIRE_FALSE(decode_cpuid_response(0x12345678'c0000004, CpuidRegister::kEdx));
}

TEST_CASE("the AP reset hold says whether a SIPI came", "[ghcb][msr]") {
  REQUIRE(encode_ap_reset_hold_response(true) == 0x1007);
  REQUIRE(decode_ap_reset_hold_response(0x1007) == true);
  REQUIRE(decode_ap_reset_hold_response(0x8000'0000'0000'0007) == true);
  REQUIRE(decode_ap_reset_hold_response(0x0007) == false);
  REQUIRE_FALSE(decode_ap_reset_hold_response(0x0006));
}

TEST_CASE("hypervisor features fill bits 63:12", "[ghcb][msr]") {
  REQUIRE(encode_features_response(3) == 0x3081);
  REQUIRE(decode_features_response(0x3081) == 3u);
  REQUIRE_FALSE(decode_features_response(0x3080));
}

TEST_CASE("a termination carries its reason", "[ghcb][msr]") {
  REQUIRE(encode(Termination{.reason_set = kReasonSetGuest, .reason = 0x42}) == 0x42'1100);
  REQUIRE(decode_termination(0x42'1100) == Termination{.reason_set = 1, .reason = 0x42});
  REQUIRE(decode_termination(0xffff'0042'1100) == Termination{.reason_set = 1, .reason = 0x42});
  REQUIRE_FALSE(decode_termination(0x42'1101));
}
}  // namespace
