// The guest's handler against the hypervisor's service: the two halves of the protocol, written apart, must understand
// each other.
#include <catch2/catch.hpp>
#include <map>

#include "ghcb/guest/vc_handler.hpp"
#include "ghcb/hypervisor/service.hpp"
#include "tests/ghcb_guest/fake_platform.hpp"

namespace {
using namespace sevisor::ghcb;
using namespace sevisor::ghcb::guest;
using sevisor::Gpa;
using sevisor::test::FakePlatform;

// A hypervisor whose guest memory is the GHCB page alone.
class Hypervisor final : public Environment {
 public:
  explicit Hypervisor(FakePlatform& guest) : guest_(guest) {
    guest.hypervisor = [this](Page& page) {
      page.valid = guest_.last_request.valid;  // the fake has cleared it already, as this side does
      msr_ = FakePlatform::kGhcb;
      auto outcome = service.vmgexit();
      while (std::holds_alternative<PortExit>(outcome) || std::holds_alternative<MmioExit>(outcome)) {
        if (auto* port_exit = std::get_if<PortExit>(&outcome)) do_port(port_exit->access);
        if (auto* mmio_exit = std::get_if<MmioExit>(&outcome)) do_mmio(mmio_exit->access);
        outcome = service.complete();
      }
      REQUIRE(std::holds_alternative<Resume>(outcome));
    };
  }

  std::map<std::uint32_t, std::uint64_t> msrs;
  std::vector<std::uint8_t> sent;                 // by port writes
  std::uint8_t next = 0;                          // read from ports
  std::map<std::uint64_t, std::uint64_t> device;  // MMIO registers

  bool read_shared(Gpa gpa, std::span<std::byte> out) override {
    if (!inside(gpa, out.size())) return false;
    std::memcpy(out.data(), bytes() + (gpa.value - FakePlatform::kGhcb), out.size());
    return true;
  }
  bool write_shared(Gpa gpa, std::span<const std::byte> in) override {
    if (!inside(gpa, in.size())) return false;
    std::memcpy(bytes() + (gpa.value - FakePlatform::kGhcb), in.data(), in.size());
    return true;
  }
  std::uint64_t ghcb_msr() override { return msr_; }
  void set_ghcb_msr(std::uint64_t value) override { msr_ = value; }
  CpuidValues cpuid(std::uint32_t leaf, std::uint32_t sub_leaf, std::optional<std::uint64_t> xcr0) override {
    return {leaf, sub_leaf, static_cast<std::uint32_t>(xcr0.value_or(0)), 4};
  }
  std::optional<std::uint64_t> read_msr(std::uint32_t index) override {
    const auto found = msrs.find(index);
    if (found == msrs.end()) return std::nullopt;
    return found->second;
  }
  bool write_msr(std::uint32_t index, std::uint64_t value) override {
    if (msrs.count(index) == 0) return false;
    msrs[index] = value;
    return true;
  }
  std::uint64_t hypercall(const Hypercall& call) override { return call.rax + 1; }
  bool port(const PortAccess&) override { return false; }
  bool mmio(const MmioAccess&) override { return false; }
  void inject_exception(std::uint8_t, std::optional<std::uint32_t>) override {}
  void nmi_complete() override {}
  std::uint64_t ap_jump_table() override { return jump_table; }
  void set_ap_jump_table(std::uint64_t gpa) override { jump_table = gpa; }
  std::uint64_t jump_table = 0;

 private:
  [[nodiscard]] static bool inside(Gpa gpa, std::size_t size) {
    return gpa.value >= FakePlatform::kGhcb && gpa.value + size <= FakePlatform::kGhcb + 4096;
  }
  std::byte* bytes() { return reinterpret_cast<std::byte*>(&guest_.page()); }
  void do_port(const PortAccess& access) {
    for (auto& byte : access.data) {
      if (access.in) {
        byte = static_cast<std::byte>(next++);
      } else {
        sent.push_back(static_cast<std::uint8_t>(byte));
      }
    }
  }
  void do_mmio(const MmioAccess& access) {
    auto& reg = device[access.gpa.value];
    if (access.write) {
      reg = 0;
      std::memcpy(&reg, access.data.data(), access.data.size());
    } else {
      std::memcpy(access.data.data(), &reg, access.data.size());
    }
  }

  FakePlatform& guest_;
  std::uint64_t msr_ = 0;

 public:
  Service service{ServiceConfig{}, *this};
};

struct Pair {
  FakePlatform guest;
  Hypervisor hypervisor{guest};
  VcHandler handler{guest, 1};
  Registers registers;

  VcResult::Outcome run(std::vector<std::uint8_t> code, ExitCode exit) {
    guest.code = std::move(code);
    registers.rip = FakePlatform::kCode;
    return handler.handle(registers, exit).outcome;
  }
};
using Outcome = VcResult::Outcome;

TEST_CASE("each event of the handler is one that the service knows", "[ghcb_guest][two_sides]") {
  Pair pair;
  auto& general = pair.registers.general;
  general[kRax] = 0xd;
  general[kRcx] = 1;
  REQUIRE(pair.run({0x0f, 0xa2}, kExitCpuid) == Outcome::kResume);
  REQUIRE(general[kRax] == 0xd);
  REQUIRE(general[kRbx] == 1);
  REQUIRE(general[kRcx] == 7);
  REQUIRE(general[kRdx] == 4);

  pair.hypervisor.msrs[0x277] = 0;
  general[kRcx] = 0x277;
  general[kRax] = 0x00070406;
  general[kRdx] = 0x00070105;
  REQUIRE(pair.run({0x0f, 0x30}, kExitMsr) == Outcome::kResume);
  REQUIRE(pair.hypervisor.msrs[0x277] == 0x0007010500070406);
  general[kRax] = general[kRdx] = 0;
  REQUIRE(pair.run({0x0f, 0x32}, kExitMsr) == Outcome::kResume);
  REQUIRE(general[kRdx] == 0x00070105);
  general[kRcx] = 0x1234;
  REQUIRE(pair.run({0x0f, 0x32}, kExitMsr) == Outcome::kException);

  REQUIRE(pair.run({0x0f, 0x09}, kExitWbinvd) == Outcome::kResume);
  general[kRax] = 41;
  REQUIRE(pair.run({0x0f, 0x01, 0xd9}, kExitVmmcall) == Outcome::kResume);
  REQUIRE(general[kRax] == 42);
  general[kRax] = 0x400;
  REQUIRE(pair.run({0x0f, 0x23, 0xf8}, kExitWriteDr7) == Outcome::kResume);
}

TEST_CASE("ports, single and by string, and MMIO cross the page whole", "[ghcb_guest][two_sides]") {
  Pair pair;
  auto& general = pair.registers.general;
  general[kRdx] = 0x3f8;
  general[kRax] = 0x41;
  REQUIRE(pair.run({0xee}, kExitIoio) == Outcome::kResume);
  REQUIRE(pair.hypervisor.sent == std::vector<std::uint8_t>{0x41});
  pair.hypervisor.next = 0x10;
  REQUIRE(pair.run({0xed}, kExitIoio) == Outcome::kResume);
  REQUIRE(general[kRax] == 0x13121110);

  general[kRcx] = 3000;
  general[kRdi] = FakePlatform::kMemory;
  pair.hypervisor.next = 0;
  while (general[kRcx] != 0) REQUIRE(pair.run({0xf3, 0x6c}, kExitIoio) == Outcome::kResume);
  for (unsigned i = 0; i < 3000; ++i) REQUIRE(pair.guest.memory[i] == static_cast<std::uint8_t>(i));
  pair.hypervisor.sent.clear();
  general[kRcx] = 1500;
  general[kRsi] = FakePlatform::kMemory;
  while (general[kRcx] != 0) REQUIRE(pair.run({0xf3, 0x66, 0x6f}, kExitIoio) == Outcome::kResume);
  REQUIRE(pair.hypervisor.sent ==
          std::vector<std::uint8_t>(pair.guest.memory.begin(), pair.guest.memory.begin() + 3000));

  general[kRbx] = FakePlatform::kDevice + 0x300;
  general[kRax] = 0x000c4500;
  REQUIRE(pair.run({0x89, 0x03}, kExitNpf) == Outcome::kResume);
  REQUIRE(pair.hypervisor.device[FakePlatform::kDevice + 0x300] == 0x000c4500);
  REQUIRE(pair.run({0x0f, 0xb7, 0x0b}, kExitNpf) == Outcome::kResume);
  REQUIRE(general[kRcx] == 0x4500);
}

TEST_CASE("the AP jump table is set and read back", "[ghcb_guest][two_sides]") {
  Pair pair;
  REQUIRE(Exchange(pair.guest, 1).call(kExitApJumpTable, 0, 0x8000).status == Reply::Status::kSuccess);
  const Reply reply = Exchange(pair.guest, 1).call(kExitApJumpTable, 1, 0);
  REQUIRE(reply.status == Reply::Status::kSuccess);
  REQUIRE(reply.info_2 == 0x8000);
  REQUIRE(Exchange(pair.guest, 1).call(0x80000777, 0, 0).status == Reply::Status::kMalformed);
}
}  // namespace
