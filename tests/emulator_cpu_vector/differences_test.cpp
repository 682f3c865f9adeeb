// What the comparison with the host's processor leaves out on hosts of other makers and generations: made-up outcomes
// on made-up hosts, since only one processor can be asked at a time. What Intel's processors do here is what the SDM
// says of each instruction and what runs on them showed.
#include "tests/cpu_diff/differences.hpp"

#include <algorithm>
#include <catch2/catch.hpp>
#include <set>
#include <utility>
#include <vector>

#include "base/bytes.hpp"
#include "tests/cpu_diff/difference_rows.hpp"
#include "tests/cpu_diff/operands.hpp"
#include "tests/cpu_diff/vector_state.hpp"
#include "tests/emulator_cpu_vector/profiles.hpp"

namespace sevisor::cpu_diff {

namespace {

constexpr int kUd = 6;
constexpr int kSs = 12;
constexpr int kGp = 13;
constexpr int kPf = 14;
constexpr int kXf = 19;
constexpr std::size_t kFsw = 2;

// One instruction, with the outcomes of a host's processor and of the engine.
struct Outcomes {
  Mode mode;
  Encoding e;
  Machine before, host, engine;

  explicit Outcomes(const std::vector<std::uint8_t>& code, Mode m = Mode::k64) : mode(m) {
    std::copy(code.begin(), code.end(), e.bytes.begin());
    REQUIRE(decode(mode, e));
    before.regs = initial_registers();
    before.regs.gpr[3] = kData;  // RBX
    host = engine = before;
  }
  [[nodiscard]] bool agree(const Processor& processor) const {
    Machine ours = engine;
    forgive_host(processor, {mode, e, before}, host, ours);
    return (difference(host, ours, 0) + vector_difference(mode, host, ours)).empty();
  }
  // They agree on the processors that `excused` says, and on no other.
  void differ_but_on(bool (*excused)(const Processor&)) const {
    for (const Processor& processor : all_profiles()) {
      INFO(describe_processor(processor));
      CHECK(agree(processor) == excused(processor));
    }
  }
  // Only the vendor makes them agree.
  void differ_by_vendor() const {
    differ_but_on([](const Processor& p) { return p.vendor() != Vendor::kAmd; });
  }
  // And a change that has nothing to do with it is found.
  void differ_otherwise() const {
    differ_but_on([](const Processor&) { return false; });
  }
};

void fault(Machine& m, int exception, std::uint64_t cr2 = 0) {
  m.exception = exception;
  m.cr2 = cr2;
  m.rip = kCode;
}
// By their names: the conditions of differences.cpp are what is tested.
bool from_zen4(const Processor& p) {
  return p.vendor() == Vendor::kAmd && (p.family > 0x19 || (p.family == 0x19 && p.model >= 0x10));
}
void complete(Machine& m, const Encoding& e) { m.rip = kCode + e.info.length; }

}  // namespace

TEST_CASE("what is not compared with a host is printed with the reasons") {
  std::set<std::string_view> names;
  for (const Difference& row : differences()) {
    names.insert(row.what);
    CHECK((row.forgive == nullptr) != (row.leaves_out == nullptr));
    for (const Processor& host : all_profiles()) {
      const std::string text = describe_differences(host);
      CHECK(text.find(host.name) != std::string::npos);
      CHECK((text.find(row.what) != std::string::npos) == row.applies(host));
      if (row.applies(host)) CHECK(text.find(row.why) != std::string::npos);
    }
  }
  CHECK(names.size() == differences().size());
}

TEST_CASE("Zen 3 is what the engine is but for the encoding of VPERMQ and VPERMPD and an order of faults") {
  for (const Difference& row : differences()) {
    const bool expected = row.what == "VPERMQ and VPERMPD without VEX.W" || row.forgive == misaligned_stack_area;
    INFO(row.what);
    CHECK(row.applies(zen3()) == expected);
  }
}

TEST_CASE("an area on the stack that is neither aligned nor canonical is #GP on AMD's") {
  const auto amd = [](const Processor& p) { return p.vendor() == Vendor::kAmd; };
  const auto code = GENERATE(std::vector<std::uint8_t>{0x0f, 0xae, 0x24, 0x24},   // xsave [rsp]
                             std::vector<std::uint8_t>{0x0f, 0xc7, 0x24, 0x24},   // xsavec
                             std::vector<std::uint8_t>{0x0f, 0xae, 0x34, 0x24},   // xsaveopt
                             std::vector<std::uint8_t>{0x0f, 0xae, 0x2c, 0x24});  // xrstor
  const auto with = [&code](std::uint64_t rsp) {
    Outcomes o(code);
    for (Machine* m : {&o.before, &o.host, &o.engine}) m->regs.gpr[4] = rsp;
    fault(o.host, kGp);
    fault(o.engine, kSs);
    return o;
  };
  Outcomes o = with(0x8000000000000008);
  o.differ_but_on(amd);
  std::swap(o.host, o.engine);
  o.differ_otherwise();
  with(0x8000000000000000).differ_otherwise();  // aligned
  with(kData + 8).differ_otherwise();           // canonical
  Outcomes other({0x0f, 0x28, 0x04, 0x24});     // movaps xmm0, [rsp]
  other.before.regs.gpr[4] = other.host.regs.gpr[4] = other.engine.regs.gpr[4] = 0x8000000000000008;
  fault(other.host, kGp);
  fault(other.engine, kSs);
  other.differ_otherwise();
}

TEST_CASE("integer instructions that vendors make different") {
  SECTION("0F 0D with a register") {
    Outcomes o({0x0f, 0x0d, 0xd8});
    complete(o.host, o.e);
    fault(o.engine, kUd);
    o.differ_by_vendor();
    fault(o.host, kPf);
    o.differ_otherwise();
  }
  SECTION("another NOP is compared") {
    Outcomes o({0x0f, 0x1f, 0xd8});
    complete(o.host, o.e);
    fault(o.engine, kUd);
    o.differ_otherwise();
  }
  SECTION("LOOPNE behind F3") {
    Outcomes o({0xf3, 0xe0, 0x5d});
    o.host.rip = kTaken;
    o.engine.rip = kCode + 3;
    o.differ_by_vendor();
    o.engine.regs.gpr[1] = 1;
    o.differ_otherwise();
  }
  SECTION("LOOPNE alone is compared") {
    Outcomes o({0xe0, 0x5e});
    o.host.rip = kTaken;
    o.engine.rip = kCode + 2;
    o.differ_otherwise();
  }
  SECTION("CALL to no canonical address") {
    Outcomes o({0xff, 0xd0});
    fault(o.host, kGp);
    fault(o.engine, kGp);
    o.host.data[8] = std::byte{0x67};
    o.differ_by_vendor();
    o.engine.regs.gpr[4] -= 8;
    o.differ_otherwise();
  }
  SECTION("BOUND") {
    Outcomes o({0x62, 0x03}, Mode::k32);
    fault(o.host, 5);
    fault(o.engine, kPf, kData + kDataSize);
    o.differ_by_vendor();
    complete(o.host, o.e);
    o.host.exception = kNoException;
    o.differ_otherwise();
  }
  SECTION("MOVSXD of 16 bits") {
    Outcomes o({0x66, 0x63, 0x03});
    complete(o.host, o.e);
    fault(o.engine, kPf, kData + kDataSize);
    o.differ_by_vendor();
  }
  SECTION("MOVSXD of 32 bits is compared") {
    Outcomes o({0x63, 0x03});
    complete(o.host, o.e);
    fault(o.engine, kPf, kData + kDataSize);
    o.differ_otherwise();
  }
  SECTION("REP STOSD with 32-bit addresses and a count of 0") {
    Outcomes o({0x67, 0xf3, 0xab});
    o.before.regs.gpr[1] = std::uint64_t{1} << 32;
    o.engine.regs.gpr[1] = o.before.regs.gpr[1];
    o.differ_by_vendor();
    o.engine.regs.gpr[7] = 4;
    o.differ_otherwise();
  }
}

TEST_CASE("vector instructions that vendors make different") {
  SECTION("SHA256MSG1 with a misaligned operand") {
    Outcomes o({0x0f, 0x38, 0xcc, 0x43, 0x08});  // [rbx+8]
    fault(o.host, kGp);
    complete(o.engine, o.e);
    o.differ_by_vendor();
  }
  SECTION("an aligned one is compared") {
    Outcomes o({0x0f, 0x38, 0xcc, 0x03});
    fault(o.host, kGp);
    complete(o.engine, o.e);
    o.differ_otherwise();
  }
  SECTION("VPEXTRD with VEX.W in 32-bit code") {
    Outcomes o({0xc4, 0xe3, 0xf9, 0x16, 0xc0, 0x01}, Mode::k32);
    complete(o.host, o.e);
    fault(o.engine, kUd);
    o.differ_by_vendor();
  }
  SECTION("VPEXTRD without is compared") {
    Outcomes o({0xc4, 0xe3, 0x79, 0x16, 0xc0, 0x01}, Mode::k32);
    complete(o.host, o.e);
    fault(o.engine, kUd);
    o.differ_otherwise();
  }
  SECTION("VCVTPS2PH to a page that is not there") {
    Outcomes o({0xc4, 0xe3, 0x79, 0x1d, 0x03, 0x00});
    fault(o.host, kXf);
    fault(o.engine, kPf, kData + kDataSize);
    o.host.regs.fx[kFxMxcsr] |= std::byte{1};
    o.differ_by_vendor();
    complete(o.engine, o.e);
    o.engine.exception = kNoException;
    o.differ_otherwise();
  }
  SECTION("FISTP to a page that is not there, with an exception") {
    Outcomes o({0xdb, 0x1b});
    complete(o.host, o.e);
    store(&o.host.regs.fx[kFsw], std::uint16_t{0x8081});
    fault(o.engine, kPf, kData + kDataSize);
    o.differ_by_vendor();
    store(&o.host.regs.fx[kFsw], std::uint16_t{0x0001});  // masked
    o.differ_otherwise();
  }
  SECTION("a gather that a fault breaks off") {
    Outcomes o({0xc4, 0xe2, 0x69, 0x90, 0x04, 0x0b});  // vpgatherdd xmm0, [rbx+xmm1], xmm2
    fault(o.host, kPf, kData + kDataSize);
    fault(o.engine, kPf, kData + kDataSize);
    const std::size_t mask = kFxXmm + 2 * 16;
    store(&o.host.regs.fx[mask + 4], ~std::uint32_t{0});
    store(&o.engine.regs.fx[mask + 4], std::uint32_t{0x80001234});
    store(&o.engine.regs.fx[mask + 8], std::uint32_t{0x1234});
    o.engine.regs.ymm_high[0][3] = o.engine.regs.ymm_high[2][3] = std::byte{1};
    o.differ_by_vendor();
    SECTION("which elements are still to be loaded is compared") {
      store(&o.engine.regs.fx[mask + 4], std::uint32_t{0x1234});
      o.differ_otherwise();
    }
    SECTION("what has been loaded is compared") {
      o.engine.regs.fx[kFxXmm] = std::byte{1};
      o.differ_otherwise();
    }
    SECTION("other registers are compared") {
      o.engine.regs.ymm_high[3][3] = std::byte{1};
      o.differ_otherwise();
    }
  }
  SECTION("a gather that completes is compared") {
    Outcomes o({0xc4, 0xe2, 0x69, 0x90, 0x04, 0x0b});
    o.engine.regs.ymm_high[2][3] = std::byte{1};
    o.differ_otherwise();
  }
}

TEST_CASE("REPE CMPSB's first fault differs by generation") {
  constexpr std::uint64_t kSource = 0x1000;
  constexpr std::uint64_t kDestination = 0x30000000;
  const auto at_both = [](Outcomes& o) {
    for (Machine* m : {&o.host, &o.engine}) {
      m->regs.gpr[6] = kSource;
      m->regs.gpr[7] = kDestination;
    }
    fault(o.host, kPf, kSource);
    fault(o.engine, kPf, kDestination);
    o.host.error = o.engine.error = 4;
  };
  SECTION("REPE CMPSB") {
    for (const Mode mode : {Mode::k64, Mode::k32}) {
      Outcomes o({0xf3, 0xa6}, mode);
      at_both(o);
      o.differ_but_on(from_zen4);
    }
  }
  SECTION("with addresses of 16 bits") {
    Outcomes o({0x67, 0xf3, 0xa6}, Mode::k32);
    at_both(o);
    for (Machine* m : {&o.host, &o.engine}) m->regs.gpr[6] |= 0x20000000;
    o.engine.cr2 = 0;
    o.differ_but_on(from_zen4);
  }
  SECTION("an address that is not canonical") {
    Outcomes o({0xf3, 0xa6});
    at_both(o);
    for (Machine* m : {&o.host, &o.engine}) m->regs.gpr[6] = std::uint64_t{1} << 63;
    fault(o.host, kGp);
    o.host.error = 0;
    o.differ_but_on(from_zen4);
  }
  SECTION("the other order is compared") {
    Outcomes o({0xf3, 0xa6});
    at_both(o);
    std::swap(o.host.cr2, o.engine.cr2);
    o.differ_otherwise();
  }
  SECTION("another address is compared") {
    Outcomes o({0xf3, 0xa6});
    at_both(o);
    o.host.cr2 += 1;
    o.differ_otherwise();
  }
  SECTION("registers are compared") {
    Outcomes o({0xf3, 0xa6});
    at_both(o);
    o.engine.regs.gpr[1] = 1;
    o.differ_otherwise();
  }
  SECTION("one that does not fault is compared") {
    Outcomes o({0xf3, 0xa6});
    at_both(o);
    complete(o.engine, o.e);
    o.engine.exception = kNoException;
    o.differ_otherwise();
  }
  const auto other = GENERATE(std::vector<std::uint8_t>{0xf2, 0xa6}, std::vector<std::uint8_t>{0xf3, 0xa7},
                              std::vector<std::uint8_t>{0xa6}, std::vector<std::uint8_t>{0xf3, 0xae});
  DYNAMIC_SECTION("another string instruction is compared: " << static_cast<int>(other.front())) {
    Outcomes o(other);
    at_both(o);
    o.differ_otherwise();
  }
}

TEST_CASE("FSRC in CPUID is enough for REPE CMPSB's order, on AMD's") {
  Outcomes o({0xf3, 0xa6});
  o.host.regs.gpr[6] = o.engine.regs.gpr[6] = 0x1000;
  fault(o.host, kPf, 0x1000);
  fault(o.engine, kPf, 0);
  for (Processor p : {zen3(), sapphire_rapids()}) {
    CHECK_FALSE(o.agree(p));
    p.set(kFastCmpsb);
    CHECK(o.agree(p) == (p.vendor() == Vendor::kAmd));
  }
}

TEST_CASE("the sign of x87's pointers that were loaded differs with the size of addresses") {
  const auto code = GENERATE(std::vector<std::uint8_t>{0x48, 0x0f, 0xae, 0x0b},   // fxrstor64 [rbx]
                             std::vector<std::uint8_t>{0x48, 0x0f, 0xae, 0x2b});  // xrstor64 [rbx]
  constexpr std::size_t kFip = 8;
  constexpr std::uint64_t kLoaded = 0x0180923456789abc;
  constexpr std::uint64_t kOf57 = 0xff80923456789abc;
  constexpr std::uint64_t kOf48 = 0xffff923456789abc;
  Outcomes o(code);
  for (Machine* m : {&o.before, &o.host, &o.engine}) store(&m->data[kFip], kLoaded);
  for (Machine* m : {&o.host, &o.engine}) store(&m->regs.fx[kFsw], std::uint16_t{0x8081});
  store(&o.host.regs.fx[kFip], kOf57);
  store(&o.engine.regs.fx[kFip], kOf48);
  // Of others than AMD's a pending exception's instruction pointer is compared in 48 bits anyway.
  o.differ_but_on([](const Processor& p) { return p.vendor() != Vendor::kAmd || from_zen4(p); });
  SECTION("LA57 in CPUID is enough") {
    Processor p = zen3();
    p.set(kLa57);
    CHECK(o.agree(p));
  }
  SECTION("other bits are compared") {
    store(&o.host.regs.fx[kFip], kOf57 ^ 1);
    o.differ_otherwise();
  }
  SECTION("nothing else than the two signs is taken") {
    store(&o.engine.regs.fx[kFip], kLoaded);
    o.differ_but_on([](const Processor& p) { return p.vendor() != Vendor::kAmd; });
  }
  SECTION("of another instruction they are compared") {
    Outcomes other({0x0f, 0xae, 0x0b});  // fxrstor [rbx]
    other.before = o.before;
    other.host = o.host;
    other.engine = o.engine;
    other.differ_but_on([](const Processor& p) { return p.vendor() != Vendor::kAmd; });
  }
}

TEST_CASE("encodings that are left out on some hosts") {
  const auto on = [](const std::vector<std::uint8_t>& code, Mode mode, bool (*expected)(const Processor&)) {
    Encoding e;
    std::copy(code.begin(), code.end(), e.bytes.begin());
    static_cast<void>(decode(mode, e));
    for (const Processor& p : all_profiles()) CHECK(left_out(p, e) == expected(p));
  };
  const auto not_amd = [](const Processor& p) { return p.vendor() != Vendor::kAmd; };
  const auto amd = [](const Processor& p) { return p.vendor() == Vendor::kAmd; };
  const auto none = [](const Processor&) { return false; };
  SECTION("near branches with an operand size prefix") {
    for (const auto& code : {std::vector<std::uint8_t>{0x66, 0xe8, 0x00, 0x00},        // call
                             std::vector<std::uint8_t>{0x66, 0x0f, 0x84, 0x00, 0x00},  // jz
                             std::vector<std::uint8_t>{0x66, 0xc3}}) {                 // ret
      on(code, Mode::k32, not_amd);
    }
    on({0xe8, 0x00, 0x00, 0x00, 0x00}, Mode::k32, none);
    on({0x66, 0x01, 0xc0}, Mode::k32, none);
  }
  SECTION("VPERMQ and VPERMPD without W") {
    on({0xc4, 0xe3, 0x7d, 0x00, 0xc1, 0x07}, Mode::k64, amd);
    on({0xc4, 0xe3, 0x7d, 0x01, 0xc1, 0x07}, Mode::k64, amd);
    on({0xc4, 0xe3, 0xfd, 0x00, 0xc1, 0x07}, Mode::k64, none);  // with W
    on({0xc4, 0xe3, 0x79, 0x00, 0xc1, 0x07}, Mode::k64, none);  // 128 bits
    on({0xc4, 0xe3, 0x7d, 0x02, 0xc1, 0x07}, Mode::k64, none);  // vpblendd
  }
}

TEST_CASE("x87's pointers and MXCSR_MASK differ by vendor") {
  constexpr std::size_t kFop = 6;
  constexpr std::size_t kFip = 8;
  constexpr std::size_t kFdp = 16;
  SECTION("in the registers") {
    Outcomes o({0xd9, 0xe8});
    store(&o.host.regs.fx[kFip], kCode);
    store(&o.host.regs.fx[kFop], std::uint16_t{0x1e8});
    store(&o.host.regs.fx[kFdp], kData);
    o.differ_by_vendor();
    SECTION("with an exception pending the instruction pointer is compared") {
      for (Machine* m : {&o.host, &o.engine}) store(&m->regs.fx[kFsw], std::uint16_t{0x8081});
      o.differ_otherwise();
      store(&o.engine.regs.fx[kFip], kCode | std::uint64_t{0xfff} << 48);  // but for what is above 48 bits
      o.differ_by_vendor();
    }
    SECTION("other fields are compared") {
      o.engine.regs.fx[32] = std::byte{1};
      o.differ_otherwise();
    }
  }
  struct Stored {
    const char* name;
    std::vector<std::uint8_t> code;
    std::size_t first, size;  // bytes that are not compared
  };
  const auto stored =
      GENERATE(Stored{"FXSAVE", {0x0f, 0xae, 0x03}, kFop, 18}, Stored{"XSAVEC", {0x0f, 0xc7, 0x23}, kFop, 18},
               Stored{"FNSTENV", {0xd9, 0x33}, 12, 16}, Stored{"FNSTENV16", {0x66, 0xd9, 0x33}, 6, 8},
               Stored{"FNSAVE", {0xdd, 0x33}, 12, 16}, Stored{"FNSAVE16", {0x66, 0xdd, 0x33}, 6, 8});
  DYNAMIC_SECTION("in what " << stored.name << " stores") {
    for (std::size_t at = 0; at < 32; ++at) {
      Outcomes o(stored.code);
      o.engine.data[at] = std::byte{1};
      INFO("byte " << at);
      const bool free = at >= stored.first && at < stored.first + stored.size;
      for (const Processor& p : all_profiles()) CHECK(o.agree(p) == (free && p.vendor() != Vendor::kAmd));
    }
  }
  SECTION("MXCSR_MASK has MM") {
    Outcomes o({0x0f, 0xae, 0x03});
    store(&o.host.data[28], std::uint32_t{0xffff});
    store(&o.engine.data[28], std::uint32_t{0x2ffff});
    o.differ_by_vendor();
    store(&o.engine.data[28], std::uint32_t{0x2ffbf});
    o.differ_otherwise();
  }
}

}  // namespace sevisor::cpu_diff
