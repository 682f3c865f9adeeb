// The recorded launch against the order and contents that the kernel requires: Linux
// Documentation/virt/kvm/x86/amd-memory-encryption.rst, arch/x86/kvm/svm/sev.c.
#include <catch2/catch.hpp>
#include <fmt/format.h>

#include "sev/footer_table.hpp"
#include "tests/vmm_calls/launches.hpp"

using namespace sevisor;
using namespace sevisor::test;
using nlohmann::json;

namespace {

std::string hex(std::uint64_t value) { return fmt::format("{:#x}", value); }

// Whether all of `part` is in `whole`; what is not in `part` is not looked at.
bool has(const json& whole, const json& part) {
  if (!part.is_object()) return whole == part;
  for (const auto& [key, value] : part.items()) {
    if (!whole.contains(key) || !has(whole[key], value)) return false;
  }
  return true;
}

struct Expected {
  std::string call;
  json part = json::object();  // of the record
};

json segment(std::uint64_t selector, std::uint64_t base, int type, int s) {
  return {{"selector", hex(selector)},
          {"base", hex(base)},
          {"limit", "0xffff"},
          {"type", type},
          {"s", s},
          {"dpl", 0},
          {"present", 1},
          {"l", 0},
          {"db", 0},
          {"g", 0}};
}

// The processor's state after reset (AMD APM vol. 2 section 14.1.3), at `address`.
json reset_sregs(std::uint32_t address) {
  const json data = segment(0, 0, 3, 1);
  json sregs = {{"cs", segment(0xf000, address & 0xffff0000, 0xb, 1)},
                {"tr", segment(0, 0, 0xb, 0)},
                {"ldt", segment(0, 0, 2, 0)},
                {"gdt", {{"base", "0x0"}, {"limit", "0xffff"}}},
                {"idt", {{"base", "0x0"}, {"limit", "0xffff"}}},
                {"cr0", "0x10"},
                {"cr2", "0x0"},
                {"cr3", "0x0"},
                {"cr4", "0x0"},
                {"efer", "0x0"}};
  for (const char* name : {"ds", "es", "fs", "gs", "ss"}) sregs[name] = data;
  return {{"request", sregs}};
}

json reset_regs(std::uint32_t address) {
  json regs = {{"rip", hex(address & 0xffff)}, {"rflags", "0x2"}, {"rdx", hex(kSignature)}};
  for (const char* name : {"rax", "rbx", "rcx", "rsi", "rdi", "rsp", "rbp", "r8", "r15"}) regs[name] = "0x0";
  return {{"request", regs}};
}

// A SEV command: `error` is zero before it, so that what is in it afterwards is the firmware's.
json command(std::uint32_t id, const json& data = "0x0", int sev_fd = 0) {
  return {{"request", {{"id", id}, {"error", 0}, {"sev_fd", sev_fd}, {"data", data}}},
          {"answer", {{"error", 0}}},
          {"result", 0}};
}

const json& find(const Records& records, const std::string& call, std::size_t index = 0) {
  for (const json& record : records) {
    if (record["call"] == call && index-- == 0) return record;
  }
  throw std::runtime_error("no such call: " + call);
}

void check_launch(vmm::InitApi api) {
  const Launches launches(2);
  const Records records = launches.record(api);
  const bool init2 = api == vmm::InitApi::kInit2;
  const std::uint32_t ap_address = *sev::parse_footer_table(firmware::image()).ap_reset_address();
  const int sev_fd = find(records, "open /dev/sev")["result"];
  const int kvm_fd = find(records, "open /dev/kvm")["result"];
  const int vm_fd = find(records, "KVM_CREATE_VM")["result"];
  const std::string ram = hex(reinterpret_cast<std::uintptr_t>(launches.ram().regions().front().memory.data()));
  const std::string code = find(records, "KVM_SET_USER_MEMORY_REGION", 1)["request"]["userspace_addr"];
  const std::uint64_t size = firmware::image().size();

  std::vector<Expected> expected = {
      {"open /dev/kvm", {{"request", {{"flags", 02000002}}}}},  // O_RDWR | O_CLOEXEC
      {"KVM_GET_API_VERSION", {{"fd", kvm_fd}, {"result", 12}}},
      {"KVM_CHECK_EXTENSION", {{"request", 66}}},  // KVM_CAP_MAX_VCPUS
      {"KVM_GET_SUPPORTED_CPUID"},
      {"KVM_CHECK_EXTENSION", {{"request", 72}}},  // KVM_CAP_TSC_DEADLINE_TIMER
  };
  if (init2) expected.push_back({"KVM_CHECK_EXTENSION", {{"request", 235}}});  // KVM_CAP_VM_TYPES
  const std::vector<Expected> machine = {
      {"KVM_GET_VCPU_MMAP_SIZE", {{"result", 12288}}},
      {"KVM_CREATE_VM", {{"fd", kvm_fd}, {"request", init2 ? 3 : 0}}},
      {"KVM_MEMORY_ENCRYPT_OP", {{"fd", vm_fd}, {"result", 0}}},  // without a command: the probe
      {"open /dev/sev", {{"request", {{"flags", 02000002}}}}},
      {init2 ? "SEV_INIT2" : "SEV_ES_INIT",
       init2 ? command(22, {{"vmsa_features", "0x0"}, {"flags", 0}, {"ghcb_version", 0}})
             : command(1)},  // version 0: the newest
      {"SEV_PLATFORM_STATUS", {{"fd", sev_fd}, {"answer", {{"error", 0}, {"status", {{"api_major", 1}}}}}}},
      {"KVM_CHECK_EXTENSION", {{"request", 201}}},  // KVM_CAP_EXIT_HYPERCALL
      {"KVM_ENABLE_CAP", {{"fd", vm_fd}, {"request", {{"cap", 201}, {"args", {1 << 12, 0, 0, 0}}}}}},
      {"KVM_CREATE_IRQCHIP", {{"fd", vm_fd}}},
      {"KVM_CREATE_PIT2", {{"request", {{"flags", 1}}}}},
      {"KVM_SET_USER_MEMORY_REGION",
       {{"request",
         {{"slot", 0},
          {"flags", 0},
          {"guest_phys_addr", "0x0"},
          {"memory_size", hex(kMemory)},
          {"userspace_addr", ram}}}}},
      // Writable: type 3 VMs have no read-only slots.
      {"KVM_SET_USER_MEMORY_REGION",
       {{"request",
         {{"slot", 1},
          {"flags", 0},
          {"guest_phys_addr", hex(0x100000000 - size)},
          {"memory_size", hex(size)},
          {"userspace_addr", code}}}}},
      {"KVM_MEMORY_ENCRYPT_REG_REGION", {{"fd", vm_fd}, {"request", {{"addr", ram}, {"size", hex(kMemory)}}}}},
      {"KVM_MEMORY_ENCRYPT_REG_REGION", {{"request", {{"addr", code}, {"size", hex(size)}}}}},
      {"LAUNCH_START",
       command(2, {{"policy", "0x5"}, {"dh_uaddr", "0x0"}, {"dh_len", 0}, {"session_uaddr", "0x0"}, {"session_len", 0}},
               sev_fd)},
      {"LAUNCH_UPDATE_DATA", command(3, {{"uaddr", code}, {"len", hex(size)}})},
  };
  expected.insert(expected.end(), machine.begin(), machine.end());
  for (unsigned vcpu = 0; vcpu < 2; ++vcpu) {
    const int vcpu_fd = find(records, "KVM_CREATE_VCPU", vcpu)["result"];
    const std::uint32_t address = vcpu == 0 ? 0xfffffff0 : ap_address;
    expected.push_back({"KVM_CREATE_VCPU", {{"fd", vm_fd}, {"request", vcpu}}});
    expected.push_back({"mmap", {{"fd", vcpu_fd}, {"request", {{"size", 12288}}}}});
    expected.push_back({"KVM_SET_CPUID2", {{"fd", vcpu_fd}}});
    expected.push_back({"KVM_GET_SREGS", {{"fd", vcpu_fd}}});
    expected.push_back({"KVM_SET_SREGS", reset_sregs(address)});
    expected.push_back({"KVM_SET_REGS", reset_regs(address)});
  }
  expected.push_back({"LAUNCH_UPDATE_VMSA", command(4)});
  json measure = command(6);
  measure["request"].erase("data");
  measure["answer"]["data"] = {{"len", 48}};
  expected.push_back({"LAUNCH_MEASURE", measure});
  expected.push_back({"LAUNCH_FINISH", command(7)});
  // Giving it back.
  for (const char* call : {"close", "munmap", "close", "munmap", "close", "close", "close"}) expected.push_back({call});

  std::vector<std::string> calls;
  std::vector<std::string> expected_calls;
  for (const json& record : records) calls.push_back(record["call"]);
  for (const Expected& item : expected) expected_calls.push_back(item.call);
  std::sort(calls.end() - 7, calls.end());  // the order of the releases is nobody's business
  std::sort(expected_calls.end() - 7, expected_calls.end());
  REQUIRE(calls == expected_calls);
  for (std::size_t i = 0; i + 7 < expected.size(); ++i) {
    INFO("call " << i + 1 << "\nis       " << records[i].dump() << "\nexpected " << expected[i].part.dump());
    CHECK(records[i]["n"] == i + 1);
    CHECK(records[i]["result"] >= 0);
    CHECK(has(records[i], expected[i].part));
  }
  // Without this leaf KVM takes the C-bit for an address bit.
  for (unsigned vcpu = 0; vcpu < 2; ++vcpu) {
    bool found = false;
    for (const json& leaf : find(records, "KVM_SET_CPUID2", vcpu)["request"]["entries"]) {
      if (leaf["function"] != "0x8000001f") continue;
      found = true;
      CHECK((std::stoul(leaf["ebx"].get<std::string>(), nullptr, 16) & 0x3f) == 51);
    }
    CHECK(found);
  }
}

}  // namespace

TEST_CASE("a launch by KVM_SEV_ES_INIT is the sequence that the kernel requires") {
  check_launch(vmm::InitApi::kEsInit);
}

TEST_CASE("a launch by KVM_SEV_INIT2 is the sequence that the kernel requires") { check_launch(vmm::InitApi::kInit2); }
