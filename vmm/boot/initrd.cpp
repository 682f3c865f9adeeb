#include "vmm/boot/initrd.hpp"

#include <algorithm>
#include <array>
#include <charconv>
#include <cstdint>
#include <string_view>
#include <zlib.h>

#include "base/bytes.hpp"

namespace sevisor::vmm {

namespace {

using Bytes = std::span<const std::byte>;

// Where the part ends, or nothing if it is cut off.
using PartEnd = std::optional<std::size_t>;

std::string_view text_of(Bytes bytes) { return {reinterpret_cast<const char*>(bytes.data()), bytes.size()}; }

// A cpio archive of format newc or crc (cpio(5)): headers of 110 characters, numbers in hexadecimal.
namespace newc {
constexpr std::size_t kHeader = 110;
constexpr std::size_t kFileSize = 54;
constexpr std::size_t kNameSize = 94;
constexpr std::string_view kLastName = "TRAILER!!!";

std::optional<std::uint32_t> number(std::string_view header, std::size_t at) {
  const std::string_view digits = header.substr(at, 8);
  std::uint32_t value = 0;
  const auto result = std::from_chars(digits.begin(), digits.end(), value, 16);
  return result.ptr == digits.end() ? std::optional(value) : std::nullopt;
}

bool starts(Bytes bytes) {
  const std::string_view text = text_of(bytes);
  return text.starts_with("070701") || text.starts_with("070702");
}

PartEnd end(Bytes bytes) {
  std::size_t at = 0;
  while (at <= bytes.size() && bytes.size() - at >= kHeader && starts(bytes.subspan(at))) {
    const std::string_view header = text_of(bytes.subspan(at, kHeader));
    const auto file_size = number(header, kFileSize);
    const auto name_size = number(header, kNameSize);
    if (!file_size || !name_size) return bytes.size();  // damaged, not cut off: Linux will say so
    const std::size_t name = at + kHeader;
    if (*name_size > bytes.size() - name) return std::nullopt;
    const std::size_t data = align_up(name + *name_size, 4);
    if (text_of(bytes.subspan(name, *name_size)).starts_with(kLastName)) return std::min(data, bytes.size());
    if (data > bytes.size() || *file_size > bytes.size() - data) return std::nullopt;
    at = align_up(data + *file_size, 4);
  }
  return std::nullopt;
}
}  // namespace newc

PartEnd gzip_end(Bytes bytes) {
  constexpr int kGzipOnly = 16 + MAX_WBITS;
  z_stream stream{};
  if (inflateInit2(&stream, kGzipOnly) != Z_OK) return bytes.size();
  std::array<unsigned char, 65536> sink;
  std::size_t taken = 0;
  int result = Z_OK;
  // zlib counts in 32 bits.
  constexpr std::size_t kPiece = std::size_t{1} << 30;
  while (result == Z_OK) {
    if (stream.avail_in == 0) {
      const std::size_t piece = std::min(kPiece, bytes.size() - taken);
      if (piece == 0) break;
      stream.next_in = const_cast<unsigned char*>(reinterpret_cast<const unsigned char*>(bytes.data() + taken));
      stream.avail_in = static_cast<unsigned>(piece);
      taken += piece;
    }
    stream.next_out = sink.data();
    stream.avail_out = sink.size();
    result = inflate(&stream, Z_NO_FLUSH);
  }
  const std::size_t used = taken - stream.avail_in;
  inflateEnd(&stream);
  if (result == Z_STREAM_END) return used;
  if (result == Z_OK || result == Z_BUF_ERROR) return std::nullopt;
  return bytes.size();  // damaged
}

// Frames of blocks (RFC 8878, 3.1.1): what each header says it holds must be there.
PartEnd zstd_end(Bytes bytes) {
  constexpr std::size_t kMagic = 4;
  if (bytes.size() <= kMagic) return std::nullopt;
  const auto descriptor = std::to_integer<unsigned>(bytes[kMagic]);
  const unsigned size_code = descriptor >> 6;
  const bool single_segment = (descriptor & 0x20) != 0;
  const bool checksum = (descriptor & 0x04) != 0;
  constexpr std::array<std::size_t, 4> kDictionaryBytes = {0, 1, 2, 4};
  constexpr std::array<std::size_t, 4> kSizeBytes = {0, 2, 4, 8};
  const std::size_t content_size = size_code == 0 && single_segment ? 1 : kSizeBytes[size_code];
  std::size_t at = kMagic + 1 + (single_segment ? 0 : 1) + kDictionaryBytes[descriptor & 3] + content_size;
  constexpr std::size_t kBlockHeader = 3;
  constexpr unsigned kRepeatedByte = 1;
  for (bool last = false; !last;) {
    if (at > bytes.size() || bytes.size() - at < kBlockHeader) return std::nullopt;
    const unsigned header = std::to_integer<unsigned>(bytes[at]) | std::to_integer<unsigned>(bytes[at + 1]) << 8 |
                            std::to_integer<unsigned>(bytes[at + 2]) << 16;
    last = (header & 1) != 0;
    const std::size_t size = (header >> 1 & 3) == kRepeatedByte ? 1 : header >> 3;
    at += kBlockHeader + size;
  }
  if (checksum) at += 4;
  return at <= bytes.size() ? std::optional(at) : std::nullopt;
}

// The stream footer ends with "YZ" (xz file format 1.1, 2.1.2). The stream is not looked into.
PartEnd xz_end(Bytes bytes) { return text_of(bytes).ends_with("YZ") ? std::optional(bytes.size()) : std::nullopt; }

// LZ4's legacy frame: blocks with their sizes until the end of the file.
PartEnd lz4_end(Bytes bytes) {
  std::size_t at = 4;
  while (at < bytes.size()) {
    if (bytes.size() - at < 4) return std::nullopt;
    const auto size = load<std::uint32_t>(bytes.data() + at);
    if (size > bytes.size() - at - 4) return std::nullopt;
    at += 4 + std::size_t{size};
  }
  return at;
}

struct Format {
  std::string_view magic;
  std::string_view name;
  PartEnd (*end)(Bytes);
};
using namespace std::string_view_literals;
constexpr std::array<Format, 6> kFormats = {{
    {"070701"sv, "cpio archive", newc::end},
    {"070702"sv, "cpio archive", newc::end},
    {"\x1f\x8b"sv, "gzip stream", gzip_end},
    {"\x28\xb5\x2f\xfd"sv, "zstd frame", zstd_end},
    {"\xfd\x37zXZ\0"sv, "xz stream", xz_end},
    {"\x02\x21\x4c\x18"sv, "LZ4 stream", lz4_end},
}};

}  // namespace

std::optional<std::string> why_initrd_is_cut_off(std::span<const std::byte> initrd) {
  std::size_t at = 0;
  while (at < initrd.size()) {
    if (initrd[at] == std::byte{0}) {
      ++at;
      continue;
    }
    const Bytes rest = initrd.subspan(at);
    const auto format =
        std::ranges::find_if(kFormats, [&](const Format& f) { return text_of(rest).starts_with(f.magic); });
    if (format == kFormats.end()) return std::nullopt;
    const PartEnd end = format->end(rest);
    if (!end) return "its " + std::string(format->name) + " breaks off";
    at += *end;
  }
  return std::nullopt;
}

}  // namespace sevisor::vmm
