// Which pages the guest has written. Linux virt/kvm/kvm_main.c kvm_vm_ioctl_get_dirty_log().
#include <array>
#include <sys/mman.h>

#include "base/bytes.hpp"
#include "guests.hpp"

using namespace sevisor;
using namespace sevisor::conformance;

namespace {

constexpr std::uint64_t kAt = Rig::kHole;
constexpr std::size_t kPages = 64;

struct Logged : Rig {
  Logged() {
    load_long_mode(store_and_load_guest());
    REQUIRE(slot(1, kAt, kPages * kPageSize, memory.data(), KVM_MEM_LOG_DIRTY_PAGES) == 0);
  }
  // A store by the guest, which has to be let run from its beginning.
  void store_to(std::uint64_t page) {
    store(ram.data() + 0x2000, kAt + page * kPageSize + 8);
    kvm_regs start = regs();
    start.rip = kCode;
    set_regs(start);
    CHECK(next_report() == 0x1234);
  }
  int get(std::uint64_t& bits, std::uint32_t id = 1) {
    kvm_dirty_log log{};
    log.slot = id;
    log.dirty_bitmap = &bits;
    return answer(of_vm(), KVM_GET_DIRTY_LOG, &log);
  }
  Mapping memory = Mapping::anonymous(kPages * kPageSize, PROT_READ | PROT_WRITE);
};

}  // namespace

TEST_CASE("pages that the guest has written are told once") {
  Logged rig;
  std::uint64_t bits = ~std::uint64_t{0};
  CHECK(rig.get(bits) == 0);
  CHECK(bits == 0);
  rig.store_to(3);
  rig.store_to(17);
  rig.store_to(3);
  CHECK(rig.get(bits) == 0);
  CHECK(bits == (1 << 3 | 1 << 17));
  CHECK(rig.get(bits) == 0);
  CHECK(bits == 0);
  rig.store_to(3);  // again, though it is mapped already
  CHECK(rig.get(bits) == 0);
  CHECK(bits == 1 << 3);
  // What user space writes is not the guest's.
  rig.memory.data()[5 * kPageSize] = std::byte{1};
  CHECK(rig.get(bits) == 0);
  CHECK(bits == 0);
}

TEST_CASE("the log belongs to a slot that wants one") {
  Logged rig;
  std::uint64_t bits = 0;
  std::array<std::uint64_t, 4> many{};
  CHECK(rig.get(many[0], 0) == -ENOENT);  // without the flag
  CHECK(rig.get(bits, 7) == -ENOENT);     // no such slot
  CHECK(rig.get(bits, 1 << 15) == -EINVAL);
  rig.store_to(1);
  REQUIRE(rig.slot(1, kAt, kPages * kPageSize, rig.memory.data()) == 0);  // off
  CHECK(rig.get(bits) == -ENOENT);
  REQUIRE(rig.slot(1, kAt, kPages * kPageSize, rig.memory.data(), KVM_MEM_LOG_DIRTY_PAGES) == 0);
  CHECK(rig.get(bits) == 0);
  CHECK(bits == 0);
}

TEST_CASE("with MANUAL_DIRTY_LOG_PROTECT2 reading and clearing are two calls") {
  Logged rig;
  kvm_clear_dirty_log clear{};
  clear.slot = 1;
  clear.num_pages = kPages;
  std::uint64_t bits = 1 << 3;
  clear.dirty_bitmap = &bits;
  kvm_enable_cap cap{};
  cap.cap = KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2;
  cap.args[0] = 1 << 20;
  CHECK(answer(rig.of_vm(), KVM_ENABLE_CAP, &cap) == -EINVAL);
  cap.args[0] = 1;
  REQUIRE(answer(rig.of_vm(), KVM_ENABLE_CAP, &cap) == 0);
  rig.store_to(3);
  rig.store_to(4);
  std::uint64_t got = 0;
  for (int i = 0; i < 2; ++i) {
    CHECK(rig.get(got) == 0);
    CHECK(got == (1 << 3 | 1 << 4));
  }
  CHECK(answer(rig.of_vm(), KVM_CLEAR_DIRTY_LOG, &clear) == 0);
  CHECK(rig.get(got) == 0);
  CHECK(got == 1 << 4);
  clear.first_page = 3;  // not a multiple of 64
  CHECK(answer(rig.of_vm(), KVM_CLEAR_DIRTY_LOG, &clear) == -EINVAL);
}
