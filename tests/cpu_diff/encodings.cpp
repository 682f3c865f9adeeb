#include "tests/cpu_diff/encodings.hpp"

#include "tests/cpu_diff/processor.hpp"

namespace sevisor::cpu_diff {

namespace {

constexpr std::uint8_t kVex3 = 0xc4;

class Bytes {
 public:
  explicit Bytes(Encoding& e) : bytes_(e.bytes) {}
  void put(std::uint8_t b) {
    if (size_ < bytes_.size()) bytes_[size_++] = b;
  }
  void fill(Random& random) {
    while (size_ < bytes_.size()) put(random.byte());
  }

 private:
  std::array<std::uint8_t, ZYDIS_MAX_INSTRUCTION_LENGTH>& bytes_;
  std::size_t size_ = 0;
};

void put_vex(Random& random, Bytes& out) {
  constexpr std::uint8_t kNoExtension = 0xe0;
  out.put(kVex3);
  const std::uint8_t map = random.one_in(4) ? 3 : 2;
  out.put(static_cast<std::uint8_t>((random.byte() & kNoExtension) | map));
  out.put(static_cast<std::uint8_t>(random.byte() & ~4U));  // L = 0
  out.put(random.one_in(2) ? static_cast<std::uint8_t>(0xf0 + random.below(8)) : random.byte());
}

void make(Random& random, Mode mode, Encoding& e) {
  Bytes out(e);
  constexpr std::array<std::uint8_t, 3> kSegments = {0x26, 0x36, 0x3e};
  if (random.one_in(16)) out.put(kSegments[random.below(kSegments.size())]);
  if (random.one_in(10)) out.put(0x67);
  const std::uint64_t map = random.below(16);
  if (map < 2) {
    put_vex(random, out);
    out.fill(random);
    return;
  }
  if (random.one_in(4)) out.put(0x66);
  if (random.one_in(8)) out.put(0xf2);
  if (random.one_in(8)) out.put(0xf3);
  if (random.one_in(16)) out.put(0xf0);
  if (mode == Mode::k64 && random.one_in(2)) out.put(static_cast<std::uint8_t>(0x40 + random.below(16)));
  if (map < 9) out.put(0x0f);
  if (map < 4) out.put(random.one_in(4) ? 0x3a : 0x38);
  out.fill(random);
}

const ZydisDecoder& decoder(Mode mode) {
  static const auto make_decoder = [](ZydisMachineMode machine, ZydisStackWidth stack) {
    ZydisDecoder d;
    ZydisDecoderInit(&d, machine, stack);
    ZydisDecoderEnableMode(&d, ZYDIS_DECODER_MODE_MPX, ZYAN_FALSE);
    // Near branches with an operand size prefix in 64-bit code.
    const bool amd = host_processor().vendor() == Vendor::kAmd;
    ZydisDecoderEnableMode(&d, ZYDIS_DECODER_MODE_AMD_BRANCHES, amd ? ZYAN_TRUE : ZYAN_FALSE);
    return d;
  };
  static const ZydisDecoder d64 = make_decoder(ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
  static const ZydisDecoder d32 = make_decoder(ZYDIS_MACHINE_MODE_LONG_COMPAT_32, ZYDIS_STACK_WIDTH_32);
  return mode == Mode::k64 ? d64 : d32;
}

}  // namespace

bool decode(Mode mode, Encoding& encoding) {
  return ZYAN_SUCCESS(ZydisDecoderDecodeFull(&decoder(mode), encoding.bytes.data(), encoding.bytes.size(),
                                             &encoding.info, encoding.operands.data()));
}

Encoding random_encoding(Random& random, Mode mode, const std::function<bool(const Encoding&)>& wanted) {
  Encoding e;
  do {
    make(random, mode, e);
  } while (!decode(mode, e) || !wanted(e));
  return e;
}

}  // namespace sevisor::cpu_diff
