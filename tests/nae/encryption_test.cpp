// What a host can do to the encrypted memory of a running guest, and what the guest then reads. AMD's documents say
// that memory is encrypted with AES-128 by the guest's key and with a tweak made from the physical address, against
// moving ciphertext (AMD, "AMD Memory Encryption", section "Memory Encryption Behavior"), by C=1 in the guest's page
// tables (APM vol. 2 section 15.34.4), in blocks of 16 bytes (SEV API, 55766, section 2.1: what its commands demand of
// addresses and lengths). There is no integrity check and no protection against replay: that is what SEV-SNP adds (AMD,
// "SEV-SNP: Strengthening VM Isolation with Integrity Protection and More"). Flushes: APM vol. 2 section 15.34.9.
#include <algorithm>
#include <array>
#include <catch2/catch.hpp>
#include <cstring>
#include <sys/mman.h>

#include "base/bytes.hpp"
#include "kvm/abi.hpp"
#include "layout.h"
#include "machine.hpp"

using namespace sevisor;
using namespace sevisor::nae;

namespace {

constexpr std::size_t kBlock = 16;
using PageContent = std::array<std::byte, kPageSize>;

PageContent pattern(unsigned seed) {
  PageContent content;
  for (std::size_t i = 0; i < content.size(); ++i) {
    content[i] = static_cast<std::byte>((i * 31 + seed * 97 + i / 251) & 0xff);
  }
  return content;
}

std::size_t blocks_that_differ(std::span<const std::byte> a, std::span<const std::byte> b) {
  std::size_t count = 0;
  for (std::size_t at = 0; at < kPageSize; at += kBlock) {
    if (!std::ranges::equal(a.subspan(at, kBlock), b.subspan(at, kBlock))) ++count;
  }
  return count;
}
constexpr std::size_t kAllBlocks = kPageSize / kBlock;

// A guest that writes, reads and flushes private pages when it is told to.
class PageGuest {
 public:
  explicit PageGuest(kvm::Host* host = nullptr) : machine_(Program::kPages, {.host = host}) { go_on(); }

  // Linear address of the guest's nth page for tests.
  static std::uint64_t page(unsigned n) { return NAE_PAGES + n * kPageSize; }
  // Its raw bytes.
  [[nodiscard]] std::span<std::byte> raw(unsigned n) const { return machine_.ram().subspan(page(n), kPageSize); }
  [[nodiscard]] const kvm::Vm& vm() const noexcept { return machine_.vm(); }
  [[nodiscard]] std::span<std::byte> ram() const noexcept { return machine_.ram(); }

  void write(std::uint64_t at, const PageContent& content) {
    std::ranges::copy(content, data().begin());
    order(Order::Kind::kWrite, at);
  }
  PageContent read(std::uint64_t at) {
    order(Order::Kind::kRead, at);
    PageContent content;
    std::ranges::copy(data(), content.begin());
    return content;
  }
  void flush(std::uint64_t at) { order(Order::Kind::kFlush, at); }
  void write_through(std::uint64_t at, const PageContent& content) {
    write(at, content);
    flush(at);
  }

 private:
  [[nodiscard]] std::span<std::byte> data() const { return machine_.ram().subspan(NAE_ORDER_DATA, kPageSize); }
  void order(Order::Kind kind, std::uint64_t at) {
    store(machine_.ram().data() + NAE_ORDER, Order{kind, at});
    go_on();
  }
  // Until the guest asks for an order.
  void go_on() {
    REQUIRE(machine_.vcpu(0).run() == 0);
    const kvm_run& run = machine_.vcpu(0).state();
    REQUIRE(run.exit_reason == KVM_EXIT_IO);
    REQUIRE(run.io.port == NAE_ORDER_PORT);
  }

  Machine machine_;
};

PageContent copy_of(std::span<const std::byte> bytes) {
  PageContent content;
  std::ranges::copy(bytes, content.begin());
  return content;
}

}  // namespace

TEST_CASE("equal pages have other ciphertext at another address, and the same at their own") {
  PageGuest guest;
  const PageContent text = pattern(1);
  guest.write_through(PageGuest::page(0), text);
  guest.write_through(PageGuest::page(1), text);
  const PageContent first = copy_of(guest.raw(0));
  // The address is all that tells the blocks apart, so no block of one is a block of the other, or the plaintext.
  CHECK(blocks_that_differ(first, guest.raw(1)) == kAllBlocks);
  CHECK(blocks_that_differ(first, text) == kAllBlocks);
  CHECK(guest.read(PageGuest::page(0)) == text);
  CHECK(guest.read(PageGuest::page(1)) == text);
  guest.write_through(PageGuest::page(0), pattern(2));
  CHECK(blocks_that_differ(first, guest.raw(0)) == kAllBlocks);
  guest.write_through(PageGuest::page(0), text);
  CHECK(blocks_that_differ(first, guest.raw(0)) == 0);
}

TEST_CASE("equal blocks within a page have different ciphertext") {
  PageGuest guest;
  PageContent zeros{};
  guest.write_through(PageGuest::page(0), zeros);
  std::vector<std::array<std::byte, kBlock>> blocks(kAllBlocks);
  std::memcpy(blocks.data(), guest.raw(0).data(), kPageSize);
  std::ranges::sort(blocks);
  CHECK(std::ranges::adjacent_find(blocks) == blocks.end());
}

TEST_CASE("old ciphertext put back at its own address is the old content again") {
  PageGuest guest;
  guest.write_through(PageGuest::page(0), pattern(1));
  const PageContent old = copy_of(guest.raw(0));
  guest.write_through(PageGuest::page(0), pattern(2));
  std::ranges::copy(old, guest.raw(0).begin());
  CHECK(guest.read(PageGuest::page(0)) == pattern(1));
}

TEST_CASE("ciphertext copied to another page is garbage there") {
  PageGuest guest;
  guest.write_through(PageGuest::page(0), pattern(1));
  guest.write_through(PageGuest::page(1), pattern(2));
  std::ranges::copy(guest.raw(0), guest.raw(1).begin());
  const PageContent garbage = guest.read(PageGuest::page(1));
  CHECK(blocks_that_differ(garbage, pattern(1)) == kAllBlocks);
  CHECK(blocks_that_differ(garbage, pattern(2)) == kAllBlocks);
  CHECK(guest.read(PageGuest::page(0)) == pattern(1));
}

TEST_CASE("ciphertext moved within a page is garbage where it comes to lie") {
  PageGuest guest;
  guest.write_through(PageGuest::page(0), pattern(1));
  const auto raw = guest.raw(0);
  std::swap_ranges(raw.begin(), raw.begin() + kBlock, raw.begin() + 8 * kBlock);
  const PageContent seen = guest.read(PageGuest::page(0));
  CHECK(blocks_that_differ(seen, pattern(1)) == 2);
}

TEST_CASE("two pages whose ciphertext is swapped are both garbage") {
  PageGuest guest;
  guest.write_through(PageGuest::page(0), pattern(1));
  guest.write_through(PageGuest::page(1), pattern(2));
  std::ranges::swap_ranges(guest.raw(0), guest.raw(1));
  for (const unsigned n : {0U, 1U}) {
    const PageContent garbage = guest.read(PageGuest::page(n));
    CHECK(blocks_that_differ(garbage, pattern(1)) == kAllBlocks);
    CHECK(blocks_that_differ(garbage, pattern(2)) == kAllBlocks);
  }
}

TEST_CASE("a guest address pointed at other memory shows what that memory holds") {
  // The tweak is from the system-physical address, which nested paging changes under the guest's: nothing but SEV-SNP's
  // reverse map table sees it (APM vol. 2 section 15.36.3).
  const Mapping window = Mapping::anonymous(2 * kPageSize, PROT_READ | PROT_WRITE);
  PageGuest guest;
  const auto map = [&](unsigned first, unsigned second) {
    const auto host_page = [&](unsigned n) { return window.bytes().subspan(n * kPageSize, kPageSize); };
    guest.vm().set_memory_slot(4, Gpa(NAE_WINDOW_GPA), host_page(first));
    guest.vm().set_memory_slot(5, Gpa(NAE_WINDOW_GPA + kPageSize), host_page(second));
  };
  map(0, 1);
  guest.write_through(NAE_WINDOW, pattern(1));
  guest.write_through(NAE_WINDOW + kPageSize, pattern(2));
  guest.vm().set_memory_slot(4, Gpa(NAE_WINDOW_GPA), {});
  guest.vm().set_memory_slot(5, Gpa(NAE_WINDOW_GPA + kPageSize), {});
  map(1, 0);
  CHECK(guest.read(NAE_WINDOW) == pattern(2));
  CHECK(guest.read(NAE_WINDOW + kPageSize) == pattern(1));
}

TEST_CASE("one flipped bit of ciphertext is one wrong block of 16 bytes for the guest") {
  PageGuest guest;
  const PageContent text = pattern(1);
  const std::size_t at = GENERATE(0U, 1000U, kPageSize - 1);
  guest.write_through(PageGuest::page(0), text);
  guest.raw(0)[at] ^= std::byte{0x10};
  const PageContent seen = guest.read(PageGuest::page(0));
  CHECK(blocks_that_differ(seen, text) == 1);
  // The right one, and not by one bit only: the cipher spreads it over the block.
  const std::size_t block = at / kBlock * kBlock;
  std::size_t bytes = 0;
  for (std::size_t i = block; i < block + kBlock; ++i) bytes += seen[i] != text[i];
  CHECK(bytes > kBlock / 2);
}

TEST_CASE("plaintext that the host writes into a private page is garbage for the guest") {
  PageGuest guest;
  guest.write_through(PageGuest::page(0), pattern(1));
  const PageContent planted = pattern(3);
  std::ranges::copy(planted, guest.raw(0).begin());
  const PageContent seen = guest.read(PageGuest::page(0));
  CHECK(blocks_that_differ(seen, planted) == kAllBlocks);
  CHECK(blocks_that_differ(seen, pattern(1)) == kAllBlocks);
}

TEST_CASE("KVM_MEMORY_ENCRYPT_UNREG_REGION writes back what the guest did not flush") {
  // Linux svm/sev.c sev_mem_enc_unregister_region(): WBINVD on all processors.
  PageGuest guest;
  guest.write_through(PageGuest::page(0), pattern(1));
  const PageContent old = copy_of(guest.raw(0));
  guest.write(PageGuest::page(0), pattern(2));
  guest.vm().unregister_encrypted_region(guest.ram());
  CHECK(blocks_that_differ(old, guest.raw(0)) == kAllBlocks);
  CHECK(blocks_that_differ(pattern(2), guest.raw(0)) == kAllBlocks);
  CHECK(guest.read(PageGuest::page(0)) == pattern(2));
}

TEST_CASE("another guest's ciphertext is garbage under this guest's key") {
  // Each guest has a key of its own (SEV API section 2.1), so the same memory at the same address is not the same text.
  const auto host = emulator::make_emulated_host();
  PageGuest one(host.get());
  PageGuest other(host.get());
  one.write_through(PageGuest::page(0), pattern(1));
  other.write_through(PageGuest::page(0), pattern(2));
  std::ranges::copy(one.raw(0), other.raw(0).begin());
  CHECK(blocks_that_differ(other.read(PageGuest::page(0)), pattern(1)) == kAllBlocks);
}
