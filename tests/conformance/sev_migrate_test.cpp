// The points of the kernel's sev_migrate_tests: KVM_CAP_VM_MOVE_ENC_CONTEXT_FROM and
// KVM_CAP_VM_COPY_ENC_CONTEXT_FROM.
#include <array>
#include <optional>
#include <thread>

#include "sev_rig.hpp"

using namespace sevisor;
using namespace sevisor::conformance;

namespace {

constexpr unsigned kVcpus = 4;

// A VM and its vCPUs, which go in this order's opposite.
struct Guest {
  kvm::Vm vm;
  std::vector<kvm::Vcpu> vcpus = {};
};

struct Contexts : SevHost {
  Guest plain(unsigned vcpus = kVcpus) {
    Guest guest{kvm.create_vm()};
    add_vcpus(guest, vcpus);
    return guest;
  }
  static void add_vcpus(Guest& to, unsigned count) {
    for (unsigned i = 0; i < count; ++i) to.vcpus.push_back(to.vm.create_vcpu(i));
  }
  // Initialised and started, its vCPUs protected if it has ES.
  Guest launched(Kind kind, unsigned vcpus = kVcpus) {
    Guest guest{kvm.create_vm()};
    REQUIRE(init(guest.vm, kind) == 0);
    add_vcpus(guest, vcpus);
    REQUIRE(start(guest.vm, has_es(kind) ? kPolicyEs : 0) == 0);
    if (has_es(kind)) REQUIRE(command(guest.vm, KVM_SEV_LAUNCH_UPDATE_VMSA) == 0);
    return guest;
  }
  Guest mirror_of(const Guest& owner, Kind kind, unsigned vcpus = 1) {
    Guest copy = plain(0);
    REQUIRE(mirror(copy.vm, owner.vm) == 0);
    add_vcpus(copy, vcpus);
    if (has_es(kind)) REQUIRE(command(copy.vm, KVM_SEV_LAUNCH_UPDATE_VMSA) == 0);
    return copy;
  }
};

}  // namespace

TEST_CASE_METHOD(Contexts, "a context moves along three VMs, and what it left is dead", "[sev]") {
  const Kind kind = GENERATE(Kind::kSev, Kind::kSevEs);
  INFO(name_of(kind));
  std::vector<Guest> chain;
  chain.push_back(launched(kind));
  for (int i = 0; i < 3; ++i) {
    chain.push_back(plain());
    REQUIRE(move(chain.back().vm, chain[chain.size() - 2].vm) == 0);
  }
  CHECK(move(chain[0].vm, chain[3].vm) == -EIO);
  for (std::size_t i = 0; i < 3; ++i) {
    CHECK(answer(chain[i].vm.descriptor(), KVM_MEMORY_ENCRYPT_OP) == -EIO);
    CHECK(answer(chain[i].vcpus[0].descriptor(), KVM_RUN) == -EIO);
  }
}

TEST_CASE_METHOD(Contexts, "crosswise moves by three threads come to an end", "[sev]") {
  constexpr int kRounds = 10'000;
  std::array<std::optional<Guest>, 3> guests;
  for (auto& each : guests) each = launched(Kind::kSev, 1);
  std::vector<std::thread> threads;
  for (std::size_t self = 0; self < guests.size(); ++self) {
    threads.emplace_back([&, self] {
      for (std::size_t i = 0; i < kRounds; ++i) (void)move(guests[self]->vm, guests[i % guests.size()]->vm);
    });
  }
  for (std::thread& thread : threads) thread.join();
  SUCCEED();  // no deadlock
}

TEST_CASE_METHOD(Contexts, "what a move refuses", "[sev]") {
  const Guest plain_sev = launched(Kind::kSev);
  const Guest es = launched(Kind::kSevEs);
  const Guest none = plain();
  const Guest without_vcpus = plain(0);
  Guest unprotected{kvm.create_vm()};
  REQUIRE(init(unprotected.vm, Kind::kSevEs) == 0);
  add_vcpus(unprotected, 1);
  CHECK(move(plain_sev.vm, es.vm) == -EINVAL);  // the destination has a context of its own
  CHECK(move(es.vm, plain_sev.vm) == -EINVAL);
  CHECK(move(without_vcpus.vm, es.vm) == -EINVAL);
  CHECK(move(plain(1).vm, unprotected.vm) == -EINVAL);
  CHECK(move(none.vm, plain().vm) == -EINVAL);  // the source has none
  CHECK(move(none.vm, none.vm) == -EINVAL);
}

TEST_CASE_METHOD(Contexts, "a mirror has vCPUs of its own and few commands", "[sev]") {
  const Kind kind = GENERATE(Kind::kSev, Kind::kSevEs);
  INFO(name_of(kind));
  const Guest owner = launched(kind, 1);
  Guest copy = mirror_of(owner, kind, kVcpus);
  for (std::uint32_t id = 0; id <= 102; ++id) {
    if (id == KVM_SEV_LAUNCH_UPDATE_VMSA || id == KVM_SEV_GUEST_STATUS || id == KVM_SEV_DBG_DECRYPT ||
        id == KVM_SEV_DBG_ENCRYPT) {
      continue;
    }
    INFO("command " << id);
    CHECK(command(copy.vm, id) == -EINVAL);
  }
  CHECK(status(copy.vm).policy == (has_es(kind) ? kPolicyEs : 0));
}

TEST_CASE_METHOD(Contexts, "what a mirror refuses", "[sev]") {
  const Guest plain_sev = launched(Kind::kSev);
  const Guest es = launched(Kind::kSevEs);
  const Guest none = plain(0);
  CHECK(mirror(plain_sev.vm, plain_sev.vm) == -EINVAL);
  CHECK(mirror(none.vm, plain(0).vm) == -EINVAL);
  CHECK(mirror(plain(1).vm, plain_sev.vm) == -EINVAL);
  CHECK(mirror(plain_sev.vm, es.vm) == -EINVAL);
  CHECK(mirror(es.vm, plain_sev.vm) == -EINVAL);
}

TEST_CASE_METHOD(Contexts, "owners and mirrors move and go in either order", "[sev]") {
  const Kind kind = GENERATE(Kind::kSev, Kind::kSevEs);
  const bool owner_first = GENERATE(true, false);
  const bool owner_goes_first = GENERATE(true, false);
  INFO(name_of(kind));
  std::optional<Guest> owner = launched(kind, 1);
  std::optional<Guest> copy = mirror_of(*owner, kind);
  std::optional<Guest> new_owner = plain(1);
  std::optional<Guest> new_copy = plain(1);
  if (owner_first) REQUIRE(move(new_owner->vm, owner->vm) == 0);
  REQUIRE(move(new_copy->vm, copy->vm) == 0);
  if (!owner_first) REQUIRE(move(new_owner->vm, owner->vm) == 0);
  CHECK(command(new_copy->vm, KVM_SEV_LAUNCH_FINISH) == -EINVAL);  // a mirror still
  owner.reset();
  copy.reset();
  (owner_goes_first ? new_owner : new_copy).reset();
  (owner_goes_first ? new_copy : new_owner).reset();
  CHECK(launched(kind, 1).vcpus.size() == 1);  // the context was given back
}
