#include "ghcb/hypervisor/service.hpp"

#include <array>
#include <catch2/catch.hpp>
#include <cstring>
#include <map>
#include <string>

#include "base/bytes.hpp"
#include "ghcb/ioio.hpp"
#include "ghcb/msr_protocol.hpp"

using namespace sevisor;
using namespace sevisor::ghcb;

namespace {

constexpr std::uint64_t kPage = 0x3000;
constexpr std::uint64_t kMemoryBytes = 0x40000;

struct Hypervisor : Environment {
  std::vector<std::byte> memory = std::vector<std::byte>(kMemoryBytes);
  std::uint64_t msr = kPage;
  std::map<std::uint32_t, std::uint64_t> msrs{{0x1b, 0xfee00900}};
  std::uint64_t jump_table = 0;
  std::vector<std::pair<std::uint8_t, std::optional<std::uint32_t>>> injected;
  int nmis_completed = 0;
  bool own_port = false;
  bool own_mmio = false;
  std::string port_out;
  std::optional<std::uint64_t> seen_xcr0;

  bool read_shared(Gpa gpa, std::span<std::byte> out) override {
    if (gpa.value > memory.size() || out.size() > memory.size() - gpa.value) return false;
    std::memcpy(out.data(), memory.data() + gpa.value, out.size());
    return true;
  }
  bool write_shared(Gpa gpa, std::span<const std::byte> in) override {
    if (gpa.value > memory.size() || in.size() > memory.size() - gpa.value) return false;
    std::memcpy(memory.data() + gpa.value, in.data(), in.size());
    return true;
  }
  std::uint64_t ghcb_msr() override { return msr; }
  void set_ghcb_msr(std::uint64_t value) override { msr = value; }
  CpuidValues cpuid(std::uint32_t leaf, std::uint32_t sub_leaf, std::optional<std::uint64_t> xcr0) override {
    seen_xcr0 = xcr0;
    return {leaf + 1, leaf + 2, sub_leaf + 3, 4};
  }
  std::optional<std::uint64_t> read_msr(std::uint32_t index) override {
    const auto found = msrs.find(index);
    return found == msrs.end() ? std::nullopt : std::optional(found->second);
  }
  bool write_msr(std::uint32_t index, std::uint64_t value) override {
    if (!msrs.contains(index)) return false;
    msrs[index] = value;
    return true;
  }
  bool msr_exits = false;
  bool call_exits = false;
  bool refused_msr_exits() override { return msr_exits; }
  bool hypercall_exits(const Hypercall&) override { return call_exits; }
  std::uint64_t hypercall(const Hypercall& call) override { return call.rax + call.rbx + call.cpl; }
  bool port(const PortAccess& access) override {
    if (!own_port) return false;
    for (std::byte& b : access.data) {
      if (access.in) {
        b = std::byte{0xa5};
      } else {
        port_out.push_back(static_cast<char>(b));
      }
    }
    return true;
  }
  bool mmio(const MmioAccess& access) override {
    if (own_mmio && !access.write) std::fill(access.data.begin(), access.data.end(), std::byte{0x77});
    return own_mmio;
  }
  void inject_exception(std::uint8_t vector, std::optional<std::uint32_t> error_code) override {
    injected.emplace_back(vector, error_code);
  }
  void nmi_complete() override { ++nmis_completed; }
  std::uint64_t ap_jump_table() override { return jump_table; }
  void set_ap_jump_table(std::uint64_t gpa) override { jump_table = gpa; }

  Page& page() { return *reinterpret_cast<Page*>(memory.data() + kPage); }
};

struct Fixture {
  Hypervisor hypervisor;
  Service service{ServiceConfig{}, hypervisor};
  Page& page = hypervisor.page();

  void ask(ExitCode code, std::uint64_t info_1 = 0, std::uint64_t info_2 = 0) {
    page.exit_code = code;
    page.exit_info_1 = info_1;
    page.exit_info_2 = info_2;
    for (Field field : {Field::kExitCode, Field::kExitInfo1, Field::kExitInfo2}) page.valid.set(field);
  }
  void rax(std::uint64_t v) { page.rax = v, page.valid.set(Field::kRax); }
  void rcx(std::uint64_t v) { page.rcx = v, page.valid.set(Field::kRcx); }
  void rdx(std::uint64_t v) { page.rdx = v, page.valid.set(Field::kRdx); }
  void scratch(std::uint64_t v) { page.scratch = v, page.valid.set(Field::kScratch); }
  bool resumes() { return std::holds_alternative<Resume>(service.vmgexit()); }
  void answered(std::uint64_t info_1, std::uint64_t info_2) {
    CHECK(page.exit_info_1 == info_1);
    CHECK(page.exit_info_2 == info_2);
    CHECK(page.valid.has(Field::kExitInfo1));
    CHECK(page.valid.has(Field::kExitInfo2));
  }
};

}  // namespace

TEST_CASE_METHOD(Fixture, "the MSR protocol answers") {
  CHECK(service.initial_msr() == 0x0001'0001'3300'0001);
  hypervisor.msr = 2;
  CHECK(resumes());
  CHECK(hypervisor.msr == 0x0001'0001'3300'0001);

  hypervisor.msr = 0x8000001full << 32 | 1ull << 30 | 4;
  CHECK(resumes());
  CHECK(hypervisor.msr == (0x80000021ull << 32 | 1ull << 30 | 5));

  hypervisor.msr = 0x80;
  CHECK(resumes());
  CHECK(hypervisor.msr == 0x3081);  // KVM's GHCB_HV_FT_SUPPORTED: SNP, AP creation

  hypervisor.msr = 0x345;
  CHECK(resumes());
  CHECK(hypervisor.msr == 0x345);

  hypervisor.msr = 0x21100;
  const Outcome outcome = service.vmgexit();
  REQUIRE(std::holds_alternative<Terminated>(outcome));
  CHECK(std::get<Terminated>(outcome).ghcb_msr == 0x21100);

  hypervisor.msr = 0x5012;  // registers a GHCB: SNP only
  CHECK(std::holds_alternative<Terminated>(service.vmgexit()));
}

TEST_CASE_METHOD(Fixture, "a hold of the MSR protocol tells a SIPI from another wake-up") {
  for (const bool sipi : {false, true}) {
    hypervisor.msr = 6;
    REQUIRE(std::holds_alternative<Held>(service.vmgexit()));
    service.finish_hold(sipi);
    CHECK(hypervisor.msr == (sipi ? 0x1007 : 0x007));
  }
}

TEST_CASE_METHOD(Fixture, "a page that is not there is let pass") {
  hypervisor.msr = 0;
  CHECK(resumes());
  hypervisor.msr = kMemoryBytes;
  CHECK(resumes());
}

TEST_CASE_METHOD(Fixture, "CPUID returns four registers, all marked valid") {
  ask(kExitCpuid);
  rax(7);
  rcx(1);
  CHECK(resumes());
  answered(0, 0);
  CHECK(page.rax == 8);
  CHECK(page.rbx == 9);
  CHECK(page.rcx == 4);
  CHECK(page.rdx == 4);
  for (Field field : {Field::kRax, Field::kRbx, Field::kRcx, Field::kRdx}) CHECK(page.valid.has(field));
  CHECK_FALSE(page.valid.has(Field::kExitCode));
  CHECK_FALSE(hypervisor.seen_xcr0.has_value());
}

TEST_CASE_METHOD(Fixture, "a refused request is answered with the reason") {
  ask(kExitMsr, 1);
  rcx(0x10);
  CHECK(resumes());
  answered(2, 4);
  page.usage = 3;
  ask(kExitCpuid);
  CHECK(resumes());
  answered(2, 2);
  page.usage = 0;
  ask(kExitHlt);
  CHECK(resumes());
  answered(2, 6);
  ask(kExitApJumpTable, 2);
  CHECK(resumes());
  answered(2, 5);
}

TEST_CASE_METHOD(Fixture, "MSRs are read and written; an unknown one gives #GP as KVM encodes it") {
  ask(kExitMsr, 0);
  rcx(0x1b);
  CHECK(resumes());
  answered(0, 0);
  CHECK(page.rax == 0xfee00900);
  CHECK(page.rdx == 0);

  ask(kExitMsr, 1);
  rcx(0x1b);
  rax(0x1'2345'6789);
  rdx(0xab);
  CHECK(resumes());
  CHECK(hypervisor.msrs[0x1b] == 0xab23456789);

  ask(kExitMsr, 0);
  rcx(0x999);
  CHECK(resumes());
  answered(1, 0x8000030d);
}

TEST_CASE_METHOD(Fixture, "a refused MSR may go to user space, which answers or refuses it too") {
  hypervisor.msr_exits = true;
  ask(kExitMsr, 0);
  rcx(0x1b);
  CHECK(resumes());  // not refused

  rcx(0x999);
  ask(kExitMsr, 0);
  Outcome outcome = service.vmgexit();
  REQUIRE(std::holds_alternative<MsrExit>(outcome));
  CHECK(std::get<MsrExit>(outcome).index == 0x999);
  CHECK_FALSE(std::get<MsrExit>(outcome).write);
  CHECK(std::holds_alternative<Resume>(service.complete_msr(0x1111'2222'3333'4444)));
  answered(0, 0);
  CHECK(page.rax == 0x3333'4444);
  CHECK(page.rdx == 0x1111'2222);
  // Answered already: nothing happens.
  page.rax = 5;
  CHECK(std::holds_alternative<Resume>(service.complete_msr(1)));
  CHECK(page.rax == 5);

  ask(kExitMsr, 1);
  rcx(0x999);
  rax(0x1'2345'6789);
  rdx(0xab);
  outcome = service.vmgexit();
  REQUIRE(std::holds_alternative<MsrExit>(outcome));
  CHECK(std::get<MsrExit>(outcome).write);
  CHECK(std::get<MsrExit>(outcome).value == 0xab'2345'6789);
  CHECK(std::holds_alternative<Resume>(service.complete_msr(std::nullopt)));
  answered(1, 0x8000030d);
}

TEST_CASE_METHOD(Fixture, "a hypercall may go to user space, whose answer is RAX") {
  hypervisor.call_exits = true;
  ask(kExitVmmcall);
  rax(12);
  page.rbx = 0x5000;
  page.valid.set(Field::kRbx);
  page.cpl = 0;
  page.valid.set(Field::kCpl);
  rcx(3);
  const Outcome outcome = service.vmgexit();
  REQUIRE(std::holds_alternative<HypercallExit>(outcome));
  CHECK(std::get<HypercallExit>(outcome).call.rax == 12);
  CHECK(std::get<HypercallExit>(outcome).call.rbx == 0x5000);
  CHECK(std::get<HypercallExit>(outcome).call.rcx == 3);
  CHECK(std::holds_alternative<Resume>(service.complete_hypercall(static_cast<std::uint64_t>(-22))));
  answered(0, 0);
  CHECK(static_cast<std::int64_t>(page.rax) == -22);
}

TEST_CASE_METHOD(Fixture, "a port access goes to user space and its result into RAX") {
  const IoAccess in{.port = 0x3fd, .in = true, .size = 1};
  ask(kExitIoio, encode(in));
  rax(0x11223344'55667788);
  Outcome outcome = service.vmgexit();
  REQUIRE(std::holds_alternative<PortExit>(outcome));
  const PortAccess access = std::get<PortExit>(outcome).access;
  CHECK(access.port == 0x3fd);
  CHECK(access.in);
  CHECK(access.count == 1);
  REQUIRE(access.data.size() == 1);
  access.data[0] = std::byte{0x60};
  CHECK_FALSE(page.valid.has(Field::kExitInfo1));  // no answer yet
  CHECK(std::holds_alternative<Resume>(service.complete()));
  CHECK(page.rax == 0x11223344'55667760);

  ask(kExitIoio, encode(IoAccess{.port = 0xcfc, .in = true, .size = 4}));
  rax(~0ull);
  outcome = service.vmgexit();
  REQUIRE(std::holds_alternative<PortExit>(outcome));
  store(std::get<PortExit>(outcome).access.data.data(), std::uint32_t{0x12378086});
  (void)service.complete();
  CHECK(page.rax == 0x12378086);

  ask(kExitIoio, encode(IoAccess{.port = 0x3f8, .size = 2}));
  rax(0xffff4142);
  outcome = service.vmgexit();
  REQUIRE(std::holds_alternative<PortExit>(outcome));
  CHECK(load<std::uint16_t>(std::get<PortExit>(outcome).access.data.data()) == 0x4142);
}

TEST_CASE_METHOD(Fixture, "a port of the hypervisor's own never leaves") {
  hypervisor.own_port = true;
  ask(kExitIoio, encode(IoAccess{.port = 0x40, .in = true}));
  CHECK(resumes());
  answered(0, 0);
  CHECK(page.rax == 0xa5);
}

TEST_CASE_METHOD(Fixture, "string output comes from the scratch area in chunks, as it was at the exit") {
  constexpr std::size_t kSize = 5000;
  for (std::size_t i = 0; i < kSize; ++i) hypervisor.memory[0x8000 + i] = static_cast<std::byte>(i % 251);
  ask(kExitIoio, encode(IoAccess{.port = 0x402, .string = true, .rep = true, .size = 1}), kSize);
  scratch(0x8000);
  Outcome outcome = service.vmgexit();
  REQUIRE(std::holds_alternative<PortExit>(outcome));
  PortAccess access = std::get<PortExit>(outcome).access;
  CHECK(access.count == 4096);
  std::fill(hypervisor.memory.begin() + 0x8000, hypervisor.memory.begin() + 0xa000, std::byte{0});
  outcome = service.complete();
  REQUIRE(std::holds_alternative<PortExit>(outcome));
  access = std::get<PortExit>(outcome).access;
  CHECK(access.count == kSize - 4096);
  CHECK(access.data[0] == static_cast<std::byte>(4096 % 251));
  CHECK(std::holds_alternative<Resume>(service.complete()));
  answered(0, 0);
}

TEST_CASE_METHOD(Fixture, "string input ends up in the shared buffer") {
  ask(kExitIoio, encode(IoAccess{.port = 0x511, .in = true, .string = true, .rep = true, .size = 1}), 16);
  scratch(kPage + 0x800 + 2032 - 16);
  const Outcome outcome = service.vmgexit();
  REQUIRE(std::holds_alternative<PortExit>(outcome));
  const PortAccess access = std::get<PortExit>(outcome).access;
  REQUIRE(access.data.size() == 16);
  std::memcpy(access.data.data(), "sixteen bytes ..", 16);
  CHECK(std::holds_alternative<Resume>(service.complete()));
  CHECK(std::memcmp(page.shared_buffer + 2032 - 16, "sixteen bytes ..", 16) == 0);
}

TEST_CASE_METHOD(Fixture, "a scratch area out of bounds is refused") {
  struct Case {
    std::uint64_t at;
    std::uint64_t size;
  };
  const Case cases[] = {
      {0, 4},                       // none
      {~0ull - 2, 8},               // wraps
      {kPage + 0x7ff, 4},           // before the buffer
      {kPage + 0xfed, 4},           // beyond it
      {kPage + 0x800, 2033},        // longer than it
      {kPage, 4},                   // the page's head
      {0x8000, kScratchLimit + 1},  // too long elsewhere
  };
  for (const Case& c : cases) {
    INFO("at " << std::hex << c.at << " size " << c.size);
    ask(kExitMmioWrite, 0xfee00000, c.size);
    scratch(c.at);
    CHECK(resumes());
    answered(2, 3);
  }
  ask(kExitMmioWrite, 0xfee00000, 4);
  scratch(kMemoryBytes - 2);  // runs out of memory: KVM_RUN fails
  const Outcome outcome = service.vmgexit();
  REQUIRE(std::holds_alternative<Failed>(outcome));
  CHECK(std::get<Failed>(outcome).why == RunFailure::kFault);
}

TEST_CASE_METHOD(Fixture, "MMIO goes out in pieces of eight bytes, ascending") {
  ask(kExitMmioRead, 0xfed40000, 12);
  scratch(kPage + 0x800);
  Outcome outcome = service.vmgexit();
  REQUIRE(std::holds_alternative<MmioExit>(outcome));
  MmioAccess access = std::get<MmioExit>(outcome).access;
  CHECK(access.gpa == Gpa(0xfed40000));
  CHECK_FALSE(access.write);
  REQUIRE(access.data.size() == 8);
  std::fill(access.data.begin(), access.data.end(), std::byte{0xff});
  outcome = service.complete();
  REQUIRE(std::holds_alternative<MmioExit>(outcome));
  access = std::get<MmioExit>(outcome).access;
  CHECK(access.gpa == Gpa(0xfed40008));
  REQUIRE(access.data.size() == 4);
  std::fill(access.data.begin(), access.data.end(), std::byte{0xee});
  CHECK(std::holds_alternative<Resume>(service.complete()));
  CHECK(load<std::uint64_t>(page.shared_buffer) == ~0ull);
  CHECK(load<std::uint32_t>(page.shared_buffer + 8) == 0xeeeeeeee);

  hypervisor.own_mmio = true;
  ask(kExitMmioRead, 0xfee00030, 4);
  scratch(kPage + 0x800);
  CHECK(resumes());
  CHECK(load<std::uint32_t>(page.shared_buffer) == 0x77777777);
}

TEST_CASE("version 2 limits MMIO to eight bytes") {
  Hypervisor hypervisor;
  Service service({.max_version = 2}, hypervisor);
  Page& page = hypervisor.page();
  page.exit_code = kExitMmioRead;
  page.exit_info_2 = 9;
  page.scratch = kPage + 0x800;
  for (Field field : {Field::kExitCode, Field::kExitInfo1, Field::kExitInfo2, Field::kScratch}) page.valid.set(field);
  CHECK(std::holds_alternative<Resume>(service.vmgexit()));
  CHECK(page.exit_info_1 == 2);
  CHECK(page.exit_info_2 == 5);
}

TEST_CASE("version 2 wants the scratch area in the GHCB") {
  Hypervisor hypervisor;
  const auto outside = [&](std::uint16_t version) {
    Service service({.max_version = version}, hypervisor);
    Page& page = hypervisor.page();
    page.exit_code = kExitMmioWrite;
    page.exit_info_2 = 8;
    page.scratch = kPage + 0x1000;
    for (Field field : {Field::kExitCode, Field::kExitInfo1, Field::kExitInfo2, Field::kScratch}) page.valid.set(field);
    return std::holds_alternative<Resume>(service.vmgexit());
  };
  CHECK_FALSE(outside(1));  // goes to user space
  CHECK(outside(2));
  CHECK(hypervisor.page().exit_info_1 == 2);
  CHECK(hypervisor.page().exit_info_2 == 3);
}

TEST_CASE_METHOD(Fixture, "an access of no bytes is done at once, whatever its scratch area") {
  ask(kExitMmioRead, 0xfed00000, 0);
  scratch(0);
  CHECK(resumes());
  answered(0, 0);
  ask(kExitIoio, 0x3f80001, 0);  // no size
  CHECK(resumes());
  answered(0, 0);
  ask(kExitIoio, 0x3f80014, 0);  // no elements
  scratch(0);
  CHECK(resumes());
  answered(0, 0);
}

TEST_CASE_METHOD(Fixture, "the jump table, the NMI's end, the hold, termination") {
  ask(kExitApJumpTable, 0, 0x9f000);
  CHECK(resumes());
  ask(kExitApJumpTable, 1);
  CHECK(resumes());
  answered(0, 0x9f000);

  ask(kExitNmiComplete);
  CHECK(resumes());
  CHECK(hypervisor.nmis_completed == 1);

  ask(kExitApResetHold);
  REQUIRE(std::holds_alternative<Held>(service.vmgexit()));
  service.finish_hold(true);
  answered(0, 1);
  ask(kExitApResetHold);
  REQUIRE(std::holds_alternative<Held>(service.vmgexit()));
  service.finish_hold(false);
  answered(0, 0);

  ask(kExitTerminate, 0x10);
  Outcome outcome = service.vmgexit();
  REQUIRE(std::holds_alternative<Terminated>(outcome));
  CHECK(std::get<Terminated>(outcome).ghcb_msr == kPage);

  ask(kExitUnsupportedEvent, kExitHlt);
  outcome = service.vmgexit();
  REQUIRE(std::holds_alternative<Failed>(outcome));
  CHECK(std::get<Failed>(outcome).why == RunFailure::kInvalid);

  ask(kExitRdtsc);
  outcome = service.vmgexit();
  REQUIRE(std::holds_alternative<Failed>(outcome));
  CHECK(std::get<Failed>(outcome).why == RunFailure::kUnexpectedExit);
}

TEST_CASE_METHOD(Fixture, "VMMCALL, and the events that end in an exception behind the VMGEXIT") {
  ask(kExitVmmcall);
  rax(5);
  page.cpl = 3;
  page.valid.set(Field::kCpl);
  CHECK(resumes());
  CHECK(page.rax == 8);
  ask(kExitRdpmc);
  rcx(0);
  CHECK(resumes());
  answered(0, 0);
  ask(kExitRdtscp);
  CHECK(resumes());
  answered(0, 0);
  // Linux kvm_emulate_rdpmc(), kvm_handle_invalid_op(): not the GHCB's own way of telling.
  REQUIRE(hypervisor.injected.size() == 2);
  CHECK(hypervisor.injected[0] == std::pair(std::uint8_t{13}, std::optional<std::uint32_t>(0)));
  CHECK(hypervisor.injected[1] == std::pair(std::uint8_t{6}, std::optional<std::uint32_t>()));
}

TEST_CASE_METHOD(Fixture, "no request makes the service leave its bounds") {
  // xorshift: any page contents.
  std::uint64_t state = 88172645463325252ull;
  const auto next = [&state] {
    state ^= state << 13;
    state ^= state >> 7;
    return state ^= state << 17;
  };
  const ExitCode codes[] = {kExitIoio, kExitMmioRead, kExitMmioWrite, kExitMsr, kExitCpuid, kExitApJumpTable};
  int exits = 0;
  for (int round = 0; round < 20000; ++round) {
    for (std::size_t i = 0; i < sizeof(Page); i += 8) store(hypervisor.memory.data() + kPage + i, next());
    page.usage = 0;
    page.exit_code = codes[next() % std::size(codes)];
    page.exit_info_2 = next() >> (next() % 64);
    if (next() % 2) page.exit_info_1 &= 0xffff'1ffd;
    page.scratch = next() % 2 ? kPage + 0x700 + next() % 0xa00 : next() % (2 * kMemoryBytes);
    page.valid.word[0] = page.valid.word[1] = ~0ull;
    Outcome outcome = service.vmgexit();
    for (int step = 0;
         step < 20000 && (std::holds_alternative<PortExit>(outcome) || std::holds_alternative<MmioExit>(outcome));
         ++step) {
      ++exits;
      outcome = service.complete();
    }
    CHECK((std::holds_alternative<Resume>(outcome) || std::holds_alternative<Failed>(outcome)));
  }
  CHECK(exits > 1000);
}
