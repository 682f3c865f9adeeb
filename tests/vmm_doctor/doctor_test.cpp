#include <catch2/catch.hpp>
#include <cerrno>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "firmware/image.hpp"
#include "tests/vmm/scripted_host.hpp"
#include "vmm/doctor/host_checks.hpp"
#include "vmm/doctor/machine_checks.hpp"

using namespace sevisor;
using namespace sevisor::doctor;
using Catch::Matchers::Contains;
using sevisor::test::ScriptedHost;

namespace {

// An EPYC Milan machine on which everything is as it must be; a test breaks one thing.
struct Epyc {
  std::filesystem::path root;
  std::map<std::uint32_t, CpuidResult> leaves = {
      {0, {0x10, 0x68747541, 0x444d4163, 0x69746e65}},  // "Auth" "cAMD" "enti"
      {1, {0x00a00f11, 0, 0, 0}},                       // family 19h model 01h: Milan
      {0x8000001f, {0x0101fd3f, 51 | 5 << 6, 509, 100}},
  };
  Machine machine;

  Epyc() {
    std::string path = (std::filesystem::temp_directory_path() / "doctor-test.XXXXXX").string();
    REQUIRE(::mkdtemp(path.data()) != nullptr);
    root = path;
    write("proc/cpuinfo",
          "processor\t: 0\nmodel name\t: AMD EPYC 7763 64-Core Processor\nflags\t\t: fpu sme sev sev_es\n");
    write("proc/sys/kernel/osrelease", "6.1.0-13-amd64\n");
    write("sys/module/kvm_amd/parameters/sev", "Y\n");
    write("sys/module/kvm_amd/parameters/sev_es", "Y\n");
    write("sys/module/kvm_amd/parameters/npt", "Y\n");
    write("sys/module/kvm/parameters/mmio_caching", "Y\n");
    write("sys/module/ccp/initstate", "live\n");
    write("sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages", "512\n");
    write("sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages", "256\n");
    write("sys/kernel/mm/transparent_hugepage/enabled", "always [madvise] never\n");
    machine.root = root;
    machine.memlock = UINT64_MAX;
    machine.user = "alice";
    machine.cpuid = [this](std::uint32_t leaf, std::uint32_t) {
      const auto found = leaves.find(leaf);
      return found == leaves.end() ? CpuidResult{} : found->second;
    };
  }
  ~Epyc() { std::filesystem::remove_all(root); }
  Epyc(const Epyc&) = delete;
  Epyc& operator=(const Epyc&) = delete;

  void write(const std::string& path, const std::string& text) const {
    std::filesystem::create_directories((root / path).parent_path());
    std::ofstream(root / path) << text;
  }

  // The first failure, which must be the only one at fault.
  [[nodiscard]] Check failure() const {
    const std::vector<Check> all = {check_processor(machine), check_kernel(machine), check_memory(machine)};
    const Check* first = first_failure(all);
    return first == nullptr ? Check{.name = "none"} : *first;
  }
};

void answer_as_sev_host(ScriptedHost& host) {
  host.answers[KVM_CHECK_EXTENSION] = [](void* number) {
    return reinterpret_cast<std::uintptr_t>(number) == static_cast<std::uintptr_t>(kvm::kCapVmTypes) ? 0xd : 16;
  };
  sevisor::test::answer_cpuid_with_sev_es(host);
  host.answers[SEV_ISSUE_CMD] = [](void* argument) {
    auto* status = reinterpret_cast<sev_user_data_status*>(static_cast<sev_issue_cmd*>(argument)->data);
    *status = {};
    status->api_major = 1;
    status->api_minor = 55;
    status->state = 1;
    status->flags = SEV_STATUS_FLAGS_CONFIG_ES;
    return 0;
  };
  host.sev_answers[KVM_SEV_LAUNCH_MEASURE] = [](void* argument) {
    reinterpret_cast<kvm_sev_launch_measure*>(static_cast<kvm_sev_cmd*>(argument)->data)->len = 48;
    return 0;
  };
}

}  // namespace

TEST_CASE("an EPYC machine as it must be passes") {
  const Epyc epyc;
  CHECK(epyc.failure().name == "none");
  const std::string text = text_of({check_processor(epyc.machine), check_memory(epyc.machine)}, false);
  CHECK_THAT(text, Contains("[ PASS ]   - AMD processor: AMD EPYC 7763 64-Core Processor, EPYC Milan, signature"));
  CHECK_THAT(text, Contains("C-bit: bit 51; guests lose 5 physical address bits"));
  CHECK_THAT(text, Contains("ASIDs for SEV-ES guests: 1 to 99 for SEV-ES, 100 to 509 for plain SEV"));
  CHECK_THAT(text, Contains("SEV-ES: present, with DebugSwap"));
  CHECK_THAT(text, Contains("512 reserved, 256 of them free"));
  CHECK_THAT(text, Contains("transparent huge pages: madvise"));
}

TEST_CASE("each thing that is wrong with a machine is named with its repair") {
  Epyc epyc;
  SECTION("another vendor") {
    epyc.leaves[0] = {0x10, 0x756e6547, 0x6c65746e, 0x49656e69};
    CHECK(epyc.failure().name == "AMD processor");
    CHECK_THAT(epyc.failure().text, Contains("GenuineIntel"));
    CHECK_THAT(epyc.failure().repair, Contains("EPYC"));
    CHECK_THAT(text_of({check_kernel(epyc.machine)}, false), Contains("[ SKIP ]   - modules kvm_amd and ccp"));
  }
  SECTION("a virtual machine") {
    epyc.leaves[1].ecx = 1U << 31;
    epyc.leaves[0x8000001f] = {};
    CHECK(epyc.failure().name == "SEV");
    CHECK_THAT(epyc.failure().repair, Contains("physical"));
    // What follows from it is not told to be repaired.
    std::filesystem::remove_all(epyc.root / "sys/module/ccp");
    CHECK_THAT(text_of({check_kernel(epyc.machine)}, false), Contains("[ SKIP ]   - module ccp"));
    ScriptedHost host;
    host.open_errors["/dev/sev"] = ENOENT;
    CHECK_THAT(text_of({check_host(host, epyc.machine)}, false), Contains("to repair: none: the processor has no SEV"));
  }
  SECTION("a processor before Rome") {
    epyc.leaves[0x8000001f].eax = 0x7;
    CHECK(epyc.failure().name == "SEV-ES");
    CHECK_THAT(epyc.failure().repair, Contains("Rome"));
  }
  SECTION("the BIOS has not enabled it") {
    epyc.write("proc/cpuinfo", "flags\t\t: fpu\n");
    CHECK_THAT(epyc.failure().name, Contains("/proc/cpuinfo"));
    CHECK_THAT(epyc.failure().repair, Contains("SMEE"));
  }
  SECTION("the BIOS gives SEV-ES no ASIDs") {
    epyc.leaves[0x8000001f].edx = 1;
    CHECK(epyc.failure().name == "ASIDs for SEV-ES guests");
    CHECK_THAT(epyc.failure().repair, Contains("ASID Space Limit"));
  }
  SECTION("an old kernel") {
    epyc.write("proc/sys/kernel/osrelease", "5.10.0-28-amd64\n");
    CHECK(epyc.failure().name == "Linux 5.11 or later");
  }
  SECTION("kvm_amd is not loaded") {
    std::filesystem::remove_all(epyc.root / "sys/module/kvm_amd");
    CHECK(epyc.failure().name == "module kvm_amd");
    CHECK_THAT(epyc.failure().repair, Contains("modprobe kvm_amd"));
  }
  SECTION("another module has /dev/kvm") {
    std::filesystem::remove_all(epyc.root / "sys/module/kvm_amd");
    epyc.write("dev/kvm", "");
    CHECK_THAT(epyc.failure().text, Contains("another module's"));
  }
  SECTION("kvm_amd was told not to") {
    epyc.write("sys/module/kvm_amd/parameters/sev_es", "N\n");
    CHECK(epyc.failure().name == "kvm_amd.sev_es");
    CHECK_THAT(epyc.failure().repair, Contains("options kvm_amd sev=1 sev_es=1"));
  }
  SECTION("MMIO caching is off") {
    epyc.write("sys/module/kvm/parameters/mmio_caching", "N\n");
    CHECK(epyc.failure().name == "kvm.mmio_caching");
  }
  SECTION("ccp is not there") {
    std::filesystem::remove_all(epyc.root / "sys/module/ccp");
    CHECK_THAT(epyc.failure().name, Contains("module ccp"));
    epyc.write("dev/sev", "");
    CHECK(epyc.failure().name == "none");
  }
  SECTION("little memory may be locked") {
    epyc.machine.memlock = 8 << 20;
    CHECK(epyc.failure().name == "locked memory");
    CHECK_THAT(epyc.failure().repair, Contains("alice - memlock unlimited"));
    epyc.machine.may_lock_memory = true;
    CHECK(epyc.failure().name == "none");
  }
}

TEST_CASE("joining the group kvm is the advice where it helps") {
  Epyc epyc;
  ScriptedHost host;
  host.open_errors["/dev/kvm"] = EACCES;
  CHECK_THAT(text_of({check_host(host, epyc.machine)}, false), Contains("to repair: sudo usermod -aG kvm alice"));
  epyc.write("dev/kvm", "");  // of no such group, as far as its mode tells
  std::filesystem::permissions(epyc.root / "dev/kvm", std::filesystem::perms(0600));
  CHECK_FALSE(epyc.machine.opens_to_group("dev/kvm", "kvm"));
  CHECK_THAT(text_of({check_host(host, epyc.machine)}, false),
             Contains("to repair: sudo chgrp kvm /dev/kvm && sudo chmod 660 /dev/kvm; sudo usermod -aG kvm alice"));
}

TEST_CASE("what a kernel does not tell is skipped, not failed") {
  Epyc epyc;
  std::filesystem::remove_all(epyc.root / "sys/kernel");
  std::filesystem::remove_all(epyc.root / "sys/module/kvm/parameters");
  std::filesystem::remove_all(epyc.root / "proc");
  CHECK(epyc.failure().name == "none");
  CHECK_THAT(text_of({check_memory(epyc.machine)}, false), Contains("[ SKIP ]   - huge pages of 2 MiB"));
}

TEST_CASE("processors are known by their signature") {
  CHECK(processor_generation(0x00800f12) == "EPYC Naples");
  CHECK(processor_generation(0x00830f10) == "EPYC Rome");
  CHECK(processor_generation(0x00a00f11) == "EPYC Milan");
  CHECK(processor_generation(0x00a10f11) == "EPYC Genoa");
  CHECK(processor_generation(0x00aa0f02) == "EPYC Bergamo or Siena");
  CHECK(processor_generation(0x00b00f21) == "EPYC Turin");
  CHECK(processor_generation(0x00a20f12).empty());  // Ryzen
}

TEST_CASE("a host that runs guests passes, with a dry launch that leaves nothing behind") {
  const Epyc epyc;
  ScriptedHost host;
  answer_as_sev_host(host);
  const Examination found = examine(host, epyc.machine, {firmware::image(), "built in"});
  const std::string text = text_of(found.checks, false);
  INFO(text);
  CHECK(found.can_run);
  CHECK_THAT(text, Contains("init commands: KVM_SEV_ES_INIT, KVM_SEV_INIT2 (VM types 0xd)"));
  CHECK_THAT(text, Contains("API 1.55 build 0, initialised, 0 guests, SEV-ES configured"));
  CHECK_THAT(text, Contains("Dry launch of a guest: KVM_SEV_ES_INIT, launch digest "));
  CHECK(host.mapped == 0);
  const auto json = nlohmann::json::parse(json_of("kernel", found.can_run, found.verdict, found.checks));
  CHECK(json["can_run"] == true);
  CHECK(json["checks"][0]["name"] == "Devices");
  CHECK(json["checks"][0]["status"] == "pass");
  CHECK(json["checks"][0]["checks"][0]["checks"][0]["name"] == "KVM API");
}

TEST_CASE("what a host refuses is named with its repair") {
  const Epyc epyc;
  ScriptedHost host;
  answer_as_sev_host(host);
  const auto failure = [&] {
    const Examination found = examine(host, epyc.machine, {firmware::image(), "built in"});
    CHECK_FALSE(found.can_run);
    const Check* first = first_failure(found.checks);
    REQUIRE(first != nullptr);
    CHECK_THAT(found.verdict, Contains(first->name));
    return *first;
  };
  SECTION("SEV-SNP is on, and the firmware then refuses SEV-ES (Linux 7.2 sev_firmware_supported_vm_types())") {
    host.answers[KVM_CHECK_EXTENSION] = [](void* number) {
      return reinterpret_cast<std::uintptr_t>(number) == static_cast<std::uintptr_t>(kvm::kCapVmTypes) ? 0x15 : 16;
    };
    CHECK(failure().name == "init commands");
    const Examination found = examine(host, epyc.machine, {firmware::image(), "built in"});
    CHECK_THAT(text_of(found.checks, false), Contains("init commands: SEV-SNP is on"));
    CHECK_THAT(text_of(found.checks, false), Contains("turn SEV-SNP off in the BIOS"));
  }
  SECTION("/dev/kvm for others") {
    host.open_errors["/dev/kvm"] = EACCES;
    CHECK(failure().name == "/dev/kvm");
    CHECK(failure().repair == "sudo usermod -aG kvm alice, and log in again");
  }
  SECTION("/dev/sev for root only") {
    host.open_errors["/dev/sev"] = EACCES;
    CHECK(failure().name == "/dev/sev");
    CHECK_THAT(failure().repair, Contains("setfacl -m u:alice:rw /dev/sev"));
  }
  SECTION("no /dev/sev") {
    host.open_errors["/dev/sev"] = ENOENT;
    CHECK_THAT(failure().repair, Contains("modprobe ccp"));
  }
  SECTION("SEV is off") {
    host.answers[KVM_MEMORY_ENCRYPT_OP] = [](void*) { return -ENOTTY; };
    CHECK(failure().name == "encrypted guests");
  }
  SECTION("a dead Secure Processor") {
    host.answers[SEV_ISSUE_CMD] = [](void*) { return -ETIMEDOUT; };
    CHECK(failure().name == "Secure Processor");
  }
  SECTION("no ASID is free") {
    host.sev_answers[KVM_SEV_ES_INIT] = [](void*) { return -EBUSY; };
    CHECK(failure().name == "Dry launch of a guest");
    CHECK_THAT(failure().repair, Contains("ASID"));
  }
}
