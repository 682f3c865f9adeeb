// The decoder against Zydis: the same length and the same address for whatever it accepts. SEVISOR_DECODER_RUNS in the
// environment asks for more random instructions of each kind than the usual 60000.
#include "ghcb/guest/instruction.hpp"

#include <Zydis/Zydis.h>
#include <catch2/catch.hpp>
#include <cstdlib>
#include <random>
#include <vector>

namespace {
using namespace sevisor::ghcb::guest;

struct Reference {
  ZydisDecodedInstruction instruction;
  ZydisDecodedOperand operands[ZYDIS_MAX_OPERAND_COUNT];
};

std::optional<Reference> reference(const std::vector<std::uint8_t>& bytes) {
  ZydisDecoder decoder;
  ZydisDecoderInit(&decoder, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
  Reference result{};
  if (!ZYAN_SUCCESS(
          ZydisDecoderDecodeFull(&decoder, bytes.data(), bytes.size(), &result.instruction, result.operands))) {
    return std::nullopt;
  }
  return result;
}

// Opcodes that the handler emulates; random prefixes and operand bytes go around them.
const std::vector<std::vector<std::uint8_t>> kOpcodes = {{0x6c},
                                                         {0x6d},
                                                         {0x6e},
                                                         {0x6f},
                                                         {0x88},
                                                         {0x89},
                                                         {0x8a},
                                                         {0x8b},
                                                         {0xa0},
                                                         {0xa1},
                                                         {0xa2},
                                                         {0xa3},
                                                         {0xa4},
                                                         {0xa5},
                                                         {0xaa},
                                                         {0xab},
                                                         {0xc6},
                                                         {0xc7},
                                                         {0xe4},
                                                         {0xe5},
                                                         {0xe6},
                                                         {0xe7},
                                                         {0xec},
                                                         {0xed},
                                                         {0xee},
                                                         {0xef},
                                                         {0x0f, 0x01, 0xd9},
                                                         {0x0f, 0x01, 0xf9},
                                                         {0x0f, 0x01, 0xc8},
                                                         {0x0f, 0x01, 0xc9},
                                                         {0x0f, 0x01, 0xfa},
                                                         {0x0f, 0x01, 0xfb},
                                                         {0x0f, 0x08},
                                                         {0x0f, 0x09},
                                                         {0x0f, 0x21},
                                                         {0x0f, 0x23},
                                                         {0x0f, 0x30},
                                                         {0x0f, 0x31},
                                                         {0x0f, 0x32},
                                                         {0x0f, 0x33},
                                                         {0x0f, 0xa2},
                                                         {0x0f, 0xb6},
                                                         {0x0f, 0xb7},
                                                         {0x0f, 0xbe},
                                                         {0x0f, 0xbf}};
const std::vector<std::uint8_t> kPrefixes = {0x26, 0x2e, 0x36, 0x3e, 0x64, 0x65, 0x66, 0x67, 0xf2, 0xf3};

class Generator {
 public:
  std::uint8_t byte() { return static_cast<std::uint8_t>(random_()); }
  std::vector<std::uint8_t> instruction() {
    std::vector<std::uint8_t> bytes;
    for (unsigned i = random_() % 4; i > 0; --i) bytes.push_back(kPrefixes[random_() % kPrefixes.size()]);
    if (random_() % 2 != 0) bytes.push_back(static_cast<std::uint8_t>(0x40 | random_() % 16));
    const auto& opcode = kOpcodes[random_() % kOpcodes.size()];
    bytes.insert(bytes.end(), opcode.begin(), opcode.end());
    while (bytes.size() < kMaxInstructionBytes) bytes.push_back(byte());
    return bytes;
  }
  std::vector<std::uint8_t> noise() {
    std::vector<std::uint8_t> bytes(kMaxInstructionBytes);
    for (auto& value : bytes) value = byte();
    return bytes;
  }
  Registers registers() {
    Registers result;
    for (auto& value : result.general) value = std::uint64_t{random_()} << 32 | random_();
    result.rip = std::uint64_t{random_()} << 32 | random_();
    return result;
  }

 private:
  std::mt19937 random_{20240607};  // NOLINT(cert-msc32-c,cert-msc51-cpp): the same bytes on every run
};

ZydisRegisterContext context_of(const Registers& registers) {
  ZydisRegisterContext context{};
  const ZydisRegister order[] = {ZYDIS_REGISTER_RAX, ZYDIS_REGISTER_RCX, ZYDIS_REGISTER_RDX, ZYDIS_REGISTER_RBX,
                                 ZYDIS_REGISTER_RSP, ZYDIS_REGISTER_RBP, ZYDIS_REGISTER_RSI, ZYDIS_REGISTER_RDI,
                                 ZYDIS_REGISTER_R8,  ZYDIS_REGISTER_R9,  ZYDIS_REGISTER_R10, ZYDIS_REGISTER_R11,
                                 ZYDIS_REGISTER_R12, ZYDIS_REGISTER_R13, ZYDIS_REGISTER_R14, ZYDIS_REGISTER_R15};
  const ZydisRegister low[] = {ZYDIS_REGISTER_EAX,  ZYDIS_REGISTER_ECX,  ZYDIS_REGISTER_EDX,  ZYDIS_REGISTER_EBX,
                               ZYDIS_REGISTER_ESP,  ZYDIS_REGISTER_EBP,  ZYDIS_REGISTER_ESI,  ZYDIS_REGISTER_EDI,
                               ZYDIS_REGISTER_R8D,  ZYDIS_REGISTER_R9D,  ZYDIS_REGISTER_R10D, ZYDIS_REGISTER_R11D,
                               ZYDIS_REGISTER_R12D, ZYDIS_REGISTER_R13D, ZYDIS_REGISTER_R14D, ZYDIS_REGISTER_R15D};
  for (unsigned i = 0; i < 16; ++i) {
    context.values[order[i]] = registers.general[i];
    context.values[low[i]] = registers.general[i] & 0xffffffff;
  }
  return context;
}

const ZydisDecodedOperand* memory_operand(const Reference& theirs) {
  for (unsigned i = 0; i < theirs.instruction.operand_count; ++i) {
    const auto& operand = theirs.operands[i];
    const bool explicit_one = operand.visibility == ZYDIS_OPERAND_VISIBILITY_EXPLICIT;
    if (operand.type == ZYDIS_OPERAND_TYPE_MEMORY && explicit_one) return &operand;
  }
  return nullptr;
}

void compare(const std::vector<std::uint8_t>& bytes, const Registers& registers) {
  const auto ours = decode(bytes);
  if (!ours) return;
  const auto theirs = reference(bytes);
  if (!theirs) return;  // undefined: a debug register above DR7, an empty slot of group 7
  INFO(Catch::StringMaker<std::vector<std::uint8_t>>::convert(bytes));
  REQUIRE(unsigned{ours->length} == unsigned{theirs->instruction.length});
  REQUIRE((ours->opcode & 0xffu) == unsigned{theirs->instruction.opcode});
  REQUIRE((ours->opcode > 0xff) == (theirs->instruction.opcode_map == ZYDIS_OPCODE_MAP_0F));

  const auto* memory = memory_operand(*theirs);
  const bool moffs = ours->opcode >= 0xa0 && ours->opcode <= 0xa3;
  const bool with_memory =
      moffs || (ours->has_modrm && ours->mod() != 3 && ours->opcode != 0x0f21 && ours->opcode != 0x0f23);
  REQUIRE(with_memory == (memory != nullptr));
  if (memory == nullptr) return;
  // Zydis 4.0 takes SIB base 5 with REX.B, mod 0 and 32-bit addresses for R13D; REX.B does not count there, and with
  // 64-bit addresses Zydis knows.
  if (ours->has_sib && ours->address_32 && ours->mod() == 0 && (ours->sib & 7) == 5 && (ours->rex & 1) != 0) return;
  const auto context = context_of(registers);
  ZyanU64 address = 0;
  ZyanStatus status = ZydisCalcAbsoluteAddressEx(&theirs->instruction, memory, registers.rip, &context, &address);
  REQUIRE(ZYAN_SUCCESS(status));
  REQUIRE(effective_address(*ours, registers) == address);
  const bool fs = memory->mem.segment == ZYDIS_REGISTER_FS;
  const bool gs = memory->mem.segment == ZYDIS_REGISTER_GS;
  REQUIRE((ours->segment == SegmentOverride::kFs) == fs);
  REQUIRE((ours->segment == SegmentOverride::kGs) == gs);
  if (ours->opcode == 0x89 || ours->opcode == 0x8b || ours->opcode == 0xc7) {
    REQUIRE(ours->operand_size() == memory->size / 8u);
  }
}

unsigned long runs() {
  const char* wanted = std::getenv("SEVISOR_DECODER_RUNS");
  return wanted != nullptr ? std::strtoul(wanted, nullptr, 10) : 60000;
}

TEST_CASE("random operands around the known opcodes decode as in Zydis", "[ghcb_guest][decoder]") {
  Generator generator;
  unsigned long accepted = 0;
  for (unsigned long i = 0; i < runs(); ++i) {
    const auto bytes = generator.instruction();
    if (decode(bytes)) ++accepted;
    compare(bytes, generator.registers());
  }
  REQUIRE(accepted > runs() / 2);
}

TEST_CASE("random bytes that are accepted decode as in Zydis", "[ghcb_guest][decoder]") {
  Generator generator;
  for (unsigned long i = 0; i < runs(); ++i) compare(generator.noise(), generator.registers());
}

TEST_CASE("a known instruction in its plain form is accepted", "[ghcb_guest][decoder]") {
  for (const auto& opcode : kOpcodes) {
    auto bytes = opcode;
    // A ModRM byte with a plain memory operand, or with debug register 7, then immediates.
    bytes.push_back(opcode[0] == 0x0f && (opcode[1] == 0x21 || opcode[1] == 0x23) ? 0xf8 : 0x00);
    bytes.resize(kMaxInstructionBytes, 0);
    const auto theirs = reference(bytes);
    REQUIRE(theirs);
    const auto ours = decode(bytes);
    REQUIRE(ours);
    REQUIRE(unsigned{ours->length} == unsigned{theirs->instruction.length});
  }
}

TEST_CASE("cut-off, locked and foreign instructions are refused", "[ghcb_guest][decoder]") {
  const std::vector<std::uint8_t> full = {0x48, 0xc7, 0x84, 0xcb, 1, 2,
                                          3,    4,    5,    6,    7, 8};  // mov qword [rbx+rcx*8+d], imm
  REQUIRE(decode(full)->length == 12);
  for (std::size_t size = 0; size < full.size(); ++size) REQUIRE_FALSE(decode({full.data(), size}));
  REQUIRE_FALSE(decode(std::vector<std::uint8_t>{0xf0, 0x89, 0x00}));        // LOCK
  REQUIRE_FALSE(decode(std::vector<std::uint8_t>{0xc7, 0xf8, 0, 0, 0, 0}));  // XBEGIN
  REQUIRE_FALSE(decode(std::vector<std::uint8_t>{0xc5, 0xf8, 0x28, 0xc1}));  // VEX
  REQUIRE_FALSE(decode(std::vector<std::uint8_t>{0x87, 0x00}));              // XCHG
  REQUIRE_FALSE(decode(std::vector<std::uint8_t>{0x0f, 0x01, 0x00}));        // SGDT
  std::vector<std::uint8_t> long_one(14, 0x66);
  long_one.push_back(0x89);
  long_one.push_back(0x00);
  REQUIRE_FALSE(decode(long_one));  // 16 bytes
}

TEST_CASE("registers are read and written as the processor does", "[ghcb_guest][decoder]") {
  Registers registers;
  registers.general[kRax] = 0x1122334455667788;
  REQUIRE(read_register(registers, kRsp, 1, false) == 0x77);  // AH
  registers.general[kRsp] = 0x99;
  REQUIRE(read_register(registers, kRsp, 1, true) == 0x99);  // SPL
  write_register(registers, kRsp, 1, false, 0xab);
  REQUIRE(registers.general[kRax] == 0x112233445566ab88);
  write_register(registers, kRax, 2, false, 0xfffff);
  REQUIRE(registers.general[kRax] == 0x112233445566ffff);
  write_register(registers, kRax, 4, false, 0x1'00000001);
  REQUIRE(registers.general[kRax] == 1);
}
}  // namespace
