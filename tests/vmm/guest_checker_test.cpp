// The checker's rules that need a device or a secret, and what it lets pass. tests/nae has guests for the others.
#include "vmm/trace/guest_checker.hpp"

#include <catch2/catch.hpp>
#include <cstring>

#include "ghcb/ioio.hpp"

using namespace sevisor;
using namespace sevisor::vmm;

namespace {

constexpr std::uint64_t kPrivatePage = 0x5000;
constexpr std::uint64_t kSharedPage = 0x6000;
const kvm::Moment kHere{.time_ns = 1, .vcpu = 1, .rip = 0xfff0};

kvm::MemoryUse use(std::uint64_t at, bool shared, bool write) {
  return {.at = Gpa(at), .size = 8, .shared = shared, .write = write};
}

struct Memory final : devices::GuestDma {
  std::array<std::byte, 4096> page{};
  bool read(Gpa at, std::span<std::byte> to) override {
    if (at.value != kSharedPage || to.size() != page.size()) return false;
    std::memcpy(to.data(), page.data(), to.size());
    return true;
  }
  bool write(Gpa, std::span<const std::byte>) override { return true; }
};

std::vector<std::string> rules_of(const GuestChecker& checker) {
  std::vector<std::string> rules;
  for (const Finding& f : checker.findings()) rules.push_back(f.rule);
  return rules;
}
using Rules = std::vector<std::string>;

}  // namespace

TEST_CASE("a device that moves private memory is found") {
  GuestChecker checker;
  Memory memory;
  CheckedDma dma(memory, &checker);
  std::array<std::byte, 16> bytes{};
  checker.observe(kHere, use(kPrivatePage, false, true));
  checker.observe(kHere, use(kSharedPage, true, true));
  (void)dma.read(Gpa(kSharedPage + 100), bytes);
  (void)dma.write(Gpa(0x900000), bytes);  // never used by the guest
  CHECK(checker.findings().empty());
  // The last byte of the range lies in the private page.
  (void)dma.write(Gpa(kPrivatePage - 15), bytes);
  REQUIRE(rules_of(checker) == Rules{"dma-private"});
  CHECK(checker.findings()[0].page == kPrivatePage);
  (void)dma.read(Gpa(kPrivatePage), bytes);
  CHECK(checker.findings().size() == 2);  // a read is another thing than a write
  (void)dma.read(Gpa(kPrivatePage), std::span<std::byte>());
  (void)dma.read(Gpa(~std::uint64_t{0} - 7), bytes);  // wraps around: none of the guest's
  CHECK(checker.findings().size() == 2);
}

TEST_CASE("a launch secret in shared memory is found, wherever it stands") {
  GuestChecker checker;
  Memory memory;
  std::array<std::byte, 40> secret{};
  for (std::size_t i = 0; i < secret.size(); ++i) secret[i] = static_cast<std::byte>(7 * i + 1);
  checker.observe({}, kvm::PrivateStore{secret});
  checker.observe(kHere, use(kSharedPage, true, true));
  checker.look_for_secrets(memory);
  CHECK(checker.findings().empty());
  std::memcpy(&memory.page[1001], &secret[11], 16);  // a part of it, at an odd place
  checker.look_for_secrets(memory);
  REQUIRE(rules_of(checker) == Rules{"secret-shared"});
  CHECK(checker.findings()[0].page == kSharedPage);

  // In a GHCB, and handed out by a string write: named with the RIP.
  ghcb::Page page{};
  std::memcpy(page.shared_buffer, secret.data(), 20);
  const ghcb::Request request{.exit_code = ghcb::kExitIoio,
                              .exit_info_1 = encode(ghcb::IoAccess{.port = 0x3f8, .string = true}),
                              .scratch = 0x9800};
  checker.observe(kHere, kvm::PageRequest{.page = Gpa(0x9000), .request = request, .snapshot = &page});
  checker.observe(kHere, kvm::PageReply{.page = Gpa(0x9000), .request = request, .data = secret});
  CHECK(checker.findings().size() == 3);
  CHECK(checker.findings().back().rip == kHere.rip);
}

TEST_CASE("what fills memory is no secret") {
  GuestChecker checker;
  Memory memory;
  const std::array<std::byte, 64> zeros{};
  checker.observe({}, kvm::PrivateStore{zeros});
  checker.observe(kHere, use(kSharedPage, true, true));
  checker.look_for_secrets(memory);
  CHECK(checker.findings().empty());
}

TEST_CASE("a page may change its C-bit when it is written first") {
  GuestChecker checker;
  checker.observe(kHere, use(kPrivatePage, false, true));
  checker.observe(kHere, use(kPrivatePage, true, true));  // made shared, written, read
  checker.observe(kHere, use(kPrivatePage, true, false));
  checker.observe(kHere, use(0x7000, false, false));  // never written here: the launch did
  CHECK(checker.findings().empty());
  checker.observe(kHere, use(kPrivatePage, false, false));
  CHECK(rules_of(checker) == Rules{"c-bit-mismatch"});
  CHECK(checker.findings()[0].rip == kHere.rip);
}

TEST_CASE("what the hypervisor left in the GHCB is not the guest's to hide") {
  GuestChecker checker;
  ghcb::Page page{};
  ghcb::Request request{.exit_code = ghcb::kExitCpuid, .rax = 1, .rbx = 2, .rcx = 3, .rdx = 4};
  checker.observe(kHere, kvm::PageReply{.page = Gpa(0x9000), .request = request});
  page.rax = 1;
  page.rbx = 2;
  page.rcx = 3;
  page.rdx = 4;
  const ghcb::Request next{.exit_code = ghcb::kExitWbinvd};
  checker.observe(kHere, kvm::PageRequest{.page = Gpa(0x9000), .request = next, .snapshot = &page});
  CHECK(checker.findings().empty());
  page.rdx = 5;
  page.r12 = 6;
  checker.observe(kHere, kvm::PageRequest{.page = Gpa(0x9000), .request = next, .snapshot = &page});
  CHECK(rules_of(checker) == Rules{"register-exposed", "register-exposed"});
}

TEST_CASE("findings are counted, not repeated, and bounded") {
  GuestChecker checker;
  for (std::uint64_t i = 0; i < 100'000; ++i) {
    checker.observe({.rip = i % 5000}, kvm::MemoryUse{.at = Gpa(0xd0000000), .size = 4, .has_memory = false});
  }
  const auto findings = checker.findings();
  CHECK(findings.size() == 400);
  CHECK(findings[0].count == 20);
}
