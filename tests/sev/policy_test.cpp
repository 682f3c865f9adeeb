#include "sev/policy.hpp"

#include <catch2/catch.hpp>

#include "base/error.hpp"

using namespace sevisor;
using namespace sevisor::sev;

TEST_CASE("a policy is told by the names of its bits") {
  CHECK(policy_text(0) == "none");
  CHECK(policy_text(0x5) == "NODBG|ES");
  CHECK(policy_text(0x3f) == "NODBG|NOKS|ES|NOSEND|DOMAIN|SEV");
  CHECK(policy_text(0x37010005) == "NODBG|ES|API>=1.55");
  CHECK(policy_text(0x44) == "ES|0x40");
}

TEST_CASE("a policy is read as decimal or hexadecimal") {
  CHECK(parse_policy("5") == 5);
  CHECK(parse_policy("0x5") == 5);
  CHECK(parse_policy("0xFFFFFFFF") == 0xffffffff);
  for (const char* text : {"", "0x", "x", "5 ", "-1", "0x100000000", "4294967296", "5x"}) {
    CAPTURE(text);
    CHECK_THROWS_AS(parse_policy(text), Error);
  }
}

TEST_CASE("reserved bits are named") {
  CHECK(reserved_policy_text(0x7f) == "bits 0x40 of it are reserved and should be 0");
  CHECK(reserved_policy_text(0xffff) == "bits 0xffc0 of it are reserved and should be 0");
  CHECK(reserved_policy_text(0x3701003f).empty());
}

TEST_CASE("only policies that ask for SEV-ES and leave reserved bits alone are taken") {
  CHECK_NOTHROW(require_sev_es_policy(kDefaultPolicy));
  CHECK_NOTHROW(require_sev_es_policy(0x37010004));
  CHECK_THROWS_AS(require_sev_es_policy(0x1), Error);
  CHECK_THROWS_AS(require_sev_es_policy(0), Error);
  CHECK_THROWS_AS(require_sev_es_policy(0x45), Error);
  try {
    require_sev_es_policy(0x1);
    FAIL("policy 1 was taken");
  } catch (const Error& error) {
    CHECK(error.exit_code() == ExitCode::kBadUsage);
    CHECK(error.advice().find("0x5") != std::string::npos);
  }
}
