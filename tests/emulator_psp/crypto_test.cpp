#include "emulator/psp/crypto.hpp"

#include <catch2/catch.hpp>

using namespace sevisor;
using namespace sevisor::emulator;

TEST_CASE("the same seed gives the same numbers, another one others") {
  SeededRandom a(5);
  SeededRandom b(5);
  SeededRandom c(6);
  const Key128 first = a.key();
  CHECK(first == b.key());
  CHECK(first != c.key());
  CHECK(first != a.key());
  (void)b.key();
  CHECK(make_ecdh_key(a).scalar() == make_ecdh_key(b).scalar());
}
