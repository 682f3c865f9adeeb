// The GHCB service facing a hostile guest. The input: GHCB MSR values, and pages that the guest writes before each
// VMGEXIT: requests that could be meant, port accesses first of all, and pages of any bytes.
#include <algorithm>
#include <utility>
#include <vector>

#include "base/bytes.hpp"
#include "check.hpp"
#include "ghcb/hypervisor/service.hpp"
#include "ghcb/msr_protocol.hpp"
#include "input.hpp"

using namespace sevisor;

namespace {

constexpr std::uint64_t kPageAt = 0x2000;
constexpr std::size_t kMemorySize = 0x20000;
constexpr std::size_t kMaxExits = 16;
// A request is over after this many completions: its data is bounded, and each completion takes a byte at least.
constexpr std::size_t kMaxCompletions = ghcb::kScratchLimit + 1;

class Hypervisor final : public ghcb::Environment {
 public:
  bool read_shared(Gpa gpa, std::span<std::byte> out) override {
    if (!holds(gpa, out.size())) return false;
    std::copy_n(memory.begin() + static_cast<std::ptrdiff_t>(gpa.value), out.size(), out.begin());
    return true;
  }
  bool write_shared(Gpa gpa, std::span<const std::byte> in) override {
    if (!holds(gpa, in.size())) return false;
    std::ranges::copy(in, memory.begin() + static_cast<std::ptrdiff_t>(gpa.value));
    return true;
  }
  std::uint64_t ghcb_msr() override { return msr; }
  void set_ghcb_msr(std::uint64_t value) override { msr = value; }
  ghcb::CpuidValues cpuid(std::uint32_t leaf, std::uint32_t sub_leaf, std::optional<std::uint64_t> xcr0) override {
    return {leaf, sub_leaf, static_cast<std::uint32_t>(xcr0.value_or(0)), 0};
  }
  std::optional<std::uint64_t> read_msr(std::uint32_t index) override {
    return (index & 1) != 0 ? std::optional<std::uint64_t>(index) : std::nullopt;
  }
  bool write_msr(std::uint32_t index, std::uint64_t /*value*/) override { return (index & 1) != 0; }
  std::uint64_t hypercall(const ghcb::Hypercall& call) override { return call.rax; }
  bool port(const ghcb::PortAccess& access) override {
    FUZZ_CHECK(access.size == 1 || access.size == 2 || access.size == 4);
    FUZZ_CHECK(access.data.size() == std::size_t{access.size} * access.count);
    return (access.port & 1) != 0;
  }
  bool mmio(const ghcb::MmioAccess& access) override {
    FUZZ_CHECK(!access.data.empty() && access.data.size() <= 8);
    return (access.gpa.value & 0x1000) != 0;
  }
  void inject_exception(std::uint8_t vector, std::optional<std::uint32_t> error_code) override {
    FUZZ_CHECK(vector == ghcb::kVectorGp ? error_code == 0U : vector == ghcb::kVectorUd && !error_code);
  }
  void msr_requested(std::uint64_t value) override { FUZZ_CHECK(ghcb::msr::info(value) != ghcb::msr::kGhcbPage); }
  void msr_answered(std::uint64_t value) override {
    const std::uint64_t info = ghcb::msr::info(value);
    FUZZ_CHECK(info == ghcb::msr::kSevInfoResponse || info == ghcb::msr::kCpuidResponse ||
               info == ghcb::msr::kApResetHoldResponse || info == ghcb::msr::kFeaturesResponse);
  }
  void page_requested(Gpa page, const ghcb::Request* request, const ghcb::Page& /*snapshot*/) override {
    FUZZ_CHECK((request != nullptr) == holds(page, ghcb::kPageBytes));
    asked = request != nullptr;
  }
  // Each request is answered once, with a result that the guest can understand.
  void page_answered(const ghcb::Answer& answer) override {
    FUZZ_CHECK(std::exchange(asked, false));
    FUZZ_CHECK(answer.exit_info_1 <= ghcb::kResultMalformed);
    if (answer.exit_info_1 == ghcb::kResultMalformed) {
      FUZZ_CHECK(answer.exit_info_2 >= 2 && answer.exit_info_2 <= 6);
      const bool known = ghcb::find_nae_event(answer.request.exit_code) != nullptr;
      const auto unsupported = static_cast<std::uint64_t>(ghcb::InputError::kUnsupportedEvent);
      if (answer.exit_info_2 == unsupported) FUZZ_CHECK(!known);
    } else {
      FUZZ_CHECK(!ghcb::validate(answer.request).error || answer.request.exit_code == ghcb::kExitCpuid);
    }
    if (answer.exit_info_1 == ghcb::kResultException) FUZZ_CHECK(answer.exit_info_2 == 0x8000030d);
    FUZZ_CHECK(answer.data.size() <= ghcb::kScratchLimit);
  }
  void nmi_complete() override {}
  std::uint64_t ap_jump_table() override { return jump_table; }
  void set_ap_jump_table(std::uint64_t gpa) override { jump_table = gpa; }

  std::vector<std::byte> memory = std::vector<std::byte>(kMemorySize);
  bool asked = false;
  std::uint64_t msr = kPageAt;
  std::uint64_t jump_table = 0;

 private:
  [[nodiscard]] bool holds(Gpa gpa, std::size_t size) const {
    return gpa.value <= memory.size() && size <= memory.size() - gpa.value;
  }
};

// The guest writes a GHCB: the fields that requests are made of, the rest of the page as the input has it.
void write_page(fuzz::Input& input, Hypervisor& hypervisor) {
  // One byte of valid bits for the common fields keeps requests well-formed often enough to get past the checks.
  static constexpr ghcb::Field kFields[] = {ghcb::Field::kRax,      ghcb::Field::kRbx,       ghcb::Field::kRcx,
                                            ghcb::Field::kRdx,      ghcb::Field::kCpl,       ghcb::Field::kXcr0,
                                            ghcb::Field::kExitCode, ghcb::Field::kExitInfo1, ghcb::Field::kExitInfo2,
                                            ghcb::Field::kScratch};
  auto& page = *reinterpret_cast<ghcb::Page*>(hypervisor.memory.data() + kPageAt);
  page = {};
  const auto missing = input.take<std::uint16_t>();
  for (unsigned i = 0; i < std::size(kFields); ++i) {
    if ((missing >> i & 1) == 0) page.valid.set(kFields[i]);
  }
  const auto code = input.take<std::uint16_t>();
  page.exit_code = (code & 0x8000) != 0 ? 0x80000000 | (code & 0xff) : code & 0x4ff;
  page.exit_info_1 = input.take<std::uint64_t>();
  // A port access of one size, else nearly all IOIO requests would be refused for theirs.
  if ((code & 0x2000) != 0) {
    page.exit_code = ghcb::kExitIoio;
    page.exit_info_1 = (page.exit_info_1 & ~std::uint64_t{0x70}) | 0x10U << (code & 3) % 3;
  }
  page.exit_info_2 = input.take<std::uint64_t>();
  page.rax = input.take<std::uint64_t>();
  page.rcx = input.take<std::uint32_t>();
  page.rdx = input.take<std::uint32_t>();
  const auto scratch = input.take<std::uint64_t>();
  page.scratch = (code & 0x4000) != 0 ? kPageAt + ghcb::kSharedBufferOffset + scratch % 0x900 : scratch;
  page.version = input.take<std::uint8_t>();
  page.usage = input.take<std::uint8_t>() & 1;
  std::ranges::copy(input.bytes(64), reinterpret_cast<std::byte*>(page.shared_buffer));
}

// Any bytes at all: a stream that a seed of the input's starts, with some of the input's own laid over it.
void write_random_page(fuzz::Input& input, Hypervisor& hypervisor) {
  constexpr unsigned kPatches = 8;
  std::uint64_t state = input.take<std::uint64_t>() | 1;
  const auto page = std::span(hypervisor.memory).subspan(kPageAt, ghcb::kPageBytes);
  for (std::byte& byte : page) {
    // xorshift64 (Marsaglia, "Xorshift RNGs", 2003)
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    byte = static_cast<std::byte>(state);
  }
  const auto patches = input.take<std::uint8_t>() % kPatches;
  for (unsigned i = 0; i < patches; ++i) {
    const auto at = input.take<std::uint16_t>() % (page.size() - sizeof(std::uint64_t) + 1);
    store(&page[at], input.take<std::uint64_t>());
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  fuzz::Input input(data, size);
  Hypervisor hypervisor;
  const auto version = static_cast<std::uint16_t>(1 + (input.take<std::uint8_t>() & 1));
  ghcb::Service service({.max_version = version}, hypervisor);
  for (std::size_t exits = 0; exits < kMaxExits && !input.empty(); ++exits) {
    const auto choice = input.take<std::uint8_t>();
    if ((choice & 3) == 0) {
      hypervisor.msr = input.take<std::uint64_t>();
    } else if ((choice & 0x38) == 0x38) {
      hypervisor.msr = (choice & 0x40) != 0 ? input.take<std::uint64_t>() : kPageAt;
      write_random_page(input, hypervisor);
    } else {
      hypervisor.msr = kPageAt;
      write_page(input, hypervisor);
    }
    ghcb::Outcome outcome = service.vmgexit();
    std::size_t completions = 0;
    while (true) {
      if (auto* port = std::get_if<ghcb::PortExit>(&outcome)) {
        FUZZ_CHECK(port->access.data.size() == std::size_t{port->access.size} * port->access.count);
        FUZZ_CHECK(!port->access.data.empty() && port->access.data.size() <= ghcb::kPortChunk);
        // All of it is the service's own: writing to it must harm nothing.
        if (port->access.in) std::ranges::fill(port->access.data, std::byte{0xee});
      } else if (auto* mmio = std::get_if<ghcb::MmioExit>(&outcome)) {
        FUZZ_CHECK(!mmio->access.data.empty() && mmio->access.data.size() <= 8);
        if (!mmio->access.write) std::ranges::fill(mmio->access.data, std::byte{0xee});
      } else {
        break;
      }
      FUZZ_CHECK(++completions <= kMaxCompletions);
      outcome = service.complete();
    }
    if (std::holds_alternative<ghcb::Held>(outcome)) service.finish_hold((choice & 4) != 0);
    if (std::holds_alternative<ghcb::Failed>(outcome) || std::holds_alternative<ghcb::Terminated>(outcome)) break;
  }
  return 0;
}
