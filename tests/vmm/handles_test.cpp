#include "kvm/handles.hpp"

#include <catch2/catch.hpp>
#include <string>

#include "base/error.hpp"
#include "kvm/failure.hpp"
#include "tests/vmm/scripted_host.hpp"

using namespace sevisor;
using namespace sevisor::kvm;
using sevisor::test::ScriptedHost;

namespace {

template <class Call>
std::string error_of(Call call) {
  try {
    call();
  } catch (const Error& error) {
    CHECK(error.exit_code() == ExitCode::kHostCannot);
    return error.what();
  }
  FAIL("no error");
  return {};
}

bool has(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

}  // namespace

TEST_CASE("handles close their descriptors and unmap run areas, once") {
  ScriptedHost host;
  {
    const Kvm kvm = Kvm::open(host);
    Vm vm = kvm.create_vm();
    Vcpu vcpu = vm.create_vcpu(1);
    const Vcpu moved = std::move(vcpu);
    CHECK(moved.index() == 1);
    CHECK(host.mapped == 1);
    const Vm other = std::move(vm);
    CHECK(host.closed.empty());
  }
  CHECK(host.mapped == 0);
  CHECK(host.closed == std::vector<int>{ScriptedHost::kVmFd, ScriptedHost::kFirstVcpuFd + 1, ScriptedHost::kKvmFd});
}

TEST_CASE("a device that cannot be opened is named, with errno and advice") {
  ScriptedHost host;
  host.open_errors["/dev/kvm"] = EACCES;
  const std::string text = error_of([&] { (void)Kvm::open(host); });
  CHECK(has(text, "/dev/kvm"));
  CHECK(has(text, "EACCES"));
  CHECK(has(text, "group kvm"));
}

TEST_CASE("a KVM of another API version is refused") {
  ScriptedHost host;
  host.answers[KVM_GET_API_VERSION] = [](void*) { return 11; };
  CHECK(has(error_of([&] { (void)Kvm::open(host); }), "11"));
}

TEST_CASE("a failing SEV command tells errno and the firmware's status by name") {
  ScriptedHost host;
  const Vm vm = Kvm::open(host).create_vm();
  host.sev_answers[KVM_SEV_LAUNCH_FINISH] = [](void* argument) {
    static_cast<kvm_sev_cmd*>(argument)->error = 7;
    return -EIO;
  };
  const std::string text = error_of([&] { vm.launch_finish(); });
  CHECK(has(text, "EIO"));
  CHECK(has(text, "POLICY_FAILURE (7)"));
  CHECK(has(text, "--policy"));
}

TEST_CASE("a firmware status of 0 is left out, and one that says 'not called' is told as that") {
  ScriptedHost host;
  const Vm vm = Kvm::open(host).create_vm();
  host.sev_answers[KVM_SEV_ES_INIT] = [](void*) { return -EBUSY; };
  const std::string busy = error_of([&] { vm.sev_es_init(); });
  CHECK(has(busy, "EBUSY"));
  CHECK_FALSE(has(busy, "Secure Processor"));
  CHECK_FALSE(has(busy, "SUCCESS"));
  CHECK(has(busy, "ASIDs"));

  host.sev_answers[KVM_SEV_ES_INIT] = [](void* argument) {
    static_cast<kvm_sev_cmd*>(argument)->error = kSevNoFirmwareCall;
    return -EIO;
  };
  CHECK(has(error_of([&] { vm.sev_es_init(); }), "NO_FW_CALL"));
}

TEST_CASE("SEV commands start with error 0, and LAUNCH_START carries /dev/sev and the policy") {
  ScriptedHost host;
  const Vm vm = Kvm::open(host).create_vm();
  const SevDevice sev = SevDevice::open(host);
  bool seen = false;
  host.sev_answers[KVM_SEV_LAUNCH_START] = [&seen](void* argument) {
    const auto* command = static_cast<const kvm_sev_cmd*>(argument);
    const auto* start = reinterpret_cast<const kvm_sev_launch_start*>(command->data);
    seen = command->error == 0 && command->sev_fd == ScriptedHost::kSevFd && start->policy == 5 && start->handle == 0;
    return 0;
  };
  vm.launch_start(sev, 5);
  CHECK(seen);
}

TEST_CASE("a measurement of another length is refused") {
  ScriptedHost host;
  const Vm vm = Kvm::open(host).create_vm();
  host.sev_answers[KVM_SEV_LAUNCH_MEASURE] = [](void* argument) {
    const auto* command = static_cast<const kvm_sev_cmd*>(argument);
    reinterpret_cast<kvm_sev_launch_measure*>(command->data)->len = 32;
    return 0;
  };
  CHECK(has(error_of([&] { (void)vm.launch_measure(); }), "32 bytes"));
}

TEST_CASE("supported CPUID leaves are read, however many the host claims to have written") {
  ScriptedHost host;
  const Kvm kvm = Kvm::open(host);
  host.answers[KVM_GET_SUPPORTED_CPUID] = [](void* argument) {
    auto* table = static_cast<kvm_cpuid2*>(argument);
    table->entries[0].function = 0x8000001f;
    table->entries[0].ebx = 51;
    table->nent = 1;
    return 0;
  };
  const CpuidTable table = kvm.supported_cpuid();
  REQUIRE(table.size() == 1);
  CHECK(table[0].ebx == 51);
  host.answers[KVM_GET_SUPPORTED_CPUID] = [](void* argument) {
    static_cast<kvm_cpuid2*>(argument)->nent = 100000;
    return 0;
  };
  CHECK(kvm.supported_cpuid().size() == 256);
}

TEST_CASE("messages of interrupts are routed and sent") {
  ScriptedHost host;
  const Vm vm = Kvm::open(host).create_vm();
  std::vector<kvm_irq_routing_entry> routed;
  host.answers[KVM_SET_GSI_ROUTING] = [&](void* argument) {
    const auto* routing = static_cast<const kvm_irq_routing*>(argument);
    for (unsigned i = 0; i < routing->nr; ++i) routed.push_back(routing->entries[i]);
    return 0;
  };
  const MsiRoute routes[] = {{.gsi = 4, .address = 0x1'fee0'3004, .data = 0xc131}, {.gsi = 9}};
  vm.set_msi_routes(routes);
  REQUIRE(routed.size() == 2);
  CHECK(routed[0].gsi == 4);
  CHECK(routed[0].type == KVM_IRQ_ROUTING_MSI);
  CHECK(routed[0].u.msi.address_hi == 1);
  CHECK(routed[0].u.msi.address_lo == 0xfee03004);
  CHECK(routed[0].u.msi.data == 0xc131);
  CHECK(routed[1].gsi == 9);
  host.answers[KVM_SET_GSI_ROUTING] = [](void*) { return -EINVAL; };
  CHECK(has(error_of([&] { vm.set_msi_routes(routes); }), "KVM_SET_GSI_ROUTING"));

  kvm_msi sent{};
  host.answers[KVM_SIGNAL_MSI] = [&](void* argument) {
    sent = *static_cast<kvm_msi*>(argument);
    return 1;
  };
  CHECK(vm.signal_msi(0x1'fee0'3004, 0x31));
  CHECK(sent.address_hi == 1);
  CHECK(sent.data == 0x31);
  host.answers[KVM_SIGNAL_MSI] = [](void*) { return 0; };
  CHECK_FALSE(vm.signal_msi(0xfee00000, 0x31));
  host.answers[KVM_SIGNAL_MSI] = [](void*) { return -EINVAL; };
  CHECK_FALSE(vm.signal_msi(0xfee00000, 0x31));
}

TEST_CASE("run() returns errno instead of throwing, and the flag for an immediate exit is in the run area") {
  ScriptedHost host;
  const Vm vm = Kvm::open(host).create_vm();
  const Vcpu vcpu = vm.create_vcpu(0);
  CHECK(vcpu.run() == 0);
  host.answers[KVM_RUN] = [](void*) { return -EINTR; };
  CHECK(vcpu.run() == EINTR);
  vcpu.set_immediate_exit(true);
  CHECK(host.run_area[1] == 1);
}
