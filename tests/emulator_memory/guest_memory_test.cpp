#include "emulator/memory/guest_memory.hpp"

#include <array>
#include <catch2/catch.hpp>
#include <cerrno>
#include <cstring>
#include <string_view>
#include <sys/mman.h>
#include <vector>

using namespace sevisor;
using namespace sevisor::emulator;

namespace {

constexpr std::string_view kSecret = "the guest's secret";
constexpr std::uint32_t kReadOnly = 2;

struct Recorder : PageObserver {
  void page_closed(const std::byte* page) override { closed.push_back(page); }
  void all_pages_closed() override { ++all; }
  std::vector<const std::byte*> closed;
  int all = 0;
};

struct Fixture {
  Mapping ram = Mapping::anonymous(16 * kPageSize, PROT_READ | PROT_WRITE);
  GuestMemory memory;

  Fixture() {
    std::array<std::byte, 16> key{std::byte{1}};
    std::array<std::byte, 16> tweak{std::byte{2}};
    memory.set_key(key, tweak);
    REQUIRE(memory.set_slot(0, 0, Gpa(0), ram.size(), ram.data()) == 0);
  }
  bool raw_has_secret() const {
    return std::string_view(reinterpret_cast<const char*>(ram.data()), ram.size()).find(kSecret) !=
           std::string_view::npos;
  }
  std::byte* open(std::uint64_t gpa, View view) { return memory.open(Gpa(gpa), view).host; }
};

bool holds_secret(const std::byte* at) { return std::memcmp(at, kSecret.data(), kSecret.size()) == 0; }

}  // namespace

TEST_CASE_METHOD(Fixture, "what the guest writes with C=1 is ciphertext in the VMM's mapping") {
  std::byte* page = open(0x3000, View::kPrivate);
  REQUIRE(page != nullptr);
  CHECK(page != ram.data() + 0x3000);
  std::memcpy(page, kSecret.data(), kSecret.size());
  CHECK_FALSE(raw_has_secret());

  memory.write_back(Gpa(0x3000));
  CHECK_FALSE(raw_has_secret());
  CHECK(std::any_of(ram.data() + 0x3000, ram.data() + 0x4000, [](std::byte b) { return b != std::byte{0}; }));

  page = open(0x3000, View::kPrivate);
  CHECK(holds_secret(page));

  std::byte* shared = open(0x3000, View::kShared);
  CHECK(shared == ram.data() + 0x3000);
  CHECK_FALSE(raw_has_secret());
  std::memcpy(shared, kSecret.data(), kSecret.size());
  CHECK(raw_has_secret());
}

TEST_CASE_METHOD(Fixture, "plaintext written with C=0 is garbage with C=1") {
  std::memcpy(open(0x1000, View::kShared), kSecret.data(), kSecret.size());
  CHECK_FALSE(holds_secret(open(0x1000, View::kPrivate)));
  CHECK(holds_secret(open(0x1000, View::kShared)));  // closing an unchanged shadow gives the same bytes back
}

TEST_CASE_METHOD(Fixture, "what the VMM writes below a read-only slot is not lost to a private view of it") {
  REQUIRE(memory.set_slot(0, 0, Gpa(0), 0, ram.data()) == 0);
  REQUIRE(memory.set_slot(0, kReadOnly, Gpa(0), ram.size(), ram.data()) == 0);
  std::byte* raw = ram.data() + 0x1000;
  std::byte* shadow = open(0x1000, View::kPrivate);
  REQUIRE(shadow != nullptr);
  std::memcpy(raw, kSecret.data(), kSecret.size());
  CHECK_FALSE(holds_secret(shadow));
  CHECK(holds_secret(open(0x1000, View::kShared)));

  // Through a slot that can be written the shadow may have changed.
  REQUIRE(memory.set_slot(1, 0, Gpa(0x100000), ram.size(), ram.data()) == 0);
  std::memcpy(open(0x102000, View::kPrivate), kSecret.data(), kSecret.size());
  REQUIRE(open(0x2000, View::kShared) == ram.data() + 0x2000);
  CHECK(holds_secret(open(0x2000, View::kPrivate)));
}

TEST_CASE_METHOD(Fixture, "one view at a time, and the users of the other are told") {
  Recorder recorder;
  memory.add_observer(&recorder);
  std::byte* raw = open(0x2000, View::kShared);
  std::uint8_t* flags = memory.open(Gpa(0x2000), View::kShared).flags;
  CHECK((*flags & kPageRawOpen) != 0);
  std::byte* shadow = open(0x2000, View::kPrivate);
  REQUIRE(recorder.closed == std::vector<const std::byte*>{raw});
  CHECK(*flags == (kPageShadowed | kPageDirty));
  *flags |= kPageHasCode;
  CHECK(open(0x2000, View::kPrivate) == shadow);
  CHECK(recorder.closed.size() == 1);
  CHECK(open(0x2000, View::kShared) == raw);
  REQUIRE(recorder.closed == std::vector<const std::byte*>{raw, shadow});
  CHECK(*flags == kPageRawOpen);
  memory.remove_observer(&recorder);
  (void)open(0x2000, View::kPrivate);
  CHECK(recorder.closed.size() == 2);
}

TEST_CASE_METHOD(Fixture, "ciphertext moved to another page is garbage, put back it is the old data") {
  std::memcpy(open(0x1000, View::kPrivate), kSecret.data(), kSecret.size());
  memory.write_back_all();
  std::array<std::byte, kPageSize> old;
  std::memcpy(old.data(), ram.data() + 0x1000, kPageSize);
  std::memcpy(ram.data() + 0x2000, old.data(), kPageSize);
  CHECK_FALSE(holds_secret(open(0x2000, View::kPrivate)));
  std::memset(open(0x1000, View::kPrivate), 0, kPageSize);
  memory.write_back_all();
  std::memcpy(ram.data() + 0x1000, old.data(), kPageSize);
  CHECK(holds_secret(open(0x1000, View::kPrivate)));
}

TEST_CASE_METHOD(Fixture, "slots over the same host memory are one memory") {
  REQUIRE(memory.set_slot(1, 0, Gpa(0x100000), 4 * kPageSize, ram.data() + 4 * kPageSize) == 0);
  CHECK(open(0x100000, View::kPrivate) == open(0x4000, View::kPrivate));
  std::memcpy(open(0x4000, View::kPrivate), kSecret.data(), kSecret.size());
  CHECK(holds_secret(open(0x100000, View::kPrivate)));
}

TEST_CASE("a slot that overlaps another's host memory in part shares that part") {
  Mapping ram = Mapping::anonymous(8 * kPageSize, PROT_READ | PROT_WRITE);
  GuestMemory memory;
  std::array<std::byte, 16> key{std::byte{1}};
  std::array<std::byte, 16> tweak{std::byte{2}};
  memory.set_key(key, tweak);
  REQUIRE(memory.set_slot(0, 0, Gpa(0x10000), 2 * kPageSize, ram.data() + 3 * kPageSize) == 0);
  REQUIRE(memory.set_slot(1, 0, Gpa(0x20000), 8 * kPageSize, ram.data()) == 0);
  for (std::uint64_t page = 0; page < 8; ++page) {
    std::byte* host = memory.open(Gpa(0x20000 + page * kPageSize), View::kPrivate).host;
    REQUIRE(host != nullptr);
    std::memset(host, static_cast<int>(page), kPageSize);
  }
  CHECK(*memory.open(Gpa(0x10000), View::kPrivate).host == std::byte{3});
  CHECK(*memory.open(Gpa(0x11000), View::kPrivate).host == std::byte{4});
  CHECK(memory.open(Gpa(0x12000), View::kPrivate).host == nullptr);
}

TEST_CASE_METHOD(Fixture, "a slot taken out and put back keeps its contents") {
  std::memcpy(open(0x1000, View::kPrivate), kSecret.data(), kSecret.size());
  REQUIRE(memory.set_slot(0, 0, Gpa(0), 0, nullptr) == 0);
  CHECK(memory.open(Gpa(0x1000), View::kPrivate).host == nullptr);
  CHECK_FALSE(raw_has_secret());
  REQUIRE(memory.set_slot(5, kReadOnly, Gpa(0x40000), ram.size(), ram.data()) == 0);
  const OpenPage page = memory.open(Gpa(0x41000), View::kPrivate);
  CHECK(holds_secret(page.host));
  CHECK(page.read_only);
}

TEST_CASE_METHOD(Fixture, "slots are refused as the kernel refuses them") {
  std::byte* host = ram.data();
  struct Case {
    std::uint32_t slot, flags;
    std::uint64_t gpa, size;
    std::byte* at;
    int answer;
  };
  const Case cases[] = {
      {1, 0, 0x1000, 0x1000, host, -EEXIST},          // overlap
      {1, 0, 0x100800, 0x1000, host, -EINVAL},        // unaligned address
      {1, 0, 0x100000, 0x800, host, -EINVAL},         // unaligned size
      {1, 0, 0x100000, 0x1000, host + 16, -EINVAL},   // unaligned host address
      {1, 4, 0x100000, 0x1000, host, -EINVAL},        // unknown flag
      {32764, 0, 0x100000, 0x1000, host, -EINVAL},    // no such slot number
      {1, 0, 0x100000, 0, host, -EINVAL},             // deletes what is not there
      {1, 0, ~0xfffull, 0x2000, host, -EINVAL},       // wraps
      {1, 0, 1ull << 48, 0x1000, host, -EINVAL},      // beyond MAXPHYADDR
      {0, 0, 0, 0x1000, host, -EINVAL},               // resize
      {0, 0, 0, ram.size(), host + 0x1000, -EINVAL},  // other host memory
      {0, kReadOnly, 0, ram.size(), host, -EINVAL},   // read-only toggled
      {0, 1, 0, ram.size(), host, 0},                 // dirty logging on
      {0, 1, 0x200000, ram.size(), host, 0},          // moved
      {1, 0, 0, 0x1000, host, 0},                     // where it was
  };
  for (const Case& c : cases) {
    INFO("slot " << c.slot << " gpa " << std::hex << c.gpa << " size " << c.size);
    CHECK(memory.set_slot(c.slot, c.flags, Gpa(c.gpa), c.size, c.at) == c.answer);
  }
}

TEST_CASE_METHOD(Fixture, "the Secure Processor encrypts in place, at 16-byte granularity") {
  std::byte* at = ram.data() + 0x1ff0;  // crosses a page
  std::memset(ram.data() + 0x1000, 0x5a, 0x2000);
  std::memcpy(at, kSecret.data(), kSecret.size());
  memory.encrypt_host(at, 32);
  CHECK_FALSE(raw_has_secret());
  CHECK(at[-1] == std::byte{0x5a});
  CHECK(at[32] == std::byte{0x5a});
  std::array<std::byte, 32> back{};
  memory.decrypt_host(at, back);
  CHECK(holds_secret(back.data()));
  std::byte* first = open(0x1000, View::kPrivate);
  CHECK(std::memcmp(first + 0xff0, kSecret.data(), 16) == 0);
  // With the private view open, it is what DBG_DECRYPT shows.
  first[0xff0] = std::byte{'T'};
  memory.decrypt_host(at, back);
  CHECK(back[0] == std::byte{'T'});
  memory.store_private(at, std::as_bytes(std::span(kSecret.data(), 16)));
  CHECK(std::memcmp(open(0x1000, View::kPrivate) + 0xff0, kSecret.data(), 16) == 0);
}

TEST_CASE("memory encrypted before it has a slot is the guest's afterwards") {
  Mapping ram = Mapping::anonymous(4 * kPageSize, PROT_READ | PROT_WRITE);
  GuestMemory memory;
  std::array<std::byte, 16> key{std::byte{1}};
  std::array<std::byte, 16> tweak{std::byte{2}};
  memory.set_key(key, tweak);
  std::memcpy(ram.data() + kPageSize, kSecret.data(), kSecret.size());
  memory.encrypt_host(ram.data() + kPageSize, 2 * kPageSize);
  REQUIRE(memory.set_slot(0, 0, Gpa(0xfffff000 - 3 * kPageSize), ram.size(), ram.data()) == 0);
  CHECK(holds_secret(memory.open(Gpa(0xfffff000 - 2 * kPageSize), View::kPrivate).host));
}

TEST_CASE_METHOD(Fixture, "a guest may end after its memory has gone") {
  std::memcpy(open(0x1000, View::kPrivate), kSecret.data(), kSecret.size());
  ram.reset();
  memory.clear_key();
}

TEST_CASE("without a key there is one view") {
  Mapping ram = Mapping::anonymous(kPageSize, PROT_READ | PROT_WRITE);
  GuestMemory memory;
  REQUIRE(memory.set_slot(0, 0, Gpa(0), ram.size(), ram.data()) == 0);
  CHECK(memory.open(Gpa(0), View::kPrivate).host == ram.data());
}

TEST_CASE_METHOD(Fixture, "shared reads and writes cross pages and stop at the slot's end") {
  std::array<std::byte, 8> data{std::byte{1}, std::byte{2}, std::byte{3}, std::byte{4}};
  REQUIRE(memory.write_shared(Gpa(0x1ffe), data));
  std::array<std::byte, 8> back{};
  REQUIRE(memory.read_shared(Gpa(0x1ffe), back));
  CHECK(back == data);
  CHECK_FALSE(memory.read_shared(Gpa(ram.size() - 4), back));
  CHECK_FALSE(memory.write_shared(Gpa(ram.size()), data));
}

// --- KVM_MEM_LOG_DIRTY_PAGES ---

namespace {

constexpr std::uint32_t kLog = 1;

struct Logged : Fixture {
  Logged() { REQUIRE(memory.set_slot(0, kLog, Gpa(0), ram.size(), ram.data()) == 0); }
  // As the processor writes: through the page's flags.
  void write(std::uint64_t gpa, View view) {
    const OpenPage page = memory.open(Gpa(gpa), view);
    if ((*page.flags & kPageLogged) != 0) memory.note_write(Gpa(gpa));
    page.host[gpa % kPageSize] = std::byte{1};
  }
  [[nodiscard]] bool logged(std::uint64_t gpa) {
    return (*memory.open(Gpa(gpa), View::kPrivate).flags & kPageLogged) != 0;
  }
  std::uint64_t take(std::uint32_t slot = 0, bool clear = true) {
    std::vector<std::uint64_t> pages;
    REQUIRE(memory.get_dirty_log(slot, clear, pages) == 0);
    REQUIRE(pages.size() == 1);
    return pages[0];
  }
};

}  // namespace

TEST_CASE_METHOD(Logged, "a log has the pages that were written to, in either view, until it is taken") {
  CHECK(take() == 0);
  write(0x3008, View::kPrivate);
  write(0x5000, View::kShared);
  const std::byte value[] = {std::byte{7}, std::byte{8}};
  REQUIRE(memory.write_shared(Gpa(0x7fff), value));
  CHECK_FALSE(logged(0x3000));
  CHECK(logged(0x4000));
  CHECK(take(0, false) == 0b1'1010'1000);
  CHECK(take() == 0b1'1010'1000);
  CHECK(take() == 0);
  CHECK(logged(0x3000));
  write(0x3000, View::kPrivate);
  CHECK(take() == 0b1000);
  // The guest's plaintext going to the raw view is no write of its own.
  memory.write_back_all();
  CHECK(take() == 0);
}

TEST_CASE_METHOD(Logged, "whoever keeps a pointer for writing is told when the log is taken") {
  Recorder recorder;
  memory.add_observer(&recorder);
  CHECK(take() == 0);
  CHECK(recorder.all == 0);
  write(0x1000, View::kPrivate);
  CHECK(take() == 2);
  CHECK(recorder.all == 1);
  memory.remove_observer(&recorder);
}

TEST_CASE_METHOD(Logged, "a log begins and ends with the slot's flag, and moves with the slot") {
  write(0x1000, View::kPrivate);
  REQUIRE(memory.set_slot(0, kLog, Gpa(0x100000), ram.size(), ram.data()) == 0);
  write(0x102000, View::kPrivate);
  CHECK(take() == 0b110);
  REQUIRE(memory.set_slot(0, 0, Gpa(0x100000), ram.size(), ram.data()) == 0);
  std::vector<std::uint64_t> pages;
  CHECK(memory.get_dirty_log(0, true, pages) == -ENOENT);
  write(0x101000, View::kPrivate);  // nobody wants to know any more
  CHECK_FALSE(logged(0x101000));
  REQUIRE(memory.set_slot(0, kLog, Gpa(0x100000), ram.size(), ram.data()) == 0);
  CHECK(take() == 0);
  CHECK(logged(0x101000));
}

TEST_CASE_METHOD(Logged, "two slots of the same memory have a log each, of writes through their own addresses") {
  REQUIRE(memory.set_slot(1, kLog, Gpa(0x200000), ram.size(), ram.data()) == 0);
  write(0x201000, View::kPrivate);
  CHECK(logged(0x1000));  // slot 0 has not seen it written
  CHECK(take(0) == 0);
  CHECK(take(1) == 0b10);
  write(0x1000, View::kPrivate);
  write(0x201000, View::kPrivate);
  CHECK_FALSE(logged(0x1000));
  CHECK(take(0) == 0b10);
  CHECK(take(1) == 0b10);
}

TEST_CASE_METHOD(Logged, "a mirror's writes are in its own log alone") {
  GuestMemory mirror;
  REQUIRE(mirror.set_slot(0, kLog, Gpa(0), ram.size(), ram.data()) == 0);
  mirror.share(memory);
  const OpenPage page = mirror.open(Gpa(0x2000), View::kPrivate);
  REQUIRE((*page.flags & kPageLogged) != 0);
  mirror.note_write(Gpa(0x2000));
  CHECK(logged(0x2000));
  CHECK(take() == 0);
  std::vector<std::uint64_t> pages;
  REQUIRE(mirror.get_dirty_log(0, true, pages) == 0);
  CHECK(pages == std::vector<std::uint64_t>{0b100});
}

TEST_CASE_METHOD(Fixture, "logs may start full, and are cleared page by page") {
  memory.set_logs_start_full(true);
  REQUIRE(memory.set_slot(0, kLog, Gpa(0), ram.size(), ram.data()) == 0);
  std::vector<std::uint64_t> pages;
  REQUIRE(memory.get_dirty_log(0, false, pages) == 0);
  CHECK(pages == std::vector<std::uint64_t>{0xffff});
  CHECK((*memory.open(Gpa(0x1000), View::kPrivate).flags & kPageLogged) == 0);
  CHECK(memory.check_log_range(0, 0, 16) == 0);
  CHECK(memory.check_log_range(0, 0, 17) == -EINVAL);
  const std::uint64_t some[] = {0b110};
  memory.clear_dirty_log(0, 0, some);
  REQUIRE(memory.get_dirty_log(0, false, pages) == 0);
  CHECK(pages == std::vector<std::uint64_t>{0xfff9});
  CHECK((*memory.open(Gpa(0x1000), View::kPrivate).flags & kPageLogged) != 0);
}
