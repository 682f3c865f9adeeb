// The flash against what QEMU 7.2's cfi.pflash01 answers: `qemu-system-x86_64 -machine q35 -accel tcg -S -qtest stdio`
// with OVMF_CODE.fd and OVMF_VARS.fd as pflash, by readb and writeb at 0xffe00000. Where the two differ on purpose, the
// test says so.
#include "devices/pflash.hpp"

#include <algorithm>
#include <catch2/catch.hpp>
#include <utility>
#include <vector>

#include "base/error.hpp"
#include "tests/devices/helpers.hpp"

namespace sevisor::devices::test {
namespace {

constexpr std::size_t kSize = 0x20000;  // of OVMF_VARS.fd

struct Fixture {
  std::vector<std::byte> array = std::vector<std::byte>(kSize, std::byte{0x77});
  std::vector<std::pair<std::size_t, std::size_t>> changes;
  Pflash flash{array, [this](std::size_t offset, std::size_t size) { changes.emplace_back(offset, size); }};
};

TEST_CASE_METHOD(Fixture, "flash: the array is what is read at first") {
  CHECK(in(flash, 0) == 0x77);
  CHECK(in<std::uint64_t>(flash, kSize - 8) == 0x7777777777777777);
}

TEST_CASE_METHOD(Fixture, "flash: CFI answers are QEMU's") {
  const std::vector<std::byte> known = from_hex(
      {0x51, 0x52, 0x59, 0x01, 0x00, 0x31, 0x00, 0x00, 0x00, 0x00, 0x00, 0x45, 0x55, 0x00, 0x00, 0x07,    // 0x10
       0x07, 0x0a, 0x00, 0x04, 0x04, 0x04, 0x00, 0x11, 0x02, 0x00, 0x08, 0x00, 0x01, 0x1f, 0x00, 0x10,    // 0x20
       0x00, 0x50, 0x52, 0x49, 0x31, 0x30, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x01,    // 0x30
       0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,    // 0x40
       0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00});  // 0x50
  out8(flash, 0, 0x98);
  for (std::size_t at = 0; at < 0x10; ++at) CHECK(in(flash, at) == 0);
  for (std::size_t i = 0; i < known.size(); ++i) {
    CAPTURE(i);
    CHECK(std::byte{in(flash, 0x10 + i)} == known[i]);
  }
  CHECK(in(flash, 0x110) == 0x51);  // again in each 256 bytes
  out8(flash, 0, 0xff);
  CHECK(in(flash, 0x10) == 0x77);
}

TEST_CASE_METHOD(Fixture, "flash: identifiers and the first status are 0") {
  out8(flash, 0, 0x90);
  for (const std::uint64_t at : {0, 1, 2, 3, 0x1000}) CHECK(in(flash, at) == 0);
  out8(flash, 0, 0x70);
  CHECK(in(flash, 0) == 0);
  CHECK(in(flash, 5) == 0);
  out8(flash, 0, 0xff);
  CHECK(in(flash, 0) == 0x77);
}

TEST_CASE_METHOD(Fixture, "flash: a byte is programmed by 10 and by 40") {
  out8(flash, 0x1ff0, 0x10);
  out8(flash, 0x1ff0, 0xa5);
  CHECK(in(flash, 0x1ff0) == 0x80);
  CHECK(in(flash, 0) == 0x80);
  out8(flash, 0, 0xff);
  CHECK(in(flash, 0x1ff0) == 0xa5);
  out8(flash, 0x1ff0, 0x40);
  out8(flash, 0x1ff0, 0x5a);
  out8(flash, 0, 0xff);
  CHECK(in(flash, 0x1ff0) == 0x5a);  // not 0xa5 & 0x5a
  CHECK(in(flash, 0x1ff1) == 0x77);
  CHECK(changes == std::vector<std::pair<std::size_t, std::size_t>>{{0x1ff0, 1}, {0x1ff0, 1}});
}

// What OVMF does, many times over: two commands and two bytes without reading the array in between.
TEST_CASE_METHOD(Fixture, "flash: programming goes on without a return to the array") {
  for (unsigned i = 0; i < 4; ++i) {
    out8(flash, 0x100 + i, 0x10);
    out8(flash, 0x100 + i, 0xf0 + i);
  }
  out8(flash, 0x103, 0xff);
  CHECK(in<std::uint32_t>(flash, 0x100) == 0xf3f2f1f0);
}

TEST_CASE_METHOD(Fixture, "flash: a double word is programmed by one write") {
  out8(flash, 0x200, 0x10);
  out(flash, 0x200, std::uint32_t{0x12345678});
  out8(flash, 0, 0xff);
  CHECK(in<std::uint32_t>(flash, 0x200) == 0x12345678);
  CHECK(changes == std::vector<std::pair<std::size_t, std::size_t>>{{0x200, 4}});
}

TEST_CASE_METHOD(Fixture, "flash: the block of 4 KiB around the address is erased") {
  out8(flash, 0x1234, 0x20);
  CHECK(in(flash, 0x1234) == 0x80);
  CHECK(array[0x1234] == std::byte{0x77});  // QEMU erases before the confirmation
  out8(flash, 0x1234, 0xd0);
  CHECK(in(flash, 0) == 0x80);
  out8(flash, 0, 0xff);
  CHECK(std::ranges::count(array, std::byte{0xff}) == 0x1000);
  CHECK(in(flash, 0x1000) == 0xff);
  CHECK(in(flash, 0x1fff) == 0xff);
  CHECK(in(flash, 0xfff) == 0x77);
  CHECK(in(flash, 0x2000) == 0x77);
  CHECK(changes == std::vector<std::pair<std::size_t, std::size_t>>{{0x1000, 0x1000}});
}

TEST_CASE_METHOD(Fixture, "flash: what is not confirmed is not erased, and the array is back") {
  out8(flash, 0x1234, 0x20);
  out8(flash, 0x1234, 0x99);
  CHECK(in(flash, 0) == 0x77);
  CHECK(changes.empty());
}

TEST_CASE_METHOD(Fixture, "flash: 50 clears the status") {
  out8(flash, 0, 0x10);
  out8(flash, 0, 0x77);
  CHECK(in(flash, 0) == 0x80);
  out8(flash, 0, 0x50);
  CHECK(in(flash, 0) == 0x77);
  out8(flash, 0, 0x70);
  CHECK(in(flash, 0) == 0);
}

TEST_CASE_METHOD(Fixture, "flash: a buffer is written when it is confirmed") {
  out8(flash, 0x1000, 0xe8);
  CHECK(in(flash, 0x1000) == 0x80);
  out8(flash, 0x1000, 3);  // four bytes
  for (unsigned i = 0; i < 4; ++i) {
    out8(flash, 0x1010 + i, i + 1);
    CHECK(in(flash, 0x1000) == 0x80);
  }
  CHECK(changes.empty());
  out8(flash, 0x1000, 0xd0);
  CHECK(in(flash, 0x1000) == 0x80);
  out8(flash, 0, 0xff);
  CHECK(in<std::uint32_t>(flash, 0x1010) == 0x04030201);
  CHECK(in(flash, 0x1014) == 0x77);
  CHECK(in(flash, 0x100f) == 0x77);
  REQUIRE(changes.size() == 1);
}

TEST_CASE_METHOD(Fixture, "flash: a buffer that is not confirmed is dropped") {
  out8(flash, 0x1000, 0xe8);
  out8(flash, 0x1000, 0);
  out8(flash, 0x1020, 7);
  out8(flash, 0x1000, 0xff);
  CHECK(in(flash, 0x1020) == 0x77);
  CHECK(changes.empty());
}

// Datasheet 290667, 4.8: the data must lie in the buffer's block. QEMU 7.2 writes it wherever it is.
TEST_CASE_METHOD(Fixture, "flash: a buffer with data outside its block is an error") {
  out8(flash, 0x1000, 0xe8);
  out8(flash, 0x1000, 1);
  out8(flash, 0x10ff, 1);
  out8(flash, 0x1100, 2);
  out8(flash, 0x1000, 0xd0);
  CHECK(in(flash, 0) == 0x90);
  CHECK(changes.empty());
  out8(flash, 0, 0xff);
  CHECK(in(flash, 0x10ff) == 0x77);
}

TEST_CASE_METHOD(Fixture, "flash: the last block takes a whole buffer") {
  out8(flash, kSize - 1, 0xe8);
  out8(flash, kSize - 1, 0xff);
  for (unsigned i = 0; i < 256; ++i) out8(flash, kSize - 256 + i, i);
  out8(flash, kSize - 1, 0xd0);
  CHECK(array[kSize - 1] == std::byte{0xff});
  CHECK(array[kSize - 256] == std::byte{0});
  CHECK(array[kSize - 257] == std::byte{0x77});
}

TEST_CASE_METHOD(Fixture, "flash: blocks can be locked and unlocked, which does nothing") {
  for (const unsigned second : {0xd0, 0x01}) {
    out8(flash, 0x1000, 0x60);
    out8(flash, 0x1000, second);
    CHECK(in(flash, 0x1000) == 0x80);
    out8(flash, 0, 0xff);
  }
  out8(flash, 0x1000, 0x60);
  out8(flash, 0x1000, 0x99);
  CHECK(in(flash, 0x1000) == 0x77);
  CHECK(changes.empty());
}

TEST_CASE_METHOD(Fixture, "flash: unknown commands lead back to the array") {
  for (const unsigned command : {0x33, 0x00, 0xf0, 0xd0}) {
    out8(flash, 0, 0x70);
    out8(flash, 0, command);
    CHECK(in(flash, 0) == 0x77);
  }
}

TEST_CASE("flash: sizes that are no number of blocks are refused") {
  std::vector<std::byte> array(0x1800);
  CHECK_THROWS_AS(Pflash(array, {}), Error);
  CHECK_THROWS_AS(Pflash({}, {}), Error);
  array.resize(0x3000);  // not a power of two
  Pflash flash(array, {});
  out8(flash, 0, 0x98);
  CHECK(in(flash, 0x27) == 14);
  CHECK(in(flash, 0x2d) == 2);
}

}  // namespace
}  // namespace sevisor::devices::test
