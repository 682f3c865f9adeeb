#include "vmm/boot/initrd.hpp"

#include <catch2/catch.hpp>
#include <cstdlib>
#include <filesystem>
#include <fmt/format.h>
#include <fstream>
#include <iostream>
#include <iterator>
#include <span>
#include <string>
#include <string_view>
#include <unistd.h>
#include <vector>

namespace sevisor::vmm {
namespace {

using Bytes = std::vector<std::byte>;

Bytes operator+(Bytes a, const Bytes& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}
Bytes bytes_of(std::string_view text) {
  const auto bytes = std::as_bytes(std::span(text));
  return {bytes.begin(), bytes.end()};
}
Bytes from_hex(std::string_view hex) {
  Bytes bytes;
  for (std::size_t i = 0; i + 1 < hex.size(); i += 2) {
    bytes.push_back(static_cast<std::byte>(std::stoi(std::string(hex.substr(i, 2)), nullptr, 16)));
  }
  return bytes;
}

// What GNU cpio, gzip, zstd, xz and lz4 -l of Debian 12 make of a file with "hello" and a newline; of cpio's output
// without the padding to 512 bytes.
Bytes cpio() {
  return from_hex(
      "3037303730313030413732303936303030303831413430303030303030303030303030303030303030303030303136423032"
      "4645384630303030303030363030303030304645303030303030303030303030303030303030303030303030303030303030"
      "3036303030303030303068656c6c6f0068656c6c6f0a00003037303730313030303030303030303030303030303030303030"
      "3030303030303030303030303030303030303031303030303030303030303030303030303030303030303030303030303030"
      "30303030303030303030303030303030303030303030303030423030303030303030545241494c455221212100000000");
}
Bytes gzip() { return from_hex("1f8b0800000000000003cb48cdc9c9e7020020303a3606000000"); }
Bytes zstd() { return from_hex("28b52ffd240631000068656c6c6f0a5388bd91"); }
Bytes xz() {
  return from_hex(
      "fd377a585a000004e6d6b4460200210116000000742fe5a301000568656c6c6f0a000000a56097f194f6fde000011e06c12fa41d1fb6f37d"
      "01"
      "0000000004595a");
}
Bytes lz4() { return from_hex("02214c18070000006068656c6c6f0a"); }

std::optional<std::string> cut_off(std::span<const std::byte> initrd) { return look_at_initrd(initrd).cut_off; }
std::optional<std::string> dropped(std::span<const std::byte> initrd) { return look_at_initrd(initrd).dropped; }

Bytes zeros(std::size_t count) { return Bytes(count, std::byte{0}); }
// Up to the trailer's header, which Linux does not ask for.
Bytes cpio_without_trailer() {
  const Bytes whole = cpio();
  return {whole.begin(), whole.begin() + 124};
}

// What a tool of Debian makes of bytes; nothing if it is not installed.
std::optional<Bytes> made_by(const std::string& command, const Bytes& input) {
  const std::string program = command.substr(0, command.find(' '));
  if (std::system(("command -v " + program + " >/dev/null").c_str()) != 0) {
    std::cout << "SKIP: no " << program << " here" << std::endl;
    return std::nullopt;
  }
  std::string path = (std::filesystem::temp_directory_path() / "initrd-test.XXXXXX").string();
  const int fd = ::mkstemp(path.data());
  REQUIRE(fd >= 0);
  REQUIRE(::write(fd, input.data(), input.size()) == static_cast<ssize_t>(input.size()));
  ::close(fd);
  REQUIRE(std::system((command + " <" + path + " >" + path + ".out 2>/dev/null").c_str()) == 0);
  std::ifstream file(path + ".out", std::ios::binary);
  const std::string text{std::istreambuf_iterator<char>(file), {}};
  std::filesystem::remove(path);
  std::filesystem::remove(path + ".out");
  return bytes_of(text);
}

TEST_CASE("what Linux takes is taken: padding, rows of archives, archives without a trailer") {
  for (const Bytes& packed : {xz(), lz4(), gzip(), zstd()}) {
    CHECK_FALSE(cut_off(cpio() + packed));
    for (const std::size_t padding : {1, 2, 3, 4, 509, 512}) {
      CAPTURE(padding);
      CHECK_FALSE(cut_off(packed + zeros(padding)));
      CHECK_FALSE(cut_off(cpio() + packed + zeros(padding)));
    }
    const std::size_t to_four = (4 - packed.size() % 4) % 4 + 4;
    for (const Bytes& second : {xz(), lz4(), gzip(), zstd(), cpio(), cpio_without_trailer()}) {
      CHECK_FALSE(cut_off(packed + zeros(to_four) + second));
      CHECK_FALSE(dropped(cpio() + zeros(4) + cpio()));
    }
  }
  CHECK_FALSE(cut_off(xz() + xz()));
  CHECK_FALSE(cut_off(xz() + cpio()));
  CHECK_FALSE(cut_off(lz4() + lz4()));  // as lz4 -l of several files
  CHECK_FALSE(cut_off(lz4() + zeros(4) + lz4()));
  const Bytes bare = cpio_without_trailer();
  CHECK_FALSE(cut_off(bare));
  CHECK_FALSE(cut_off(bare + bare));
  CHECK_FALSE(cut_off(bare + zeros(512)));
  CHECK_FALSE(cut_off(bare + gzip()));
  CHECK_FALSE(cut_off(bare + zstd()));
  CHECK_FALSE(cut_off(bare + cpio() + zeros(100) + xz()));
}

TEST_CASE("what no kernel unpacks is refused, with its place") {
  // Linux: "Decoding failed". The bytes behind LZ4's last block are the size of another.
  CHECK(cut_off(lz4() + cpio()).value() == "its LZ4 stream from byte 0 on breaks off");
  CHECK(cut_off(lz4() + zeros(2) + lz4()));
  const Bytes half = gzip();
  CHECK(cut_off(cpio() + zeros(4) + Bytes(half.begin(), half.begin() + 12)).value() ==
        fmt::format("its gzip stream from byte {} on breaks off", cpio().size() + 4));
}

TEST_CASE("what Linux drops is told, and left to it") {
  CHECK(dropped(zstd() + cpio()).value() == "the cpio archive from byte 19 on is not at a multiple of 4");
  CHECK_THAT(dropped(cpio() + zeros(4) + bytes_of("garbage")).value(), Catch::Contains("neither a cpio archive"));
  CHECK_THAT(dropped(cpio() + from_hex("04224d18")).value(), Catch::Contains("lz4 -l"));
  CHECK_THAT(dropped(xz()).value(), Catch::Contains("--check=crc32"));
  CHECK_FALSE(dropped(cpio() + bytes_of("BZh91AY")));
  for (const Bytes& whole : {cpio(), gzip(), zstd(), lz4()}) CHECK_FALSE(dropped(whole));
}

TEST_CASE("large streams of the real tools end where they end") {
  Bytes large = cpio();
  std::uint32_t state = 1;
  while (large.size() < 3'000'000) {  // half noise, half text
    state = state * 1664525 + 1013904223;
    large.push_back(static_cast<std::byte>(large.size() % 8192 < 4096 ? state >> 24 : 'a'));
  }
  for (const char* command : {"xz --check=crc32 -1", "xz --check=crc32 -1 --block-size=500000", "xz --check=none -0",
                              "xz --x86 --lzma2=preset=1", "xz --check=sha256 -0", "lz4 -l -1", "zstd -1",
                              "zstd -3 --no-check --long=27", "gzip -1"}) {
    CAPTURE(command);
    const auto packed = made_by(command, large);
    if (!packed) continue;
    CHECK_FALSE(cut_off(*packed));
    CHECK_FALSE(cut_off(*packed + zeros(5) + *packed));
    const auto second = look_at_initrd(*packed + zeros(8 - packed->size() % 4) + cpio() + bytes_of("end"));
    CHECK_FALSE(second.cut_off);
    CHECK(second.dropped);
    for (std::size_t size = packed->size() - 1; size > 100'000; size -= 99'991) {
      CAPTURE(size);
      CHECK(cut_off(std::span(*packed).first(size)));
    }
  }
}

TEST_CASE("whole initrds in every format are accepted") {
  const Bytes gap(512, std::byte{0});
  for (const Bytes& part : {cpio(), gzip(), zstd(), xz(), lz4()}) {
    CHECK_FALSE(cut_off(part));
    CHECK_FALSE(cut_off(cpio() + gap + part));  // microcode first, as Debian's
  }
  CHECK_FALSE(cut_off(cpio() + gap + cpio() + gap));
  CHECK_FALSE(cut_off(gzip() + gzip()));
  CHECK_FALSE(cut_off(gap));
}

TEST_CASE("an initrd that is cut off at any byte is noticed") {
  struct Case {
    Bytes whole;
    std::size_t told_from;  // bytes that make the format known
  };
  for (const auto& [whole, told_from] : {Case{cpio(), 6}, Case{gzip(), 2}, Case{zstd(), 4}, Case{xz(), 6}}) {
    const std::size_t end = whole.size() - (whole == cpio() ? 4 : 0);  // the last padding is not missed
    for (std::size_t size = told_from; size < end; ++size) {
      // Where its one file ends it is whole: Linux needs no trailer.
      if (whole == cpio() && size >= 122 && size <= 124) continue;
      INFO(size << " of " << whole.size() << " bytes");
      CHECK(cut_off(std::span(whole).first(size)));
    }
  }
  const Bytes whole = lz4();
  for (std::size_t size = 5; size < whole.size(); ++size) {
    CHECK(cut_off(std::span(whole).first(size)));
  }
  const Bytes archive = cpio();
  CHECK(*cut_off(std::span(archive).first(100)) == "its cpio archive from byte 0 on breaks off");
  CHECK(cut_off(cpio() + Bytes(8, std::byte{0}) + from_hex("1f8b0800")));
}

TEST_CASE("what is no known format is left to the guest") {
  CHECK_FALSE(cut_off(bytes_of("a disk image, perhaps")));
  CHECK_FALSE(cut_off(bytes_of("BZh91AY")));
  CHECK_FALSE(cut_off({}));
  CHECK_FALSE(cut_off(cpio() + Bytes(4, std::byte{0}) + bytes_of("something")));
}

}  // namespace
}  // namespace sevisor::vmm
