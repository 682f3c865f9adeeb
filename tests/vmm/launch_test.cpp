#include "vmm/launch/launch.hpp"

#include <algorithm>
#include <catch2/catch.hpp>
#include <fstream>
#include <iterator>
#include <string>
#include <sys/mman.h>
#include <vector>

#include "base/error.hpp"
#include "sev/encoding.hpp"
#include "tests/vmm/scripted_host.hpp"
#include "vmm/launch/firmware_check.hpp"
#include "vmm/launch/host_ability.hpp"
#include "vmm/machine/memory_map.hpp"

using namespace sevisor;
using namespace sevisor::vmm;
using sevisor::test::ScriptedHost;

namespace {

std::vector<std::byte> firmware(const char* name) {
  std::ifstream file(std::string(SEVISOR_SOURCE_DIR) + "/tests/data/measurement/fw/" + name, std::ios::binary);
  const std::vector<char> chars{std::istreambuf_iterator<char>(file), {}};
  const auto view = std::as_bytes(std::span(chars));
  return {view.begin(), view.end()};
}

void answer_as_sev_host(ScriptedHost& host) {
  host.answers[KVM_CHECK_EXTENSION] = [](void*) { return 16; };
  sevisor::test::answer_cpuid_with_sev_es(host);
  host.answers[SEV_ISSUE_CMD] = [](void* argument) {
    auto* status = reinterpret_cast<sev_user_data_status*>(static_cast<sev_issue_cmd*>(argument)->data);
    status->api_major = 1;
    status->api_minor = 55;
    status->build = 21;
    status->flags = SEV_STATUS_FLAGS_CONFIG_ES;
    return 0;
  };
}

constexpr std::uint64_t kMemory = 64 << 20;

}  // namespace

TEST_CASE("a guest is launched in the kernel's order") {
  ScriptedHost host;
  answer_as_sev_host(host);
  const GuestRam ram(make_memory_map(kMemory));
  const auto image = firmware("synth-highreset.fd");
  const LaunchedGuest guest = launch(host, ram, {5, 3, 0x00800f12, {image, "synth"}});

  const std::vector<std::string> expected = {
      "open /dev/kvm",
      "GET_API_VERSION",
      "CHECK_EXTENSION",
      "GET_SUPPORTED_CPUID",
      "CHECK_EXTENSION",
      "GET_VCPU_MMAP_SIZE",
      "CREATE_VM",
      "SEV probe",
      "open /dev/sev",
      "SEV 1",
      "SEV_ISSUE_CMD",
      "CHECK_EXTENSION",
      "CREATE_IRQCHIP",
      "CREATE_PIT2",
      "SET_USER_MEMORY_REGION",
      "SET_USER_MEMORY_REGION",
      "REG_REGION",
      "REG_REGION",
      "SEV 2",
      "SEV 3",
      "CREATE_VCPU",
      "SET_CPUID2",
      "GET_SREGS",
      "SET_SREGS",
      "SET_REGS",
      "CREATE_VCPU",
      "SET_CPUID2",
      "GET_SREGS",
      "SET_SREGS",
      "SET_REGS",
      "CREATE_VCPU",
      "SET_CPUID2",
      "GET_SREGS",
      "SET_SREGS",
      "SET_REGS",
      "SEV 4",
      "SEV 6",
      "SEV 7",
  };
  CHECK(host.calls == expected);
  CHECK(guest.vcpus.size() == 3);
  CHECK(guest.report.api.minor == 55);
  // As sev-snp-measure has it for this image and three EPYC-v4 vCPUs, in the KVM_SEV_ES_INIT form.
  CHECK(sev::to_hex(guest.report.digest) == "c66dff20fc852de2dd72a5c651176869957f715ea8462d622980b3a3edfb4adb");
}

TEST_CASE("a guest with an IOAPIC of this program has neither PICs nor a PIT in its host, and the same digest") {
  ScriptedHost host;
  answer_as_sev_host(host);
  std::vector<kvm_enable_cap> caps;
  host.answers[KVM_ENABLE_CAP] = [&](void* argument) {
    caps.push_back(*static_cast<kvm_enable_cap*>(argument));
    return 0;
  };
  const GuestRam ram(make_memory_map(kMemory));
  const auto image = firmware("synth-highreset.fd");
  LaunchConfig config{5, 3, 0x00800f12, {image, "synth"}};
  config.irqchip = IrqchipKind::kSplit;
  const LaunchedGuest guest = launch(host, ram, config);
  REQUIRE(caps.size() == 1);
  CHECK(caps[0].cap == KVM_CAP_SPLIT_IRQCHIP);
  CHECK(caps[0].args[0] == 24);
  CHECK(std::ranges::count(host.calls, "CREATE_IRQCHIP") == 0);
  CHECK(std::ranges::count(host.calls, "CREATE_PIT2") == 0);
  CHECK(sev::to_hex(guest.report.digest) == "c66dff20fc852de2dd72a5c651176869957f715ea8462d622980b3a3edfb4adb");
  host.answers[KVM_ENABLE_CAP] = [](void*) { return -EINVAL; };
  CHECK_THROWS_AS(launch(host, ram, config), Error);
}

TEST_CASE("registers make the VMSA that the digest is computed from") {
  ScriptedHost host;
  answer_as_sev_host(host);
  std::vector<kvm_sregs> sregs;
  std::vector<kvm_regs> regs;
  host.answers[KVM_SET_SREGS] = [&](void* argument) {
    sregs.push_back(*static_cast<kvm_sregs*>(argument));
    return 0;
  };
  host.answers[KVM_SET_REGS] = [&](void* argument) {
    regs.push_back(*static_cast<kvm_regs*>(argument));
    return 0;
  };
  host.answers[KVM_GET_SREGS] = [](void* argument) {  // what a host may have there of its own
    static_cast<kvm_sregs*>(argument)->apic_base = 0xfee00900;
    static_cast<kvm_sregs*>(argument)->cr3 = 0x1000;
    return 0;
  };
  const GuestRam ram(make_memory_map(kMemory));
  const auto image = firmware("synth-highreset.fd");
  const LaunchedGuest guest = launch(host, ram, {5, 2, 0x00800f12, {image, "synth"}});

  REQUIRE(sregs.size() == 2);
  CHECK(sregs[0].cs.base == 0xffff0000);
  CHECK(sregs[0].cs.selector == 0xf000);
  CHECK(sregs[0].cs.type == 0xb);
  CHECK(sregs[0].cs.s == 1);
  CHECK(sregs[0].cs.present == 1);
  CHECK(sregs[0].ss.type == 3);
  CHECK(sregs[0].tr.type == 0xb);
  CHECK(sregs[0].tr.s == 0);
  CHECK(sregs[0].ldt.type == 2);
  CHECK(sregs[0].gdt.limit == 0xffff);
  CHECK(sregs[0].cr0 == 0x10);
  CHECK(sregs[0].cr3 == 0);
  CHECK(sregs[0].apic_base == 0xfee00900);
  CHECK(regs[0].rip == 0xfff0);
  CHECK(regs[0].rdx == 0x00800f12);
  CHECK(regs[0].rflags == 2);
  // The AP starts where the footer table says: 0xf2345678.
  CHECK(sregs[1].cs.base == 0xf2340000);
  CHECK(sregs[1].cs.selector == 0xf000);
  CHECK(regs[1].rip == 0x5678);
}

TEST_CASE("firmware lies at the end of the first 4 GiB, writable") {
  ScriptedHost host;
  answer_as_sev_host(host);
  std::vector<kvm_userspace_memory_region> slots;
  host.answers[KVM_SET_USER_MEMORY_REGION] = [&](void* argument) {
    slots.push_back(*static_cast<kvm_userspace_memory_region*>(argument));
    return 0;
  };
  const GuestRam ram(make_memory_map(kMemory));
  const auto image = firmware("synth-full.fd");
  const LaunchedGuest guest = launch(host, ram, {5, 1, 0x00800f12, {image, "synth"}});
  REQUIRE(slots.size() == 2);
  CHECK(slots[0].guest_phys_addr == 0);
  CHECK(slots[0].memory_size == kMemory);
  CHECK(slots[1].guest_phys_addr == 0xfffff000);
  CHECK(slots[1].memory_size == 0x1000);
  CHECK(slots[1].flags == 0);
  CHECK(slots[0].slot != slots[1].slot);
}

TEST_CASE("the flash lies below the firmware, read-only where the host can, and is not encrypted") {
  ScriptedHost host;
  answer_as_sev_host(host);
  const bool read_only = GENERATE(true, false);
  host.answers[KVM_CHECK_EXTENSION] = [read_only](void* argument) {
    return reinterpret_cast<std::uintptr_t>(argument) == KVM_CAP_READONLY_MEM ? int{read_only} : 16;
  };
  std::vector<kvm_userspace_memory_region> slots;
  host.answers[KVM_SET_USER_MEMORY_REGION] = [&](void* argument) {
    slots.push_back(*static_cast<kvm_userspace_memory_region*>(argument));
    return 0;
  };
  std::vector<std::uint64_t> encrypted;
  host.answers[KVM_MEMORY_ENCRYPT_REG_REGION] = [&](void* argument) {
    encrypted.push_back(static_cast<kvm_enc_region*>(argument)->addr);
    return 0;
  };
  const GuestRam ram(make_memory_map(kMemory));
  const auto image = firmware("synth-full.fd");
  const Mapping flash = Mapping::anonymous(0x2000, PROT_READ | PROT_WRITE);
  LaunchConfig config{5, 1, 0x00800f12, {image, "synth"}};
  config.flash = flash.bytes();
  const LaunchedGuest guest = launch(host, ram, config);
  REQUIRE(slots.size() == 3);
  CHECK(slots[2].guest_phys_addr == 0xffffd000);
  CHECK(slots[2].memory_size == 0x2000);
  CHECK(slots[2].flags == (read_only ? KVM_MEM_READONLY : 0));
  CHECK(slots[2].userspace_addr == reinterpret_cast<std::uintptr_t>(flash.data()));
  CHECK(std::ranges::count(encrypted, reinterpret_cast<std::uintptr_t>(flash.data())) == 0);
  CHECK(encrypted.size() == 2);
}

TEST_CASE("what a host cannot do is refused before the launch") {
  ScriptedHost host;
  answer_as_sev_host(host);
  const GuestRam ram(make_memory_map(kMemory));
  const auto image = firmware("synth-full.fd");
  CHECK_THROWS_AS(launch(host, ram, {5, 17, 0x00800f12, {image, "synth"}}), Error);
  CHECK_THROWS_AS(launch(host, ram, {5, 1, 0x00800f12, {firmware("synth-noreset.fd"), "synth"}}), Error);
  CHECK_THROWS_AS(launch(host, ram, {5, 1, 0x00800f12, {firmware("synth-zeroreset.fd"), "synth"}}), Error);
  host.answers[KVM_GET_SUPPORTED_CPUID] = [](void* argument) {
    static_cast<kvm_cpuid2*>(argument)->nent = 0;
    return 0;
  };
  CHECK_THROWS_AS(launch(host, ram, {5, 1, 0x00800f12, {image, "synth"}}), Error);
  CHECK(std::none_of(host.calls.begin(), host.calls.end(), [](const std::string& call) { return call == "SEV 2"; }));
}

TEST_CASE("a launch that fails half-way gives everything back") {
  ScriptedHost host;
  answer_as_sev_host(host);
  host.sev_answers[KVM_SEV_LAUNCH_UPDATE_VMSA] = [](void*) { return -EINVAL; };
  const GuestRam ram(make_memory_map(kMemory));
  const auto image = firmware("synth-full.fd");
  CHECK_THROWS_AS(launch(host, ram, {5, 2, 0x00800f12, {image, "synth"}}), Error);
  CHECK(host.mapped == 0);
  CHECK(host.closed.size() == 5);  // two vCPUs, the VM, /dev/sev, /dev/kvm
}

TEST_CASE("a host is asked whether it has SEV-ES") {
  ScriptedHost host;
  answer_as_sev_host(host);
  CHECK(why_no_sev_es(host) == std::nullopt);

  host.answers[KVM_MEMORY_ENCRYPT_OP] = [](void*) { return -ENOTTY; };
  CHECK(why_no_sev_es(host)->find("SEV is off") != std::string::npos);
  host.answers.erase(KVM_MEMORY_ENCRYPT_OP);
  host.open_errors["/dev/sev"] = ENOENT;
  CHECK(why_no_sev_es(host)->find("/dev/sev") != std::string::npos);
  host.open_errors["/dev/kvm"] = ENOENT;
  CHECK(why_no_sev_es(host)->find("/dev/kvm") != std::string::npos);
}

TEST_CASE("a table of kernel hashes is measured behind the firmware, where the firmware wants it") {
  ScriptedHost host;
  answer_as_sev_host(host);
  std::vector<kvm_sev_launch_update_data> updates;
  host.sev_answers[KVM_SEV_LAUNCH_UPDATE_DATA] = [&](void* argument) {
    const auto* command = static_cast<const kvm_sev_cmd*>(argument);
    updates.push_back(*reinterpret_cast<const kvm_sev_launch_update_data*>(command->data));
    return 0;
  };
  const GuestRam ram(make_memory_map(kMemory));
  const auto image = firmware("synth-full.fd");
  const auto table = sev::make_hashes_table({}, {}, "console=ttyS0");
  const Gpa at = check_hashes_area({image, "synth"}, kMemory);
  LaunchConfig config{5, 1, 0x00800f12, {image, "synth"}};
  const auto without = launch(host, ram, config).report.digest;
  updates.clear();
  config.hashes_table = table;
  const LaunchedGuest guest = launch(host, ram, config);
  REQUIRE(updates.size() == 2);
  const std::span<const std::byte> memory = ram.regions().front().memory.bytes();
  CHECK(updates[1].uaddr == reinterpret_cast<std::uint64_t>(memory.data() + at.value));
  CHECK(updates[1].len == table.size());
  CHECK(std::ranges::equal(memory.subspan(at.value, table.size()), table));
  CHECK(guest.report.digest != without);
  CHECK_THROWS_AS(check_hashes_area({image, "synth"}, at.value + table.size() - 1), Error);
  CHECK_THROWS_AS(check_hashes_area({firmware("synth-highreset.fd"), "synth"}, kMemory), Error);
}

TEST_CASE("the guest's word on shared pages is asked for where the host can pass it on") {
  ScriptedHost host;
  answer_as_sev_host(host);
  host.answers[KVM_CHECK_EXTENSION] = [](void* number) {
    return reinterpret_cast<std::uintptr_t>(number) == KVM_CAP_EXIT_HYPERCALL ? 1 << 12 : 16;
  };
  kvm_enable_cap asked{};
  host.answers[KVM_ENABLE_CAP] = [&](void* argument) {
    asked = *static_cast<kvm_enable_cap*>(argument);
    return 0;
  };
  const GuestRam ram(make_memory_map(kMemory));
  const auto image = firmware("synth-full.fd");
  (void)launch(host, ram, {5, 1, 0x00800f12, {image, "synth"}});
  CHECK(asked.cap == KVM_CAP_EXIT_HYPERCALL);
  CHECK(asked.args[0] == 1 << 12);
}

TEST_CASE("memory that cannot be pinned is told with the limit") {
  ScriptedHost host;
  answer_as_sev_host(host);
  host.answers[KVM_MEMORY_ENCRYPT_REG_REGION] = [](void*) { return -ENOMEM; };
  const GuestRam ram(make_memory_map(kMemory));
  const auto image = firmware("synth-full.fd");
  try {
    (void)launch(host, ram, {5, 1, 0x00800f12, {image, "synth"}});
    FAIL("it was launched");
  } catch (const Error& error) {
    CHECK(error.tried().find("pin 64 MiB") != std::string::npos);
    CHECK(error.came_back().find("ENOMEM") != std::string::npos);
    CHECK(error.advice().find("less memory") != std::string::npos);
  }
}

TEST_CASE("a plain guest is launched without a word of SEV, its firmware read-only") {
  ScriptedHost host;
  answer_as_sev_host(host);
  std::vector<kvm_userspace_memory_region> slots;
  host.answers[KVM_SET_USER_MEMORY_REGION] = [&](void* argument) {
    slots.push_back(*static_cast<kvm_userspace_memory_region*>(argument));
    return 0;
  };
  bool encryption_leaf = false;
  host.answers[KVM_SET_CPUID2] = [&](void* argument) {
    const auto* table = static_cast<const kvm_cpuid2*>(argument);
    for (unsigned i = 0; i < table->nent; ++i) encryption_leaf |= table->entries[i].function == 0x8000001f;
    return 0;
  };
  const GuestRam ram(make_memory_map(kMemory));
  const auto image = firmware("synth-noreset.fd");  // plain guests need no footer table
  LaunchConfig config{0, 2, 0, {image, "synth"}};
  config.confidential = Confidential::kNone;
  const LaunchedGuest guest = launch(host, ram, config);
  CHECK(guest.vcpus.size() == 2);
  CHECK_FALSE(guest.sev);
  CHECK(guest.report.init_api.empty());
  REQUIRE(slots.size() == 2);
  CHECK(slots[0].flags == 0);
  CHECK(slots[1].flags == KVM_MEM_READONLY);
  CHECK_FALSE(encryption_leaf);
  CHECK(std::none_of(host.calls.begin(), host.calls.end(), [](const std::string& call) {
    return call.starts_with("SEV") || call == "REG_REGION" || call == "open /dev/sev";
  }));
}
