#include "vmm/boot/initrd.hpp"

#include <catch2/catch.hpp>
#include <span>
#include <string>
#include <string_view>
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

TEST_CASE("whole initrds in every format are accepted") {
  const Bytes zeros(512, std::byte{0});
  for (const Bytes& part : {cpio(), gzip(), zstd(), xz(), lz4()}) {
    CHECK_FALSE(why_initrd_is_cut_off(part));
    CHECK_FALSE(why_initrd_is_cut_off(cpio() + zeros + part));  // microcode first, as Debian's
  }
  CHECK_FALSE(why_initrd_is_cut_off(cpio() + zeros + cpio() + zeros));
  CHECK_FALSE(why_initrd_is_cut_off(gzip() + gzip()));
  CHECK_FALSE(why_initrd_is_cut_off(zeros));
}

TEST_CASE("an initrd that is cut off at any byte is noticed") {
  struct Case {
    Bytes whole;
    std::size_t told_from;  // bytes that make the format known
  };
  for (const auto& [whole, told_from] : {Case{cpio(), 6}, Case{gzip(), 2}, Case{zstd(), 4}, Case{xz(), 6}}) {
    const std::size_t end = whole.size() - (whole == cpio() ? 4 : 0);  // the last padding is not missed
    for (std::size_t size = told_from; size < end; ++size) {
      INFO(size << " of " << whole.size() << " bytes");
      CHECK(why_initrd_is_cut_off(std::span(whole).first(size)));
    }
  }
  const Bytes whole = lz4();
  for (std::size_t size = 5; size < whole.size(); ++size) {
    CHECK(why_initrd_is_cut_off(std::span(whole).first(size)));
  }
  const Bytes archive = cpio();
  CHECK(*why_initrd_is_cut_off(std::span(archive).first(100)) == "its cpio archive breaks off");
  CHECK(why_initrd_is_cut_off(cpio() + Bytes(8, std::byte{0}) + from_hex("1f8b0800")));
}

TEST_CASE("what is no known format is left to the guest") {
  CHECK_FALSE(why_initrd_is_cut_off(bytes_of("a disk image, perhaps")));
  CHECK_FALSE(why_initrd_is_cut_off(bytes_of("BZh91AY")));
  CHECK_FALSE(why_initrd_is_cut_off({}));
  CHECK_FALSE(why_initrd_is_cut_off(cpio() + Bytes(4, std::byte{0}) + bytes_of("something")));
}

}  // namespace
}  // namespace sevisor::vmm
