#include "vmm/boot/initrd.hpp"

#include <algorithm>
#include <array>
#include <charconv>
#include <cstdint>
#include <fmt/format.h>
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

std::optional<std::uint32_t> number(std::string_view header, std::size_t at) {
  const std::string_view digits = header.substr(at, 8);
  std::uint32_t value = 0;
  const auto result = std::from_chars(digits.begin(), digits.end(), value, 16);
  return result.ptr == digits.end() ? std::optional(value) : std::nullopt;
}

// Of one file, and not of the archive: Linux looks for whatever may follow after each of them, and needs no trailer.
PartEnd end(Bytes bytes) {
  if (bytes.size() < kHeader) return std::nullopt;
  const std::string_view header = text_of(bytes.first(kHeader));
  const auto file_size = number(header, kFileSize);
  const auto name_size = number(header, kNameSize);
  if (!file_size || !name_size) return bytes.size();  // damaged, not cut off: Linux will say so
  if (*name_size > bytes.size() - kHeader) return std::nullopt;
  const std::size_t data = align_up(kHeader + *name_size, 4);
  if (*file_size == 0) return std::min(data, bytes.size());  // its last padding is not missed
  if (data > bytes.size() || *file_size > bytes.size() - data) return std::nullopt;
  return std::min(align_up(data + *file_size, 4), bytes.size());
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

// An xz stream (xz file format 1.1): header, blocks, index, footer. What is in a block need not be decoded, as LZMA2
// tells how long each of its chunks is.
namespace xz {
constexpr std::size_t kStreamHeader = 12;
constexpr std::size_t kFooter = 12;
constexpr std::size_t kCrc = 4;

// Bytes of the check behind each block, by the type that the header has (2.1.1.2).
constexpr std::array<std::uint8_t, 16> kCheckSizes = {0, 4, 4, 4, 8, 8, 8, 16, 16, 16, 32, 32, 32, 64, 64, 64};

unsigned check_type(Bytes bytes) { return bytes.size() > 7 ? std::to_integer<unsigned>(bytes[7]) & 0xf : 0; }

// Where LZMA2's chunks end that begin at `at`.
PartEnd chunks_end(Bytes bytes, std::size_t at) {
  for (;;) {
    if (at >= bytes.size()) return std::nullopt;
    const auto control = std::to_integer<unsigned>(bytes[at]);
    if (control == 0) return at + 1;
    const bool packed = control >= 0x80;
    const std::size_t header = packed ? (control >= 0xc0 ? 6 : 5) : 3;
    if (bytes.size() - at < header) return std::nullopt;
    const std::size_t where = at + (packed ? 3 : 1);  // of the size, big endian and one less
    at +=
        header + (std::to_integer<std::size_t>(bytes[where]) << 8 | std::to_integer<std::size_t>(bytes[where + 1])) + 1;
  }
}

PartEnd number_end(Bytes bytes, std::size_t at) {  // 1.2: seven bits a byte
  while (at < bytes.size() && (bytes[at] & std::byte{0x80}) != std::byte{0}) ++at;
  return at < bytes.size() ? std::optional(at + 1) : std::nullopt;
}

PartEnd index_end(Bytes bytes, std::size_t at) {
  const std::size_t begin = at++;
  std::size_t records = 0;
  for (std::size_t i = at, shift = 0; i < bytes.size() && shift < 63; ++i, shift += 7) {
    records |= std::to_integer<std::size_t>(bytes[i] & std::byte{0x7f}) << shift;
    if ((bytes[i] & std::byte{0x80}) == std::byte{0}) break;
  }
  for (std::size_t numbers = 0; numbers < 1 + 2 * records; ++numbers) {
    const PartEnd end = number_end(bytes, at);
    if (!end) return std::nullopt;
    at = *end;
  }
  return begin + align_up(at - begin, 4) + kCrc;
}

PartEnd end(Bytes bytes) {
  std::size_t at = kStreamHeader;
  const std::size_t check = kCheckSizes[check_type(bytes)];
  for (;;) {
    if (at >= bytes.size()) return std::nullopt;
    const auto header_size = std::to_integer<std::size_t>(bytes[at]);
    if (header_size == 0) break;  // the index
    const PartEnd data = chunks_end(bytes, at + (header_size + 1) * 4);
    if (!data) return std::nullopt;
    at = align_up(*data, 4) + check;
  }
  const PartEnd index = index_end(bytes, at);
  if (!index || *index > bytes.size() || bytes.size() - *index < kFooter) return std::nullopt;
  const std::size_t whole = *index + kFooter;
  if (!text_of(bytes.first(whole)).ends_with("YZ")) return bytes.size();  // damaged
  return whole;
}
}  // namespace xz

// LZ4's legacy frame: blocks with their sizes. As Linux reads it (lib/decompress_unlz4.c): the magic may come again
// before a block, four zeros are its end, and so are fewer than four bytes.
PartEnd lz4_end(Bytes bytes) {
  constexpr std::uint32_t kMagic = 0x184c2102;
  std::size_t at = 4;
  while (bytes.size() - at >= 4) {
    const auto size = load<std::uint32_t>(bytes.data() + at);
    if (size == 0) return at;
    at += 4;
    if (size == kMagic) continue;
    if (size > bytes.size() - at) return std::nullopt;
    at += size;
  }
  const Bytes rest = bytes.subspan(at);
  return std::ranges::all_of(rest, [](std::byte b) { return b == std::byte{0}; }) ? PartEnd(at) : std::nullopt;
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
    {"\xfd\x37zXZ\0"sv, "xz stream", xz::end},
    {"\x02\x21\x4c\x18"sv, "LZ4 stream", lz4_end},
}};

// Formats that Linux knows and whose end is not told.
constexpr std::array<std::string_view, 3> kOpaqueMagics = {"BZ"sv, "\x5d\0"sv, "\x89\x4c"sv};  // bzip2, LZMA, LZO

std::string at_byte(std::string_view name, std::size_t at) { return fmt::format("its {} from byte {} on", name, at); }

// At the first byte that Linux would not know what to do with, in the words of "Linux drops it and what follows".
std::string unknown_text(std::size_t at, Bytes rest) {
  const std::string_view text = text_of(rest);
  if (text.starts_with("\x04\x22\x4d\x18"sv)) {
    return fmt::format(
        "byte {} begins a frame of lz4's newer format, which Linux does not read (lz4 -l writes the other)", at);
  }
  if (text.starts_with("0707"sv) && at % 4 != 0) {
    return fmt::format("the cpio archive from byte {} on is not at a multiple of 4", at);
  }
  return fmt::format("what begins at byte {} is neither a cpio archive nor compressed by a method that Linux knows",
                     at);
}

}  // namespace

InitrdFindings look_at_initrd(std::span<const std::byte> initrd) {
  InitrdFindings found;
  std::size_t at = 0;
  while (at < initrd.size()) {
    if (initrd[at] == std::byte{0}) {
      ++at;
      continue;
    }
    const Bytes rest = initrd.subspan(at);
    const std::string_view text = text_of(rest);
    const auto format = std::ranges::find_if(kFormats, [&](const Format& f) { return text.starts_with(f.magic); });
    const bool archive = text.starts_with("0707");
    if (format == kFormats.end() || (archive && at % 4 != 0)) {
      const bool opaque =
          std::ranges::any_of(kOpaqueMagics, [&](std::string_view magic) { return text.starts_with(magic); });
      // A header that breaks off before it says what it is.
      if (at % 4 == 0 && text.size() < kFormats[0].magic.size() && kFormats[0].magic.starts_with(text)) {
        found.cut_off = at_byte("cpio archive", at) + " breaks off";
        return found;
      }
      const bool newer_lz4 = text.starts_with("\x04\x22\x4d\x18"sv);
      if (!opaque && (at != 0 || newer_lz4))
        found.dropped = unknown_text(at, rest);  // at 0: the image of a disk, perhaps
      return found;
    }
    const PartEnd end = format->end(rest);
    if (!end) {
      found.cut_off = at_byte(format->name, at) + " breaks off";
      return found;
    }
    constexpr unsigned kCrc32 = 1;
    if (format->end == xz::end && xz::check_type(rest) > kCrc32 && !found.dropped) {
      found.dropped = at_byte(format->name, at) +
                      " has a check that Linux does not know (xz --check=crc32 writes one that it does)";
    }
    at += *end;
  }
  return found;
}

}  // namespace sevisor::vmm
