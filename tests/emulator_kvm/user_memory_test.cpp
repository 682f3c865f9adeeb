// Memory of the caller that cannot be pinned as the kernel would: an errno, not a signal. Right answers: Linux
// arch/x86/kvm/svm/sev.c, sev_pin_memory() and its callers; ENOMEM where pages are missing or have not the permission.
#include "emulator/kvm/user_memory.hpp"

#include <array>
#include <sys/mman.h>

#include "base/bytes.hpp"
#include "emulator/kvm/personality.hpp"
#include "tests/emulator_kvm/fixture.hpp"

using namespace sevisor;
using namespace sevisor::test;
using emulator::Pin;
using emulator::user_range_pinnable;

namespace {

// Writable, readable, without any permission, writable, without any; and what is nowhere mapped.
struct Pages {
  Mapping memory = Mapping::anonymous(5 * kPageSize, PROT_READ | PROT_WRITE);
  Pages() {
    ::mprotect(page(1), kPageSize, PROT_READ);
    ::mprotect(page(2), kPageSize, PROT_NONE);
    ::mprotect(page(4), kPageSize, PROT_NONE);
  }
  static constexpr std::uint64_t kNowhere = 0x1000;  // below vm.mmap_min_addr
  [[nodiscard]] std::byte* page(std::size_t number) const { return memory.data() + number * kPageSize; }
  [[nodiscard]] std::uint64_t address(std::size_t number) const {
    return reinterpret_cast<std::uintptr_t>(page(number));
  }
};

struct Guest : HostFixture {
  Pages pages;
  explicit Guest(const emulator::Personality& kernel = emulator::newest_personality()) {
    host = emulator::make_emulated_host({.slice = 1000, .personality = &kernel});
    kvm_fd = host->open("/dev/kvm", O_RDWR);
    sev_fd = host->open("/dev/sev", O_RDWR);
    vm = call(kvm_fd, KVM_CREATE_VM, 0ul);
    REQUIRE(sev(KVM_SEV_ES_INIT) == 0);
    REQUIRE(start(4) == 0);  // debugging allowed
  }
  int region(std::uint64_t address, std::uint64_t size) {
    return call_with(vm, KVM_MEMORY_ENCRYPT_REG_REGION, kvm_enc_region{.addr = address, .size = size});
  }
  int debug(std::uint32_t command, std::uint64_t from, std::uint64_t to) {
    kvm_sev_dbg params{.src_uaddr = from, .dst_uaddr = to, .len = 16};
    return sev(command, &params);
  }
};

}  // namespace

TEST_CASE("what of a range can be pinned") {
  const Pages pages;
  CHECK(user_range_pinnable(pages.page(0), kPageSize, Pin::kWrite));
  CHECK(user_range_pinnable(pages.page(0), 2 * kPageSize, Pin::kRead));
  CHECK_FALSE(user_range_pinnable(pages.page(0), kPageSize + 1, Pin::kWrite));
  CHECK(user_range_pinnable(pages.page(1) + 100, 8, Pin::kRead));
  CHECK_FALSE(user_range_pinnable(pages.page(1), 1, Pin::kWrite));
  CHECK_FALSE(user_range_pinnable(pages.page(1), kPageSize + 1, Pin::kRead));
  CHECK_FALSE(user_range_pinnable(pages.page(2), 1, Pin::kRead));
  CHECK(user_range_pinnable(pages.page(3), kPageSize, Pin::kWrite));
  CHECK_FALSE(user_range_pinnable(pages.page(3), kPageSize + 1, Pin::kWrite));
  CHECK_FALSE(user_range_pinnable(reinterpret_cast<void*>(Pages::kNowhere), 1, Pin::kRead));
  CHECK_FALSE(user_range_pinnable(nullptr, kPageSize, Pin::kRead));
}

TEST_CASE_METHOD(Guest, "LAUNCH_UPDATE_DATA and LAUNCH_SECRET want memory that can be written") {
  CHECK(update(pages.page(0), kPageSize) == 0);
  for (const std::uint64_t at : {pages.address(1), pages.address(2), Pages::kNowhere}) {
    CAPTURE(at);
    CHECK(update(reinterpret_cast<void*>(at), kPageSize) == -ENOMEM);
    kvm_sev_launch_secret secret{};
    secret.guest_uaddr = at;
    secret.guest_len = 16;
    CHECK(sev(KVM_SEV_LAUNCH_SECRET, &secret) == -ENOMEM);
  }
  CHECK(update(pages.page(0), 2 * kPageSize) == -ENOMEM);
}

TEST_CASE_METHOD(Guest, "the debug commands want to read their source and to write their destination") {
  for (const std::uint32_t command : {KVM_SEV_DBG_DECRYPT, KVM_SEV_DBG_ENCRYPT}) {
    CAPTURE(command);
    for (const std::uint64_t at : {pages.address(1), pages.address(2), Pages::kNowhere}) {
      CHECK(debug(command, pages.address(0), at) == -ENOMEM);
    }
    for (const std::uint64_t at : {pages.address(2), Pages::kNowhere}) {
      CHECK(debug(command, at, pages.address(0)) == -ENOMEM);
    }
    CHECK(debug(command, pages.address(1), pages.address(0)) == 0);
  }
}

TEST_CASE_METHOD(Guest, "RECEIVE_UPDATE_DATA and SEND_UPDATE_DATA pin the guest's page") {
  std::array<std::byte, 64> other{};
  const auto address = reinterpret_cast<std::uintptr_t>(other.data());
  for (const std::uint64_t at : {pages.address(2), Pages::kNowhere}) {
    kvm_sev_send_update_data send{};
    send.hdr_uaddr = send.trans_uaddr = address;
    send.hdr_len = send.trans_len = 16;
    send.guest_uaddr = at;
    send.guest_len = 16;
    CHECK(sev(KVM_SEV_SEND_UPDATE_DATA, &send) == -ENOMEM);
  }
  for (const std::uint64_t at : {pages.address(1), pages.address(2), Pages::kNowhere}) {
    kvm_sev_receive_update_data receive{};
    receive.hdr_uaddr = receive.trans_uaddr = address;
    receive.hdr_len = receive.trans_len = 16;
    receive.guest_uaddr = at;
    receive.guest_len = 16;
    CHECK(sev(KVM_SEV_RECEIVE_UPDATE_DATA, &receive) == -ENOMEM);
  }
}

TEST_CASE("a region that can only be read is registered by Linux 7.2 and no older one") {
  for (const emulator::Personality& kernel : emulator::personalities()) {
    INFO(kernel.kernel);
    Guest guest(kernel);
    CHECK(guest.region(guest.pages.address(0), kPageSize) == 0);
    CHECK(guest.region(guest.pages.address(1), kPageSize) == (kernel.kernel == "7.2" ? 0 : -ENOMEM));
    CHECK(guest.region(guest.pages.address(2), kPageSize) == -ENOMEM);
    CHECK(guest.region(guest.pages.address(3), 2 * kPageSize) == -ENOMEM);
  }
}
