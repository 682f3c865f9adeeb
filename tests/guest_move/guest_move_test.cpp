// A running Linux guest goes to another VM, and on to the next (KVM_CAP_VM_MOVE_ENC_CONTEXT_FROM): it goes on as if
// nothing had happened, and the VM it left answers EIO to everything. Each case boots Debian's kernel.
#include <catch2/catch.hpp>
#include <fmt/format.h>
#include <iostream>

#include "tests/guest_move/moving_guest.hpp"

using namespace sevisor;
using namespace sevisor::test;

namespace {

constexpr const char* kCheck = "console=ttyS0 panic=-1 sevisor.mode=check";

bool can_run() {
  if (!guest_folder().empty()) return true;
  std::cout << "SKIP: no guest kernel in build/guest; ./dev test downloads one\n";
  return false;
}

// Moves the guest each time that its console shows the next of `points`; then it has to pass its self-check.
void boot_and_move(const GuestSetting& setting, const std::vector<std::string>& points) {
  if (!can_run()) return;
  MovingGuest guest(setting);
  for (const std::string& point : points) {
    const vmm::Outcome stopped = guest.run_until(point);
    INFO("until '" << point << "': " << stopped.code << ", " << stopped.reason << "\n" << guest.console());
    REQUIRE(stopped.code == MovingGuest::kStopped);
    guest.move();
  }
  const vmm::Outcome end = guest.run_until("");
  INFO("after " << points.size() << " moves: " << end.code << ", " << end.reason << "\n" << guest.console());
  REQUIRE(end.code == 0);
  CHECK(guest.console().find("sevisor-self-check: PASS") != std::string::npos);
  CHECK(guest.console().find(fmt::format("{} CPU(s)", setting.vcpus)) != std::string::npos);
}

}  // namespace

constexpr const char* kEarly = "console [ttyS0] enabled";  // before Linux asks for the AP jump table
constexpr const char* kSmp = "smp: Brought up";
constexpr const char* kFirstCheck = "ok    SEV and SEV-ES are active";
constexpr const char* kLateCheck = "ok    SHA-256 of a known string";

TEST_CASE("with one vCPU, in the early kernel, while drivers start, and in user space", "[es_init_1]") {
  boot_and_move({vmm::InitApi::kEsInit, 1, kCheck}, {kEarly, "NET: Registered PF_INET6", kLateCheck});
}

TEST_CASE("with two vCPUs, after the second has come, and in user space", "[es_init_2]") {
  boot_and_move({vmm::InitApi::kEsInit, 2, kCheck}, {kSmp, kFirstCheck});
}

// Linux arch/x86/kvm/svm/sev.c: sev_migrate_from() leaves need_init set, so svm_vcpu_pre_run() refuses, and neither
// KVM_SEV_INIT2 nor anything else clears it.
TEST_CASE("a guest of KVM_SEV_INIT2 moves, and does not run then", "[init2_1]") {
  if (!can_run()) return;
  MovingGuest guest({vmm::InitApi::kInit2, 1, kCheck});
  REQUIRE(guest.run_until("Run /init").code == MovingGuest::kStopped);
  guest.move();
  const vmm::Outcome end = guest.run_until("");
  INFO(end.reason);
  CHECK(end.code != 0);
  CHECK(end.reason.find("EINVAL") != std::string::npos);
}
