// KVM_GET_MP_STATE, KVM_SET_MP_STATE. Linux arch/x86/kvm/x86.c kvm_arch_vcpu_ioctl_set_mpstate().
#include "guests.hpp"

using namespace sevisor;
using namespace sevisor::conformance;

namespace {
std::uint32_t state_of(const Rig& rig, unsigned index) {
  kvm_mp_state state{};
  REQUIRE(answer(rig.of_vcpu(index), KVM_GET_MP_STATE, &state) == 0);
  return state.mp_state;
}
int set_state(const Rig& rig, unsigned index, std::uint32_t value) {
  return answer_to(rig.of_vcpu(index), KVM_SET_MP_STATE, kvm_mp_state{value});
}
}  // namespace

TEST_CASE("the first vCPU runs, the others wait") {
  Rig rig(Rig::Chips::kInKernel);
  rig.add_vcpu();
  rig.add_vcpu();
  CHECK(state_of(rig, 0) == KVM_MP_STATE_RUNNABLE);
  CHECK(state_of(rig, 1) == KVM_MP_STATE_UNINITIALIZED);
  for (const std::uint32_t each : {KVM_MP_STATE_RUNNABLE, KVM_MP_STATE_UNINITIALIZED, KVM_MP_STATE_HALTED}) {
    CHECK(set_state(rig, 1, each) == 0);
    CHECK(state_of(rig, 1) == each);
  }
  CHECK(set_state(rig, 1, KVM_MP_STATE_INIT_RECEIVED) == 0);
  for (const std::uint32_t each : {5U, 6U, 7U, 8U, 10U, 99U}) {
    INFO("state " << each);
    CHECK(set_state(rig, 1, each) == -EINVAL);
  }
}

TEST_CASE("without an interrupt controller all run") {
  Rig rig;
  rig.add_vcpu();
  rig.add_vcpu();
  CHECK(state_of(rig, 1) == KVM_MP_STATE_RUNNABLE);
  CHECK(set_state(rig, 1, KVM_MP_STATE_RUNNABLE) == 0);
  for (const std::uint32_t each : {KVM_MP_STATE_UNINITIALIZED, KVM_MP_STATE_INIT_RECEIVED, KVM_MP_STATE_HALTED}) {
    INFO("state " << each);
    CHECK(set_state(rig, 1, each) == -EINVAL);
  }
}

TEST_CASE("vCPUs: each number once") {
  Rig rig;
  rig.add_vcpu();
  CHECK(answer_value(rig.of_vm(), KVM_CREATE_VCPU, 0) == -EEXIST);
  CHECK(answer_value(rig.of_vm(), KVM_CREATE_VCPU, 1ul << 20) == -EINVAL);
}
