#include "devices/fw_cfg.hpp"

#include <algorithm>
#include <catch2/catch.hpp>
#include <cstdio>
#include <string>
#include <unistd.h>

#include "base/error.hpp"
#include "tests/devices/helpers.hpp"

namespace sevisor::devices::test {
namespace {

constexpr std::uint64_t kSelector = 0;
constexpr std::uint64_t kData = 1;
constexpr std::uint64_t kDmaHigh = 4;
constexpr std::uint64_t kDmaLow = 8;

// QEMU docs/specs/fw_cfg.rst, "Guest-side DMA Interface".
constexpr std::uint32_t kError = 1;
constexpr std::uint32_t kRead = 2;
constexpr std::uint32_t kSkip = 4;
constexpr std::uint32_t kSelect = 8;
constexpr std::uint32_t kWrite = 16;

constexpr std::uint64_t kAccess = 0x100;  // where the tests put the FWCfgDmaAccess

std::string read_text(FwCfg& device, std::size_t size) {
  std::string text;
  for (std::size_t i = 0; i < size; ++i) text.push_back(static_cast<char>(in(device, kData)));
  return text;
}

std::string select_and_read(FwCfg& device, unsigned key, std::size_t size) {
  out(device, kSelector, static_cast<std::uint16_t>(key));
  return read_text(device, size);
}

struct Bench {
  VectorMemory memory{0x10000};
  FwCfg device{&memory};

  // Gives the control field as the device leaves it.
  std::uint32_t dma(std::uint32_t control, std::uint32_t length, std::uint64_t address, std::uint64_t at = kAccess) {
    store(&memory.bytes[at], swap_bytes(control));
    store(&memory.bytes[at + 4], swap_bytes(length));
    store(&memory.bytes[at + 8], swap_bytes(address));
    memory.written = 0;
    out(device, kDmaHigh, swap_bytes(static_cast<std::uint32_t>(at >> 32U)));
    out(device, kDmaLow, swap_bytes(static_cast<std::uint32_t>(at)));
    return swap_bytes(load<std::uint32_t>(&memory.bytes[at]));
  }
  [[nodiscard]] std::string text_at(std::size_t at, std::size_t size) const {
    return {reinterpret_cast<const char*>(&memory.bytes[at]), size};
  }
};

TEST_CASE("fw_cfg: signature and interfaces") {
  Bench b;
  CHECK(read_text(b.device, 4) == "QEMU");  // key 0 is selected at reset
  CHECK(select_and_read(b.device, 0, 4) == "QEMU");
  CHECK(select_and_read(b.device, 1, 4) == std::string("\3\0\0\0", 4));
  FwCfg without(nullptr);
  CHECK(select_and_read(without, 1, 4) == std::string("\1\0\0\0", 4));
  CHECK(in<std::uint32_t>(without, kDmaHigh) == 0xffffffff);
}

TEST_CASE("fw_cfg: the DMA register reads as its signature, big-endian") {
  Bench b;
  std::byte bytes[8];
  b.device.read(kDmaHigh, std::span(bytes).first(4));
  b.device.read(kDmaLow, std::span(bytes).last(4));
  CHECK(std::vector<std::byte>(bytes, bytes + 8) == to_vector("QEMU CFG"));
  CHECK(in(b.device, kDmaLow + 3) == 'G');
}

TEST_CASE("fw_cfg: integers are little-endian, reads past the end are zeros") {
  Bench b;
  b.device.add(FwCfgKey::kKernelSize, FwCfgItem::u32(0x12345678));
  b.device.add(FwCfgKey::kCpuCount, FwCfgItem::u16(0x0102));
  b.device.add(FwCfgKey::kRamSize, FwCfgItem::u64(0x0807060504030201));
  CHECK(select_and_read(b.device, 0x08, 6) == std::string("\x78\x56\x34\x12\0\0", 6));
  CHECK(select_and_read(b.device, 0x05, 2) == "\2\1");
  CHECK(select_and_read(b.device, 0x03, 8) == "\1\2\3\4\5\6\7\x08");
  CHECK(select_and_read(b.device, 0x1234, 3) == std::string(3, '\0'));  // no such item
  CHECK(select_and_read(b.device, 0xffff, 3) == std::string(3, '\0'));
}

TEST_CASE("fw_cfg: wide and repeated reads give consecutive bytes") {
  Bench b;
  b.device.add(FwCfgKey::kCommandLineData, FwCfgItem::text("0123456789"));
  out(b.device, kSelector, std::uint16_t{0x15});
  CHECK(in<std::uint16_t>(b.device, kData) == 0x3130);
  CHECK(in<std::uint32_t>(b.device, kData) == 0x35343332);
  std::byte rest[6];
  b.device.read_string(kData, 1, rest);
  CHECK(std::vector<std::byte>(rest, rest + 6) == from_hex({'6', '7', '8', '9', 0, 0}));
}

TEST_CASE("fw_cfg: only a 16-bit write selects, and data cannot be written") {
  Bench b;
  out(b.device, kSelector, std::uint16_t{1});
  out(b.device, kSelector, std::uint8_t{0});
  out(b.device, kSelector, std::uint32_t{0});
  out(b.device, kData, std::uint8_t{'x'});
  CHECK(in(b.device, kData) == 3);
  CHECK(select_and_read(b.device, 1, 1) == "\3");
}

TEST_CASE("fw_cfg: the directory is sorted, big-endian, keys from 0x20") {
  Bench b;
  b.device.add_file("etc/table-loader", FwCfgItem::text("script"));
  b.device.add_file("etc/acpi/rsdp", FwCfgItem::text("RSD"));
  b.device.add_file("opt/x", FwCfgItem::text(""));
  std::string expected("\0\0\0\3", 4);
  const auto entry = [&](const std::string& size, const std::string& key, std::string name) {
    name.resize(56);
    expected += size + key + std::string(2, '\0') + name;
  };
  entry(std::string("\0\0\0\3", 4), std::string("\0\x20", 2), "etc/acpi/rsdp");
  entry(std::string("\0\0\0\6", 4), std::string("\0\x21", 2), "etc/table-loader");
  entry(std::string("\0\0\0\0", 4), std::string("\0\x22", 2), "opt/x");
  CHECK(select_and_read(b.device, 0x19, expected.size()) == expected);
  CHECK(select_and_read(b.device, 0x20, 3) == "RSD");
  CHECK(select_and_read(b.device, 0x21, 6) == "script");

  b.device.add_file("etc/acpi/rsdp", FwCfgItem::text("replaced"));
  CHECK(select_and_read(b.device, 0x20, 8) == "replaced");
  CHECK(select_and_read(b.device, 0x19, 8) == std::string("\0\0\0\3\0\0\0\x08", 8));
  CHECK(b.device.find_file("opt/x").empty());
  CHECK(b.device.find_file("etc/table-loader").size() == 6);
  CHECK(b.device.find_file("nowhere").empty());
}

TEST_CASE("fw_cfg: an empty device has an empty directory") {
  Bench b;
  CHECK(select_and_read(b.device, 0x19, 8) == std::string(8, '\0'));
}

TEST_CASE("fw_cfg: the signature is selected after set-up") {
  Bench b;
  b.device.add(FwCfgKey::kKernelSize, FwCfgItem::u32(1));
  b.device.add_file("etc/e820", FwCfgItem::text("x"));
  CHECK(read_text(b.device, 4) == "QEMU");
}

TEST_CASE("fw_cfg: set-up errors are refused") {
  Bench b;
  CHECK_THROWS_AS(b.device.add(FwCfgKey::kSignature, FwCfgItem::u32(0)), Error);
  CHECK_THROWS_AS(b.device.add(FwCfgKey::kId, FwCfgItem::u32(0)), Error);
  CHECK_THROWS_AS(b.device.add(FwCfgKey::kFileDirectory, FwCfgItem::u32(0)), Error);
  CHECK_THROWS_AS(b.device.add(static_cast<FwCfgKey>(0x20), FwCfgItem::u32(0)), Error);
  CHECK_THROWS_AS(b.device.add_file("", FwCfgItem()), Error);
  CHECK_THROWS_AS(b.device.add_file(std::string(56, 'x'), FwCfgItem()), Error);
  CHECK_THROWS_AS(b.device.add_file(std::string("a\0b", 3), FwCfgItem()), Error);
  CHECK_NOTHROW(b.device.add_file(std::string(55, 'x'), FwCfgItem()));
  for (std::size_t i = 1; i < FwCfg::kMaxFiles; ++i) b.device.add_file("file" + std::to_string(i), FwCfgItem());
  CHECK_THROWS_AS(b.device.add_file("one too many", FwCfgItem()), Error);
  const std::byte byte{};
  const auto huge = FwCfgItem(std::span<const std::byte>(&byte, std::size_t{1} << 32));
  CHECK_THROWS_AS(b.device.add(FwCfgKey::kKernelData, huge), Error);
  CHECK_THROWS_AS(b.device.add_file("etc/huge", huge), Error);
  CHECK_THROWS_AS(b.device.add_file("file1", huge), Error);
  CHECK(select_and_read(b.device, 0x19, 4) == std::string("\0\0\1\0", 4));
}

TEST_CASE("fw_cfg: items come from files") {
  char path[] = "/tmp/sevisor-fw-cfg-XXXXXX";
  const int fd = ::mkstemp(path);
  REQUIRE(fd >= 0);
  REQUIRE(::write(fd, "kernel", 6) == 6);
  Bench b;
  b.device.add(FwCfgKey::kKernelData, FwCfgItem::file(path));
  ::close(fd);
  ::unlink(path);
  CHECK(select_and_read(b.device, 0x11, 7) == std::string("kernel\0", 7));
  CHECK_THROWS_AS(FwCfgItem::file(path), Error);
  CHECK_THROWS_AS(FwCfgItem::file("/"), Error);
}

TEST_CASE("fw_cfg: a keeper lives as long as its item") {
  const auto text = std::make_shared<const std::vector<std::byte>>(to_vector("kept"));
  std::weak_ptr<const std::vector<std::byte>> watch = text;
  {
    FwCfg device(nullptr);
    device.add(FwCfgKey::kSetupData, FwCfgItem(*text, text));
    CHECK(watch.use_count() == 2);
  }
  CHECK(watch.use_count() == 1);
}

TEST_CASE("fw_cfg DMA: select and read") {
  Bench b;
  b.device.add(FwCfgKey::kKernelData, FwCfgItem::text("0123456789"));
  CHECK(b.dma(0x0011'0000 | kSelect | kRead, 4, 0x2000) == 0);
  CHECK(b.text_at(0x2000, 5) == std::string("0123\0", 5));
  CHECK(b.dma(kRead, 3, 0x2000) == 0);  // goes on where it was
  CHECK(b.text_at(0x2000, 3) == "456");
  CHECK(b.dma(kSkip, 1, 0) == 0);
  CHECK(in(b.device, kData) == '8');  // the data port shares the position
  std::fill_n(&b.memory.bytes[0x2000], 16, std::byte{0xee});
  CHECK(b.dma(kRead, 8, 0x2000) == 0);
  CHECK(b.text_at(0x2000, 9) == std::string("9\0\0\0\0\0\0\0\xee", 9));  // zeros past the end
  CHECK(b.dma(kRead, 8, 0x2000) == 0);
  CHECK(b.text_at(0x2000, 1) == std::string(1, '\0'));
}

TEST_CASE("fw_cfg DMA: select alone, and nothing at all") {
  Bench b;
  CHECK(b.dma(0x0001'0000 | kSelect, 0xffffffff, ~std::uint64_t{0}) == 0);
  CHECK(in(b.device, kData) == 3);
  CHECK(b.dma(0, 0xffffffff, ~std::uint64_t{0}) == 0);
  CHECK(b.memory.written == 4);  // only the answer
}

TEST_CASE("fw_cfg DMA: skipping past the end stays at the end") {
  Bench b;
  b.device.add(FwCfgKey::kKernelData, FwCfgItem::text("abc"));
  CHECK(b.dma(0x0011'0000 | kSelect | kSkip, 2, 0) == 0);
  CHECK(in(b.device, kData) == 'c');
  CHECK(b.dma(kSkip, 0xffffffff, 0) == 0);
  CHECK(b.dma(kSkip, 0xffffffff, 0) == 0);
  CHECK(in(b.device, kData) == 0);
}

TEST_CASE("fw_cfg DMA: no item takes writes") {
  Bench b;
  b.device.add(FwCfgKey::kKernelData, FwCfgItem::text("abc"));
  CHECK(b.dma(0x0011'0000 | kSelect | kWrite, 1, 0x2000) == kError);
  CHECK(select_and_read(b.device, 0x11, 3) == "abc");
  CHECK(b.dma(0x0011'0000 | kSelect | kRead | kWrite, 3, 0x2000) == 0);  // read comes first, as in QEMU
  CHECK(b.text_at(0x2000, 3) == "abc");
}

TEST_CASE("fw_cfg DMA: addresses outside memory set the error bit") {
  Bench b;
  b.device.add(FwCfgKey::kKernelData, FwCfgItem::text("0123456789"));
  CHECK(b.dma(0x0011'0000 | kSelect | kRead, 10, 0x10000) == kError);
  CHECK(b.dma(0x0011'0000 | kSelect | kRead, 10, 0xfff8) == kError);
  CHECK(b.dma(0x0011'0000 | kSelect | kRead, 10, ~std::uint64_t{0} - 4) == kError);
  CHECK(b.dma(0x0011'0000 | kSelect | kRead, 0xffffffff, ~std::uint64_t{0} - 4) == kError);
  // A huge length ends where memory ends: the zeros behind the item run into it.
  CHECK(b.dma(0x0011'0000 | kSelect | kRead, 0xffffffff, 0x2000) == kError);
  CHECK(b.memory.written <= 0x10000);
  CHECK(b.dma(0xabcd'0000 | kSelect | kRead, 0xffffffff, 0x2000) == kError);  // no such item
  // Still alive, and a read that failed did not move the position.
  CHECK(b.dma(0x0011'0000 | kSelect | kRead, 10, 0x10000) == kError);
  CHECK(in(b.device, kData) == '0');
}

TEST_CASE("fw_cfg DMA: an unreadable request changes nothing") {
  Bench b;
  const auto before = b.memory.bytes;
  out(b.device, kDmaHigh, swap_bytes(std::uint32_t{0xffffffff}));
  out(b.device, kDmaLow, swap_bytes(std::uint32_t{0xfffffff8}));
  CHECK(b.memory.bytes == before);
  // The high half counts for one transfer only.
  b.device.add(FwCfgKey::kKernelData, FwCfgItem::text("x"));
  store(&b.memory.bytes[kAccess], swap_bytes(0x0011'0000 | kSelect | kRead));
  store(&b.memory.bytes[kAccess + 4], swap_bytes(std::uint32_t{1}));
  store(&b.memory.bytes[kAccess + 8], swap_bytes(std::uint64_t{0x2000}));
  out(b.device, kDmaLow, swap_bytes(std::uint32_t{kAccess}));
  CHECK(b.text_at(0x2000, 1) == "x");
}

TEST_CASE("fw_cfg DMA: a request that straddles the end of memory gets its error where it can") {
  Bench b;
  out(b.device, kDmaHigh, std::uint32_t{0});
  out(b.device, kDmaLow, swap_bytes(std::uint32_t{0xfff8}));
  CHECK(swap_bytes(load<std::uint32_t>(&b.memory.bytes[0xfff8])) == kError);
}

TEST_CASE("fw_cfg DMA: a transfer over its own request ends with the answer in place") {
  Bench b;
  b.device.add(FwCfgKey::kKernelData, FwCfgItem::text("0123456789abcdef"));
  CHECK(b.dma(0x0011'0000 | kSelect | kRead, 16, kAccess) == 0);
  CHECK(b.text_at(kAccess, 16) == std::string("\0\0\0\0", 4) + "456789abcdef");
}

TEST_CASE("fw_cfg DMA: one 64-bit write starts it too") {
  Bench b;
  b.device.add(FwCfgKey::kKernelData, FwCfgItem::text("x"));
  store(&b.memory.bytes[kAccess], swap_bytes(0x0011'0000 | kSelect | kRead));
  store(&b.memory.bytes[kAccess + 4], swap_bytes(std::uint32_t{1}));
  store(&b.memory.bytes[kAccess + 8], swap_bytes(std::uint64_t{0x2000}));
  out(b.device, kDmaHigh, swap_bytes(kAccess));
  CHECK(b.text_at(0x2000, 1) == "x");
}

}  // namespace
}  // namespace sevisor::devices::test
