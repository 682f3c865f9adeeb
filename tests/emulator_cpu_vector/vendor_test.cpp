// What the comparison with the host's processor leaves out on a host that is not AMD's: made-up outcomes, since only
// one vendor's processor can be asked at a time. What Intel's processors do here is what the SDM says of each
// instruction and what runs on them showed.
#include "tests/cpu_diff/vendor.hpp"

#include <algorithm>
#include <catch2/catch.hpp>
#include <set>
#include <vector>

#include "base/bytes.hpp"
#include "tests/cpu_diff/operands.hpp"
#include "tests/cpu_diff/vector_state.hpp"

namespace sevisor::cpu_diff {

namespace {

constexpr int kUd = 6;
constexpr int kGp = 13;
constexpr int kPf = 14;
constexpr int kXf = 19;
constexpr std::size_t kFsw = 2;

// One instruction, with the outcomes of an Intel processor and of the engine.
struct Outcomes {
  Mode mode;
  Encoding e;
  Machine before, intel, engine;

  explicit Outcomes(const std::vector<std::uint8_t>& code, Mode m = Mode::k64) : mode(m) {
    std::copy(code.begin(), code.end(), e.bytes.begin());
    REQUIRE(decode(mode, e));
    before.regs = initial_registers();
    before.regs.gpr[3] = kData;  // RBX
    intel = engine = before;
  }
  [[nodiscard]] bool agree(Vendor vendor) const {
    Machine ours = engine;
    forgive_vendor(vendor, {mode, e, before}, intel, ours);
    return (difference(intel, ours, 0) + vector_difference(mode, intel, ours)).empty();
  }
  // Only the vendor makes them agree.
  void differ_by_vendor() const {
    CHECK_FALSE(agree(Vendor::kAmd));
    CHECK(agree(Vendor::kIntel));
    CHECK(agree(Vendor::kOther));
  }
  // And a change that has nothing to do with it is found.
  void differ_otherwise() const { CHECK_FALSE(agree(Vendor::kIntel)); }
};

void fault(Machine& m, int exception, std::uint64_t cr2 = 0) {
  m.exception = exception;
  m.cr2 = cr2;
  m.rip = kCode;
}
void complete(Machine& m, const Encoding& e) { m.rip = kCode + e.info.length; }

}  // namespace

TEST_CASE("the host's vendor comes from CPUID") {
  CHECK(vendor_of("AuthenticAMD") == Vendor::kAmd);
  CHECK(vendor_of("GenuineIntel") == Vendor::kIntel);
  CHECK(vendor_of("HygonGenuine") == Vendor::kOther);
  CHECK(host_vendor_name().size() == 12);
  CHECK(host_vendor() == vendor_of(host_vendor_name()));
}

TEST_CASE("what is not compared for a vendor is printed with the reasons, and nothing for AMD") {
  const std::string amd = describe_vendor(Vendor::kAmd, "AuthenticAMD");
  const std::string intel = describe_vendor(Vendor::kIntel, "GenuineIntel");
  CHECK(amd.find("AuthenticAMD") != std::string::npos);
  CHECK(intel.find("GenuineIntel") != std::string::npos);
  std::set<std::string_view> names;
  for (const VendorDetail& detail : vendor_details()) {
    CHECK(amd.find(detail.what) == std::string::npos);
    CHECK(intel.find(detail.what) != std::string::npos);
    CHECK(intel.find(detail.why) != std::string::npos);
    names.insert(detail.what);
  }
  CHECK(names.size() == vendor_details().size());
}

TEST_CASE("integer instructions that vendors make different") {
  SECTION("0F 0D with a register") {
    Outcomes o({0x0f, 0x0d, 0xd8});
    complete(o.intel, o.e);
    fault(o.engine, kUd);
    o.differ_by_vendor();
    fault(o.intel, kPf);
    o.differ_otherwise();
  }
  SECTION("another NOP is compared") {
    Outcomes o({0x0f, 0x1f, 0xd8});
    complete(o.intel, o.e);
    fault(o.engine, kUd);
    o.differ_otherwise();
  }
  SECTION("LOOPNE behind F3") {
    Outcomes o({0xf3, 0xe0, 0x5d});
    o.intel.rip = kTaken;
    o.engine.rip = kCode + 3;
    o.differ_by_vendor();
    o.engine.regs.gpr[1] = 1;
    o.differ_otherwise();
  }
  SECTION("LOOPNE alone is compared") {
    Outcomes o({0xe0, 0x5e});
    o.intel.rip = kTaken;
    o.engine.rip = kCode + 2;
    o.differ_otherwise();
  }
  SECTION("CALL to no canonical address") {
    Outcomes o({0xff, 0xd0});
    fault(o.intel, kGp);
    fault(o.engine, kGp);
    o.intel.data[8] = std::byte{0x67};
    o.differ_by_vendor();
    o.engine.regs.gpr[4] -= 8;
    o.differ_otherwise();
  }
  SECTION("BOUND") {
    Outcomes o({0x62, 0x03}, Mode::k32);
    fault(o.intel, 5);
    fault(o.engine, kPf, kData + kDataSize);
    o.differ_by_vendor();
    complete(o.intel, o.e);
    o.intel.exception = kNoException;
    o.differ_otherwise();
  }
  SECTION("MOVSXD of 16 bits") {
    Outcomes o({0x66, 0x63, 0x03});
    complete(o.intel, o.e);
    fault(o.engine, kPf, kData + kDataSize);
    o.differ_by_vendor();
  }
  SECTION("MOVSXD of 32 bits is compared") {
    Outcomes o({0x63, 0x03});
    complete(o.intel, o.e);
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
    fault(o.intel, kGp);
    complete(o.engine, o.e);
    o.differ_by_vendor();
  }
  SECTION("an aligned one is compared") {
    Outcomes o({0x0f, 0x38, 0xcc, 0x03});
    fault(o.intel, kGp);
    complete(o.engine, o.e);
    o.differ_otherwise();
  }
  SECTION("VPEXTRD with VEX.W in 32-bit code") {
    Outcomes o({0xc4, 0xe3, 0xf9, 0x16, 0xc0, 0x01}, Mode::k32);
    complete(o.intel, o.e);
    fault(o.engine, kUd);
    o.differ_by_vendor();
  }
  SECTION("VPEXTRD without is compared") {
    Outcomes o({0xc4, 0xe3, 0x79, 0x16, 0xc0, 0x01}, Mode::k32);
    complete(o.intel, o.e);
    fault(o.engine, kUd);
    o.differ_otherwise();
  }
  SECTION("VCVTPS2PH to a page that is not there") {
    Outcomes o({0xc4, 0xe3, 0x79, 0x1d, 0x03, 0x00});
    fault(o.intel, kXf);
    fault(o.engine, kPf, kData + kDataSize);
    o.intel.regs.fx[kFxMxcsr] |= std::byte{1};
    o.differ_by_vendor();
    complete(o.engine, o.e);
    o.engine.exception = kNoException;
    o.differ_otherwise();
  }
  SECTION("FISTP to a page that is not there, with an exception") {
    Outcomes o({0xdb, 0x1b});
    complete(o.intel, o.e);
    store(&o.intel.regs.fx[kFsw], std::uint16_t{0x8081});
    fault(o.engine, kPf, kData + kDataSize);
    o.differ_by_vendor();
    store(&o.intel.regs.fx[kFsw], std::uint16_t{0x0001});  // masked
    o.differ_otherwise();
  }
  SECTION("a gather that a fault breaks off") {
    Outcomes o({0xc4, 0xe2, 0x69, 0x90, 0x04, 0x0b});  // vpgatherdd xmm0, [rbx+xmm1], xmm2
    fault(o.intel, kPf, kData + kDataSize);
    fault(o.engine, kPf, kData + kDataSize);
    const std::size_t mask = kFxXmm + 2 * 16;
    store(&o.intel.regs.fx[mask + 4], ~std::uint32_t{0});
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

TEST_CASE("x87's pointers and MXCSR_MASK differ by vendor") {
  constexpr std::size_t kFop = 6;
  constexpr std::size_t kFip = 8;
  constexpr std::size_t kFdp = 16;
  SECTION("in the registers") {
    Outcomes o({0xd9, 0xe8});
    store(&o.intel.regs.fx[kFip], kCode);
    store(&o.intel.regs.fx[kFop], std::uint16_t{0x1e8});
    store(&o.intel.regs.fx[kFdp], kData);
    o.differ_by_vendor();
    SECTION("with an exception pending the instruction pointer is compared") {
      for (Machine* m : {&o.intel, &o.engine}) store(&m->regs.fx[kFsw], std::uint16_t{0x8081});
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
      CHECK(o.agree(Vendor::kIntel) == free);
      CHECK_FALSE(o.agree(Vendor::kAmd));
    }
  }
  SECTION("MXCSR_MASK has MM") {
    Outcomes o({0x0f, 0xae, 0x03});
    store(&o.intel.data[28], std::uint32_t{0xffff});
    store(&o.engine.data[28], std::uint32_t{0x2ffff});
    o.differ_by_vendor();
    store(&o.engine.data[28], std::uint32_t{0x2ffbf});
    o.differ_otherwise();
  }
}

}  // namespace sevisor::cpu_diff
