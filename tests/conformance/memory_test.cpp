// Memory slots. Linux virt/kvm/kvm_main.c kvm_set_memory_region().
#include <sys/mman.h>

#include "base/bytes.hpp"
#include "guests.hpp"

using namespace sevisor;
using namespace sevisor::conformance;

TEST_CASE("what a memory slot may be") {
  Rig rig;
  std::byte* at = rig.ram.data();
  const auto slots = static_cast<std::uint32_t>(rig.kvm.capability(KVM_CAP_NR_MEMSLOTS));
  CHECK(rig.slot(0, 0, 0x10000, at) == 0);
  CHECK(rig.slot(1, 0x8000, 0x10000, at) == -EEXIST);
  CHECK(rig.slot(1, 0x10000, 0x123, at) == -EINVAL);
  CHECK(rig.slot(1, 0x10800, 0x1000, at) == -EINVAL);
  CHECK(rig.slot(1, 0x10000, 0x1000, at + 1) == -EINVAL);
  CHECK(rig.slot(1, 0x10000, 0x1000, at, 1 << 7) == -EINVAL);
  CHECK(rig.slot(slots, 0x10000, 0x1000, at) == -EINVAL);
  CHECK(rig.slot(1, ~std::uint64_t{0xfff}, 0x2000, at) == -EINVAL);  // wraps
  CHECK(rig.slot(1, 0x10000, 0, at) == -EINVAL);                     // there is none to delete
  CHECK(rig.slot(0, 0, 0x8000, at) == -EINVAL);                      // another size
  CHECK(rig.slot(0, 0, 0x10000, at + 0x10000) == -EINVAL);           // other memory
  CHECK(rig.slot(0, 0, 0x10000, at, KVM_MEM_READONLY) == -EINVAL);   // a slot does not become read-only
  CHECK(rig.slot(0, 0, 0x10000, at, KVM_MEM_LOG_DIRTY_PAGES) == 0);
  CHECK(rig.slot(0, 0x20000, 0x10000, at) == 0);  // it may move
  CHECK(rig.slot(1, 0, 0x10000, at, KVM_MEM_READONLY) == 0);
  CHECK(rig.slot(0, 0x8000, 0x10000, at) == -EEXIST);
  CHECK(rig.slot(1, 0, 0, nullptr) == 0);  // deleting does not repeat the flag
  CHECK(rig.slot(2, 0, 0x10000, at + 0x20000) == 0);
  CHECK(answer_value(rig.of_vm(), KVM_SET_USER_MEMORY_REGION, 0x10) == -EFAULT);
}

TEST_CASE("a write to a read-only slot goes to user space, and a read does not") {
  Rig rig;
  rig.load_long_mode(store_and_load_guest());
  const Mapping rom = Mapping::anonymous(kPageSize, PROT_READ | PROT_WRITE);
  store(rom.data(), std::uint32_t{0xabcd});
  REQUIRE(rig.slot(1, Rig::kHole, kPageSize, rom.data(), KVM_MEM_READONLY) == 0);
  store(rig.ram.data() + 0x2000, Rig::kHole);
  const kvm_run& state = rig.run_to(KVM_EXIT_MMIO);
  CHECK(state.mmio.is_write == 1);
  CHECK(state.mmio.phys_addr == Rig::kHole);
  CHECK(state.mmio.len == 4);
  CHECK(load<std::uint32_t>(reinterpret_cast<const std::byte*>(state.mmio.data)) == 0x1234);
  CHECK(rig.next_report() == 0xabcd);
}

TEST_CASE("memory comes and goes while the guest stands still") {
  Rig rig;
  rig.load_long_mode(store_and_load_guest());
  const Mapping page = Mapping::anonymous(kPageSize, PROT_READ | PROT_WRITE);
  store(rig.ram.data() + 0x2000, Rig::kHole);
  (void)rig.run_to(KVM_EXIT_MMIO);
  REQUIRE(rig.slot(1, Rig::kHole, kPageSize, page.data()) == 0);
  store(page.data(), std::uint32_t{7});
  CHECK(rig.next_report() == 7);  // the store was completed by user space, the load finds memory
}

TEST_CASE("code where there is no memory ends in an internal error") {
  Rig rig;
  rig.load_long_mode(jump_guest());
  store(rig.ram.data() + 0x2000, Rig::kHole);
  const kvm_run& state = rig.run_to(KVM_EXIT_INTERNAL_ERROR);
  CHECK(state.internal.suberror == KVM_INTERNAL_ERROR_EMULATION);
}
