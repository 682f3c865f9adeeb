// What a kernel host that cannot run the guest answers, and what the user is told: what was tried, what came back, and
// the next step. The errnos are those of Linux (virt/kvm/kvm_main.c, arch/x86/kvm/svm/sev.c,
// drivers/crypto/ccp/sev-dev.c).
#include <catch2/catch.hpp>
#include <cerrno>
#include <functional>
#include <string>

#include "base/error.hpp"
#include "firmware/image.hpp"
#include "tests/vmm/scripted_host.hpp"
#include "vmm/launch/launch.hpp"
#include "vmm/machine/guest_ram.hpp"
#include "vmm/machine/memory_map.hpp"

using namespace sevisor;
using namespace sevisor::vmm;
using sevisor::test::ScriptedHost;

namespace {

constexpr std::uint64_t kMemory = 64 << 20;

void answer_as_sev_host(ScriptedHost& host) {
  host.answers[KVM_CHECK_EXTENSION] = [](void*) { return 16; };
  sevisor::test::answer_cpuid_with_sev_es(host);
  host.sev_answers[KVM_SEV_LAUNCH_MEASURE] = [](void* argument) {
    reinterpret_cast<kvm_sev_launch_measure*>(static_cast<kvm_sev_cmd*>(argument)->data)->len = kvm::kLaunchMeasureSize;
    return 0;
  };
}

// The firmware was reached and refused.
ScriptedHost::Answer firmware_says(std::uint32_t status) {
  return [status](void* argument) {
    static_cast<kvm_sev_cmd*>(argument)->error = status;
    return -EIO;
  };
}
ScriptedHost::Answer fails(int error_number) {
  return [error_number](void*) { return -error_number; };
}

struct Refusal {
  const char* why;
  std::function<void(ScriptedHost&)> host;
  const char* tried;
  const char* came_back;
  const char* advice;
};

const Refusal kRefusals[] = {
    {"kvm_amd is not loaded, or SVM is off in the BIOS", [](auto& h) { h.open_errors["/dev/kvm"] = ENOENT; },
     "open /dev/kvm", "ENOENT", "'sevisor doctor' tells what this machine lacks"},
    {"the user is not in the group kvm", [](auto& h) { h.open_errors["/dev/kvm"] = EACCES; }, "open /dev/kvm", "EACCES",
     "Join the group kvm"},
    {"kvm_amd.sev=0, or SMEE is off in the BIOS", [](auto& h) { h.answers[KVM_MEMORY_ENCRYPT_OP] = fails(ENOTTY); },
     "encrypt a guest", "ENOTTY", "SEV is off or absent"},
    {"ccp is not loaded, or found no Secure Processor", [](auto& h) { h.open_errors["/dev/sev"] = ENOENT; },
     "open /dev/sev", "ENOENT", "'sevisor doctor' tells what this machine lacks"},
    {"the node /dev/sev is root's", [](auto& h) { h.open_errors["/dev/sev"] = EACCES; }, "open /dev/sev", "EACCES",
     "'sevisor doctor' tells the command"},
    {"kvm_amd.sev_es=0, or the BIOS gives SEV-ES no ASIDs",
     [](auto& h) { h.sev_answers[KVM_SEV_ES_INIT] = fails(ENOTTY); }, "KVM_SEV_ES_INIT", "ENOTTY",
     "a SEV-ES ASID Space Limit above 1"},
    {"all ASIDs are in use", [](auto& h) { h.sev_answers[KVM_SEV_ES_INIT] = fails(EBUSY); }, "KVM_SEV_ES_INIT", "EBUSY",
     "End other SEV-ES guests, or raise the number of SEV-ES ASIDs"},
    {"the platform could not be initialised",
     [](auto& h) { h.sev_answers[KVM_SEV_ES_INIT] = firmware_says(kvm::kSevNoFirmwareCall); }, "KVM_SEV_ES_INIT",
     "NO_FW_CALL", ""},
    {"the platform is in the wrong state", [](auto& h) { h.sev_answers[KVM_SEV_ES_INIT] = firmware_says(1); },
     "KVM_SEV_ES_INIT", "INVALID_PLATFORM_STATE", "SEV-ES is enabled in the BIOS"},
    {"no Secure Processor", [](auto& h) { h.answers[SEV_ISSUE_CMD] = fails(ENODEV); }, "SEV_PLATFORM_STATUS", "ENODEV",
     "'sevisor doctor' tells what this machine lacks"},
    {"the Secure Processor does not answer", [](auto& h) { h.answers[SEV_ISSUE_CMD] = fails(ETIMEDOUT); },
     "SEV_PLATFORM_STATUS", "ETIMEDOUT", "Reset the machine"},
    {"RLIMIT_MEMLOCK", [](auto& h) { h.answers[KVM_MEMORY_ENCRYPT_REG_REGION] = fails(ENOMEM); }, "pin 64 MiB",
     "ENOMEM", "less memory"},
    {"SNP is on, and the firmware has AMD-SB-3023",
     [](auto& h) { h.sev_answers[KVM_SEV_LAUNCH_START] = firmware_says(21); }, "LAUNCH_START", "UNSUPPORTED",
     "Turn SEV-SNP off in the BIOS"},
    {"the policy", [](auto& h) { h.sev_answers[KVM_SEV_LAUNCH_START] = firmware_says(7); }, "LAUNCH_START",
     "POLICY_FAILURE", "Choose another --policy"},
    {"no more guests for the firmware", [](auto& h) { h.sev_answers[KVM_SEV_LAUNCH_START] = firmware_says(23); },
     "LAUNCH_START", "RESOURCE_LIMIT", "End other SEV guests"},
    {"the ASID is another guest's", [](auto& h) { h.sev_answers[KVM_SEV_LAUNCH_START] = firmware_says(12); },
     "LAUNCH_START", "ASID_OWNED", "End other SEV guests"},
    {"no memory to pin for the moment", [](auto& h) { h.sev_answers[KVM_SEV_LAUNCH_UPDATE_DATA] = fails(ENOMEM); },
     "LAUNCH_UPDATE_DATA", "ENOMEM", "Raise the limit on locked memory"},
    {"a hardware fault", [](auto& h) { h.sev_answers[KVM_SEV_LAUNCH_UPDATE_VMSA] = firmware_says(19); },
     "LAUNCH_UPDATE_VMSA", "HWERROR_PLATFORM", "Try again"},
    {"a hardware fault after which nothing is safe",
     [](auto& h) { h.sev_answers[KVM_SEV_LAUNCH_UPDATE_VMSA] = firmware_says(20); }, "LAUNCH_UPDATE_VMSA",
     "HWERROR_UNSAFE", "Reset the machine"},
};

}  // namespace

TEST_CASE("each thing that a kernel host refuses is told with errno and the next step, and leaves nothing behind") {
  const GuestRam ram(make_memory_map(kMemory));
  LaunchConfig config;
  config.policy = 5;
  config.cpu_signature = 0x00800f12;
  config.firmware = {firmware::image(), "built in"};
  for (const Refusal& refusal : kRefusals) {
    INFO(refusal.why);
    ScriptedHost host;
    answer_as_sev_host(host);
    CHECK_NOTHROW(launch(host, ram, config));
    host.closed.clear();
    host.calls.clear();
    refusal.host(host);
    try {
      (void)launch(host, ram, config);
      FAIL("it was launched");
    } catch (const Error& error) {
      INFO(error.what());
      CHECK(error.exit_code() == ExitCode::kHostCannot);
      CHECK(error.tried().find(refusal.tried) != std::string::npos);
      CHECK(error.came_back().find(refusal.came_back) != std::string::npos);
      CHECK(error.advice().find(refusal.advice) != std::string::npos);
    }
    CHECK(host.mapped == 0);
    std::size_t opened = 0;
    for (const std::string& call : host.calls) {
      const bool makes = call.starts_with("open ") || call == "CREATE_VM" || call == "CREATE_VCPU";
      const bool failed = call.starts_with("open ") && host.open_errors.contains(call.substr(5));
      opened += makes && !failed ? 1 : 0;
    }
    CHECK(host.closed.size() == opened);
  }
}
