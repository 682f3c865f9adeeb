// KVM_GET_DIRTY_LOG and KVM_CLEAR_DIRTY_LOG. Errnos were read from a live Linux 6.18 kernel.
#include <array>

#include "tests/emulator_kvm/run_fixture.hpp"

using namespace sevisor;
using namespace sevisor::test;
using emulator::RunControls;

namespace {

constexpr std::uint32_t kLog = KVM_MEM_LOG_DIRTY_PAGES;
using Bits = std::array<std::uint64_t, 4>;  // 256 pages

int get(HostFixture& host, std::uint32_t slot, void* bits) {
  kvm_dirty_log request{};
  request.slot = slot;
  request.dirty_bitmap = bits;
  return host.call(host.vm, KVM_GET_DIRTY_LOG, &request);
}
int clear(HostFixture& host, std::uint32_t slot, std::uint64_t first, std::uint32_t count, void* bits) {
  kvm_clear_dirty_log request{};
  request.slot = slot;
  request.num_pages = count;
  request.first_page = first;
  request.dirty_bitmap = bits;
  return host.call(host.vm, KVM_CLEAR_DIRTY_LOG, &request);
}
int manual(HostFixture& host, std::uint64_t options) {
  kvm_enable_cap cap{};
  cap.cap = KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2;
  cap.args[0] = options;
  return host.call(host.vm, KVM_ENABLE_CAP, &cap);
}

}  // namespace

TEST_CASE_METHOD(HostFixture, "dirty logs: errors") {
  Bits bits{};
  CHECK(call(kvm_fd, KVM_CHECK_EXTENSION, 168ul) == 3);
  CHECK(get(*this, 0, &bits) == -ENOENT);
  CHECK(get(*this, 32763, &bits) == -ENOENT);
  CHECK(get(*this, 32764, &bits) == -EINVAL);
  CHECK(get(*this, 0x10000, &bits) == -EINVAL);
  CHECK(clear(*this, 1, 0, 64, &bits) == -ENOENT);
  CHECK(clear(*this, 1, 1, 64, &bits) == -EINVAL);
  CHECK(clear(*this, 32764, 0, 64, &bits) == -EINVAL);
  REQUIRE(slot(0, 0, 100 * 4096, ram.data()) == 0);
  CHECK(get(*this, 0, &bits) == -ENOENT);
  REQUIRE(slot(0, 0, 100 * 4096, ram.data(), kLog) == 0);
  CHECK(get(*this, 0, &bits) == 0);
  CHECK(get(*this, 0, nullptr) == -EFAULT);
  CHECK(clear(*this, 0, 0, 100, &bits) == 0);
  CHECK(clear(*this, 0, 0, 64, &bits) == 0);
  CHECK(clear(*this, 0, 0, 10, &bits) == -EINVAL);
  CHECK(clear(*this, 0, 1, 99, &bits) == -EINVAL);
  CHECK(clear(*this, 0, 64, 36, &bits) == 0);
  CHECK(clear(*this, 0, 64, 37, &bits) == -EINVAL);
  CHECK(clear(*this, 0, 128, 0, &bits) == -EINVAL);
  CHECK(clear(*this, 0, 0, 0, &bits) == 0);
  CHECK(clear(*this, 0, 0, 64, nullptr) == -EFAULT);
  REQUIRE(slot(0, 0, 100 * 4096, ram.data()) == 0);
  CHECK(get(*this, 0, &bits) == -ENOENT);
  for (const std::uint64_t good : {1, 3, 0}) CHECK(manual(*this, good) == 0);
  for (const std::uint64_t bad : {2, 4, 5}) CHECK(manual(*this, bad) == -EINVAL);
  CHECK(call(vm, KVM_GET_DIRTY_LOG) == -EFAULT);
  CHECK(call(vm, KVM_CLEAR_DIRTY_LOG) == -EFAULT);
}

TEST_CASE_METHOD(HostFixture, "a log may start with all pages in it") {
  REQUIRE(manual(*this, 3) == 0);
  REQUIRE(slot(1, 0, 70 * 4096, ram.data(), kLog) == 0);
  Bits bits{};
  CHECK(get(*this, 1, &bits) == 0);
  CHECK(bits == Bits{~std::uint64_t{0}, 0x3f, 0, 0});
  CHECK(get(*this, 1, &bits) == 0);  // not cleared by asking
  CHECK(bits[1] == 0x3f);
  Bits some{0xff, 0, 0, 0};
  CHECK(clear(*this, 1, 0, 64, &some) == 0);
  Bits high{0x3, 0, 0, 0};
  CHECK(clear(*this, 1, 64, 6, &high) == 0);
  CHECK(get(*this, 1, &bits) == 0);
  CHECK(bits == Bits{~std::uint64_t{0xff}, 0x3c, 0, 0});
}

TEST_CASE_METHOD(RunFixture, "what the host writes for a guest is in the log") {
  REQUIRE(slot(0, 0, ram.size(), ram.data(), kLog) == 0);
  Bits bits{};
  REQUIRE(get(*this, 0, &bits) == 0);
  CHECK(bits == Bits{});
  int step = 0;
  set_guest_code(0, [&](Guest& guest, const RunControls&) {
    if (step++ != 0) return exit_with(ghcb::kExitShutdown);
    const emulator::CpuExit exit = ask(guest, ghcb::kExitMmioRead, 0xfee00030, 4);
    page_of(guest).scratch = 0x5ffe;  // crosses a page
    return exit;
  });
  CHECK(run() == 0);
  CHECK(get(*this, 0, &bits) == 0);
  CHECK(bits == Bits{1 << 3 | 1 << 5 | 1 << 6, 0, 0, 0});  // the GHCB, and where its answer goes
  CHECK(get(*this, 0, &bits) == 0);
  CHECK(bits == Bits{});
}
