// extract_vmlinux BZIMAGE VMLINUX: writes the ELF file that a bzImage carries compressed by LZ4, as Debian's does
// (Linux Documentation/arch/x86/boot.rst, payload_offset and payload_length; LZ4's doc/lz4_Block_format.md, and the
// legacy frame of doc/lz4_Frame_format.md). Ends with 77 when the payload is compressed otherwise.
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <iterator>
#include <stdexcept>
#include <vector>

namespace {
using Bytes = std::vector<std::uint8_t>;

constexpr std::uint32_t kLegacyMagic = 0x184c2102;
constexpr std::size_t kBlockBytes = 8 << 20;  // at most, uncompressed
constexpr std::size_t kMinMatch = 4;

std::uint32_t word(const Bytes& bytes, std::size_t at) {
  std::uint32_t value = 0;
  if (at > bytes.size() || bytes.size() - at < sizeof value) throw std::runtime_error("the file is too short");
  std::memcpy(&value, bytes.data() + at, sizeof value);
  return value;
}

class Block {
 public:
  Block(const Bytes& from, std::size_t begin, std::size_t end) : from_(from), at_(begin), end_(end) {}

  // Appends what the block holds.
  void decompress(Bytes& to) {
    const std::size_t start = to.size();
    while (at_ < end_) {
      const unsigned token = next();
      for (std::size_t left = length(token >> 4); left != 0; --left) to.push_back(next());
      if (at_ == end_) return;  // the last sequence has literals only
      const std::size_t low = next();
      const std::size_t distance = low | std::size_t{next()} << 8;
      const std::size_t count = length(token & 15) + kMinMatch;
      if (distance == 0 || distance > to.size() - start || to.size() - start > kBlockBytes) {
        throw std::runtime_error("a match outside its block");
      }
      for (std::size_t i = 0; i < count; ++i) to.push_back(to[to.size() - distance]);
    }
  }

 private:
  std::uint8_t next() {
    if (at_ == end_) throw std::runtime_error("a block is cut off");
    return from_[at_++];
  }
  std::size_t length(std::size_t value) {
    if (value != 15) return value;
    std::uint8_t more = 255;
    while (more == 255) value += more = next();
    return value;
  }

  const Bytes& from_;
  std::size_t at_, end_;
};

int extract(const char* image, const char* elf) {
  std::ifstream in(image, std::ios::binary);
  const Bytes bytes{std::istreambuf_iterator<char>(in), {}};
  const std::size_t setup = (std::size_t{bytes.at(0x1f1)} + 1) * 512;
  std::size_t at = setup + word(bytes, 0x248);
  const std::size_t end = at + word(bytes, 0x24c) - 4;  // the size of the uncompressed file comes last
  if (end > bytes.size()) throw std::runtime_error("the payload is cut off");
  if (word(bytes, at) != kLegacyMagic) return 77;
  at += 4;
  Bytes file;
  file.reserve(word(bytes, end));
  while (at < end) {
    const std::size_t size = word(bytes, at);
    at += 4;
    if (size > end - at) throw std::runtime_error("a block is cut off");
    Block(bytes, at, at + size).decompress(file);
    at += size;
  }
  if (file.size() != word(bytes, end)) throw std::runtime_error("the file has another size than it should");
  std::ofstream out(elf, std::ios::binary);
  out.write(reinterpret_cast<const char*>(file.data()), static_cast<std::streamsize>(file.size()));
  return out.flush() ? 0 : 1;
}
}  // namespace

int main(int count, char** arguments) {
  if (count != 3) return 2;
  try {
    return extract(arguments[1], arguments[2]);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "extract_vmlinux: %s: %s\n", arguments[1], error.what());
    return 1;
  }
}
