#include <catch2/catch.hpp>

#include "base/error.hpp"
#include "devices/acpi/aml.hpp"
#include "tests/devices/helpers.hpp"

namespace sevisor::devices::test {
namespace {

using namespace acpi;  // NOLINT(google-build-using-namespace)

TEST_CASE("AML integers take the shortest form") {
  CHECK(aml_integer(0) == from_hex({0x00}));
  CHECK(aml_integer(1) == from_hex({0x01}));
  CHECK(aml_integer(2) == from_hex({0x0a, 2}));
  CHECK(aml_integer(0xff) == from_hex({0x0a, 0xff}));
  CHECK(aml_integer(0x100) == from_hex({0x0b, 0x00, 0x01}));
  CHECK(aml_integer(0x10000) == from_hex({0x0c, 0, 0, 1, 0}));
  CHECK(aml_integer(0x1'0000'0000) == from_hex({0x0e, 0, 0, 0, 0, 1, 0, 0, 0}));
}

TEST_CASE("AML package lengths count themselves") {
  CHECK(aml_package_length(0) == from_hex({0x01}));
  CHECK(aml_package_length(62) == from_hex({0x3f}));
  CHECK(aml_package_length(63) == from_hex({0x41, 0x04}));           // 65
  CHECK(aml_package_length(0xffd) == from_hex({0x4f, 0xff}));        // 0xfff
  CHECK(aml_package_length(0xffe) == from_hex({0x81, 0x00, 0x01}));  // 0x1001
  CHECK(aml_package_length(0xffffc) == from_hex({0x8f, 0xff, 0xff}));
  CHECK(aml_package_length(0xffffd) == from_hex({0xc1, 0x00, 0x00, 0x01}));
  CHECK_THROWS_AS(aml_package_length(0x10000000), Error);
}

TEST_CASE("AML names are padded segments") {
  CHECK(aml_name_string("\\_SB") == to_vector("\\_SB_"));
  CHECK(aml_name_string("COM1") == to_vector("COM1"));
  for (const char* wrong : {"", "\\", "TOOLONG", "com1", "1COM", "A B"}) CHECK_THROWS_AS(aml_name_string(wrong), Error);
}

TEST_CASE("AML EISA IDs are compressed") {
  CHECK(aml_eisa_id("PNP0501") == from_hex({0x0c, 0x41, 0xd0, 0x05, 0x01}));
  CHECK(aml_eisa_id("PNP0A03") == from_hex({0x0c, 0x41, 0xd0, 0x0a, 0x03}));
  for (const char* wrong : {"", "PNP050", "PNP05011", "pnp0501", "PNP050g"}) CHECK_THROWS_AS(aml_eisa_id(wrong), Error);
}

TEST_CASE("AML objects and resources") {
  CHECK(aml_name("_S5", aml_package({aml_integer(5), aml_integer(0)})) ==
        from_hex({0x08, '_', 'S', '5', '_', 0x12, 0x05, 0x02, 0x0a, 0x05, 0x00}));
  CHECK(aml_device("DEV0", {aml_name("_UID", aml_integer(1))}) ==
        from_hex({0x5b, 0x82, 0x0b, 'D', 'E', 'V', '0', 0x08, '_', 'U', 'I', 'D', 0x01}));
  CHECK(aml_scope("\\_SB", {}) == from_hex({0x10, 0x06, '\\', '_', 'S', 'B', '_'}));
  CHECK(
      aml_resources({aml_io_ports(0x3f8, 8), aml_irq(4)}) ==
      from_hex({0x11, 0x10, 0x0a, 0x0d, 0x47, 0x01, 0xf8, 0x03, 0xf8, 0x03, 0x01, 0x08, 0x22, 0x10, 0x00, 0x79, 0x00}));
  CHECK_THROWS_AS(aml_irq(16), Error);
}

}  // namespace
}  // namespace sevisor::devices::test
