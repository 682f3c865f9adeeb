#include "kvm/call_record.hpp"

#include <algorithm>
#include <fmt/format.h>
#include <iterator>
#include <nlohmann/json.hpp>
#include <span>

#include "base/bytes.hpp"
#include "kvm/abi.hpp"
#include "sev/encoding.hpp"

namespace sevisor::kvm {

namespace {

using Json = nlohmann::ordered_json;

std::string hex(std::uint64_t value) { return fmt::format("{:#x}", value); }

// A struct is copied out, so that its alignment in the caller's memory does not matter.
template <class T>
T copy_of(const void* argument) {
  return load<T>(static_cast<const std::byte*>(argument));
}

Json cpuid_of(const void* argument) {
  const auto header = copy_of<kvm_cpuid2>(argument);
  const auto* entries = static_cast<const std::byte*>(argument) + sizeof(kvm_cpuid2);
  Json list = Json::array();
  for (std::uint32_t i = 0; i < std::min<std::uint32_t>(header.nent, 256); ++i) {
    const auto entry = load<kvm_cpuid_entry2>(entries + i * sizeof(kvm_cpuid_entry2));
    list.push_back({{"function", hex(entry.function)},
                    {"index", entry.index},
                    {"flags", entry.flags},
                    {"eax", hex(entry.eax)},
                    {"ebx", hex(entry.ebx)},
                    {"ecx", hex(entry.ecx)},
                    {"edx", hex(entry.edx)}});
  }
  return {{"nent", header.nent}, {"entries", std::move(list)}};
}

Json cpuid_room(const void* argument) { return {{"nent", copy_of<kvm_cpuid2>(argument).nent}}; }

Json slot_of(const void* argument) {
  const auto region = copy_of<kvm_userspace_memory_region>(argument);
  return {{"slot", region.slot},
          {"flags", region.flags},
          {"guest_phys_addr", hex(region.guest_phys_addr)},
          {"memory_size", hex(region.memory_size)},
          {"userspace_addr", hex(region.userspace_addr)}};
}

Json enc_region_of(const void* argument) {
  const auto region = copy_of<kvm_enc_region>(argument);
  return {{"addr", hex(region.addr)}, {"size", hex(region.size)}};
}

Json pit_of(const void* argument) { return {{"flags", copy_of<kvm_pit_config>(argument).flags}}; }

Json segment_of(const kvm_segment& segment) {
  return {{"selector", hex(segment.selector)},
          {"base", hex(segment.base)},
          {"limit", hex(segment.limit)},
          {"type", segment.type},
          {"s", segment.s},
          {"dpl", segment.dpl},
          {"present", segment.present},
          {"l", segment.l},
          {"db", segment.db},
          {"g", segment.g},
          {"avl", segment.avl}};
}

Json table_of(const kvm_dtable& table) { return {{"base", hex(table.base)}, {"limit", hex(table.limit)}}; }

Json sregs_of(const void* argument) {
  const auto sregs = copy_of<kvm_sregs>(argument);
  Json json;
  json["cs"] = segment_of(sregs.cs);
  json["ds"] = segment_of(sregs.ds);
  json["es"] = segment_of(sregs.es);
  json["fs"] = segment_of(sregs.fs);
  json["gs"] = segment_of(sregs.gs);
  json["ss"] = segment_of(sregs.ss);
  json["tr"] = segment_of(sregs.tr);
  json["ldt"] = segment_of(sregs.ldt);
  json["gdt"] = table_of(sregs.gdt);
  json["idt"] = table_of(sregs.idt);
  json["cr0"] = hex(sregs.cr0);
  json["cr2"] = hex(sregs.cr2);
  json["cr3"] = hex(sregs.cr3);
  json["cr4"] = hex(sregs.cr4);
  json["cr8"] = hex(sregs.cr8);
  json["efer"] = hex(sregs.efer);
  json["apic_base"] = hex(sregs.apic_base);
  return json;
}

Json regs_of(const void* argument) {
  const auto regs = copy_of<kvm_regs>(argument);
  return {{"rax", hex(regs.rax)}, {"rbx", hex(regs.rbx)},      {"rcx", hex(regs.rcx)}, {"rdx", hex(regs.rdx)},
          {"rsi", hex(regs.rsi)}, {"rdi", hex(regs.rdi)},      {"rsp", hex(regs.rsp)}, {"rbp", hex(regs.rbp)},
          {"r8", hex(regs.r8)},   {"r9", hex(regs.r9)},        {"r10", hex(regs.r10)}, {"r11", hex(regs.r11)},
          {"r12", hex(regs.r12)}, {"r13", hex(regs.r13)},      {"r14", hex(regs.r14)}, {"r15", hex(regs.r15)},
          {"rip", hex(regs.rip)}, {"rflags", hex(regs.rflags)}};
}

Json irq_level_of(const void* argument) {
  const auto level = copy_of<kvm_irq_level>(argument);
  return {{"irq", level.irq}, {"level", level.level}};
}

Json clock_of(const void* argument) { return {{"clock", copy_of<kvm_clock_data>(argument).clock}}; }

Json enable_cap_of(const void* argument) {
  const auto cap = copy_of<kvm_enable_cap>(argument);
  return {{"cap", cap.cap}, {"flags", cap.flags}, {"args", {cap.args[0], cap.args[1], cap.args[2], cap.args[3]}}};
}

Json device_attr_of(const void* argument) {
  const auto attribute = copy_of<kvm_device_attr>(argument);
  return {
      {"flags", attribute.flags}, {"group", attribute.group}, {"attr", attribute.attr}, {"addr", hex(attribute.addr)}};
}

Json irqfd_of(const void* argument) {
  const auto irqfd = copy_of<kvm_irqfd>(argument);
  return {{"fd", irqfd.fd}, {"gsi", irqfd.gsi}, {"flags", irqfd.flags}, {"resamplefd", irqfd.resamplefd}};
}

Json ioeventfd_of(const void* argument) {
  const auto event = copy_of<kvm_ioeventfd>(argument);
  return {{"datamatch", hex(event.datamatch)},
          {"addr", hex(event.addr)},
          {"len", event.len},
          {"fd", event.fd},
          {"flags", event.flags}};
}

Json msi_of(const void* argument) {
  const auto msi = copy_of<kvm_msi>(argument);
  return {{"address_lo", hex(msi.address_lo)},
          {"address_hi", hex(msi.address_hi)},
          {"data", hex(msi.data)},
          {"flags", msi.flags}};
}

// Of the routes to chips, that there are some.
Json routes_of(const void* argument) {
  constexpr std::uint32_t kMost = 64;
  const std::uint32_t count = copy_of<kvm_irq_routing>(argument).nr;
  const auto* entries = static_cast<const std::byte*>(argument) + offsetof(kvm_irq_routing, entries);
  Json routes = Json::array();
  for (std::uint32_t i = 0; i < std::min(count, kMost); ++i) {
    const auto entry = copy_of<kvm_irq_routing_entry>(entries + i * sizeof(kvm_irq_routing_entry));
    Json route = {{"gsi", entry.gsi}, {"type", entry.type}};
    if (entry.type == KVM_IRQ_ROUTING_MSI) {
      route["address_lo"] = hex(entry.u.msi.address_lo);
      route["address_hi"] = hex(entry.u.msi.address_hi);
      route["data"] = hex(entry.u.msi.data);
    }
    routes.push_back(route);
  }
  return {{"nr", count}, {"entries", routes}};
}

Json mp_state_of(const void* argument) { return {{"mp_state", copy_of<kvm_mp_state>(argument).mp_state}}; }

// --- SEV commands of a VM: kvm_sev_cmd.data ---

Json init2_of(const void* data) {
  const auto init = copy_of<SevInit>(data);
  return {{"vmsa_features", hex(init.vmsa_features)}, {"flags", init.flags}, {"ghcb_version", init.ghcb_version}};
}

Json launch_start_of(const void* data) {
  const auto start = copy_of<kvm_sev_launch_start>(data);
  return {{"handle", start.handle},
          {"policy", hex(start.policy)},
          {"dh_uaddr", hex(start.dh_uaddr)},
          {"dh_len", start.dh_len},
          {"session_uaddr", hex(start.session_uaddr)},
          {"session_len", start.session_len}};
}

Json update_data_of(const void* data) {
  const auto update = copy_of<kvm_sev_launch_update_data>(data);
  return {{"uaddr", hex(update.uaddr)}, {"len", hex(update.len)}};
}

Json secret_of(const void* data) {
  const auto secret = copy_of<kvm_sev_launch_secret>(data);
  return {{"hdr_uaddr", hex(secret.hdr_uaddr)},     {"hdr_len", secret.hdr_len},
          {"guest_uaddr", hex(secret.guest_uaddr)}, {"guest_len", secret.guest_len},
          {"trans_uaddr", hex(secret.trans_uaddr)}, {"trans_len", secret.trans_len}};
}

Json measure_of(const void* data) {
  const auto measure = copy_of<kvm_sev_launch_measure>(data);
  return {{"uaddr", hex(measure.uaddr)}, {"len", measure.len}};
}

Json guest_status_of(const void* data) {
  const auto status = copy_of<kvm_sev_guest_status>(data);
  return {{"handle", status.handle}, {"policy", hex(status.policy)}, {"state", status.state}};
}

using Describe = Json (*)(const void*);

struct SevCommand {
  std::uint32_t id;
  const char* name;
  Describe describe;  // of its data; null: it has none
  bool answers;       // it writes to its data
};

constexpr SevCommand kSevCommands[] = {
    {KVM_SEV_INIT, "SEV_INIT", nullptr, false},
    {KVM_SEV_ES_INIT, "SEV_ES_INIT", nullptr, false},
    {kSevInit2, "SEV_INIT2", init2_of, false},
    {KVM_SEV_LAUNCH_START, "LAUNCH_START", launch_start_of, true},
    {KVM_SEV_LAUNCH_UPDATE_DATA, "LAUNCH_UPDATE_DATA", update_data_of, false},
    {KVM_SEV_LAUNCH_UPDATE_VMSA, "LAUNCH_UPDATE_VMSA", nullptr, false},
    {KVM_SEV_LAUNCH_SECRET, "LAUNCH_SECRET", secret_of, false},
    {KVM_SEV_LAUNCH_MEASURE, "LAUNCH_MEASURE", measure_of, true},
    {KVM_SEV_LAUNCH_FINISH, "LAUNCH_FINISH", nullptr, false},
    {KVM_SEV_GUEST_STATUS, "GUEST_STATUS", guest_status_of, true},
};

const SevCommand* find_sev_command(std::uint32_t id) {
  const auto* found = std::ranges::find(kSevCommands, id, &SevCommand::id);
  return found == std::end(kSevCommands) ? nullptr : found;
}

const void* pointer_of(std::uint64_t address) {
  return reinterpret_cast<const void*>(static_cast<std::uintptr_t>(address));  // NOLINT(performance-no-int-to-ptr)
}

Json sev_command_of(const void* argument) {
  if (argument == nullptr) return nullptr;
  const auto command = copy_of<kvm_sev_cmd>(argument);
  Json json = {{"id", command.id}, {"error", command.error}, {"sev_fd", command.sev_fd}};
  const SevCommand* known = find_sev_command(command.id);
  if (command.data != 0 && known != nullptr && known->describe != nullptr) {
    json["data"] = known->describe(pointer_of(command.data));
  } else {
    json["data"] = hex(command.data);
  }
  return json;
}

Json sev_answer_of(const void* argument) {
  if (argument == nullptr) return nullptr;
  const auto command = copy_of<kvm_sev_cmd>(argument);
  Json json = {{"error", command.error}};
  const SevCommand* known = find_sev_command(command.id);
  if (command.data != 0 && known != nullptr && known->answers) json["data"] = known->describe(pointer_of(command.data));
  if (command.id == KVM_SEV_LAUNCH_MEASURE && command.error == 0 && command.data != 0) {
    const auto measure = copy_of<kvm_sev_launch_measure>(pointer_of(command.data));
    if (measure.uaddr != 0 && measure.len == kLaunchMeasureSize) {
      json["measurement"] =
          sev::to_base64(std::span(static_cast<const std::byte*>(pointer_of(measure.uaddr)), measure.len));
    }
  }
  return json;
}

// --- /dev/sev ---

struct PlatformCommand {
  std::uint32_t number;
  const char* name;
};
constexpr PlatformCommand kPlatformCommands[] = {
    {SEV_FACTORY_RESET, "SEV_FACTORY_RESET"},
    {SEV_PLATFORM_STATUS, "SEV_PLATFORM_STATUS"},
    {SEV_PEK_GEN, "SEV_PEK_GEN"},
    {SEV_PEK_CSR, "SEV_PEK_CSR"},
    {SEV_PDH_GEN, "SEV_PDH_GEN"},
    {SEV_PDH_CERT_EXPORT, "SEV_PDH_CERT_EXPORT"},
    {SEV_PEK_CERT_IMPORT, "SEV_PEK_CERT_IMPORT"},
    {SEV_GET_ID2, "SEV_GET_ID2"},
};

Json platform_command_of(const void* argument) {
  const auto command = copy_of<sev_issue_cmd>(argument);
  return {{"cmd", static_cast<std::uint32_t>(command.cmd)}, {"data", hex(command.data)}};
}

Json platform_answer_of(const void* argument) {
  const auto command = copy_of<sev_issue_cmd>(argument);
  Json json = {{"error", static_cast<std::uint32_t>(command.error)}};
  if (command.cmd == SEV_PLATFORM_STATUS && command.data != 0) {
    const auto status = copy_of<sev_user_data_status>(pointer_of(command.data));
    json["status"] = {{"api_major", static_cast<unsigned>(status.api_major)},
                      {"api_minor", static_cast<unsigned>(status.api_minor)},
                      {"state", static_cast<unsigned>(status.state)},
                      {"flags", hex(status.flags)},
                      {"build", static_cast<unsigned>(status.build)},
                      {"guest_count", static_cast<std::uint32_t>(status.guest_count)}};
  }
  return json;
}

// --- ioctls ---

Json value_of(const void* argument) { return reinterpret_cast<std::uintptr_t>(argument); }

struct Ioctl {
  unsigned long number;
  const char* name;
  Describe request;  // null: it asks nothing
  Describe answer;   // null: nothing comes back but the result
};

constexpr Ioctl kIoctls[] = {
    {KVM_GET_API_VERSION, "KVM_GET_API_VERSION", nullptr, nullptr},
    {KVM_CREATE_VM, "KVM_CREATE_VM", value_of, nullptr},
    {KVM_CHECK_EXTENSION, "KVM_CHECK_EXTENSION", value_of, nullptr},
    {KVM_GET_VCPU_MMAP_SIZE, "KVM_GET_VCPU_MMAP_SIZE", nullptr, nullptr},
    {KVM_GET_SUPPORTED_CPUID, "KVM_GET_SUPPORTED_CPUID", cpuid_room, cpuid_of},
    {KVM_GET_DEVICE_ATTR, "KVM_GET_DEVICE_ATTR", device_attr_of, nullptr},
    {KVM_HAS_DEVICE_ATTR, "KVM_HAS_DEVICE_ATTR", device_attr_of, nullptr},
    {KVM_CREATE_IRQCHIP, "KVM_CREATE_IRQCHIP", nullptr, nullptr},
    {KVM_CREATE_PIT2, "KVM_CREATE_PIT2", pit_of, nullptr},
    {KVM_SET_TSS_ADDR, "KVM_SET_TSS_ADDR", value_of, nullptr},
    {KVM_ENABLE_CAP, "KVM_ENABLE_CAP", enable_cap_of, nullptr},
    {KVM_SET_USER_MEMORY_REGION, "KVM_SET_USER_MEMORY_REGION", slot_of, nullptr},
    {KVM_MEMORY_ENCRYPT_OP, "KVM_MEMORY_ENCRYPT_OP", sev_command_of, sev_answer_of},
    {KVM_MEMORY_ENCRYPT_REG_REGION, "KVM_MEMORY_ENCRYPT_REG_REGION", enc_region_of, nullptr},
    {KVM_MEMORY_ENCRYPT_UNREG_REGION, "KVM_MEMORY_ENCRYPT_UNREG_REGION", enc_region_of, nullptr},
    {KVM_CREATE_VCPU, "KVM_CREATE_VCPU", value_of, nullptr},
    {KVM_SET_CPUID2, "KVM_SET_CPUID2", cpuid_of, nullptr},
    {KVM_GET_SREGS, "KVM_GET_SREGS", nullptr, sregs_of},
    {KVM_SET_SREGS, "KVM_SET_SREGS", sregs_of, nullptr},
    {KVM_GET_REGS, "KVM_GET_REGS", nullptr, regs_of},
    {KVM_SET_REGS, "KVM_SET_REGS", regs_of, nullptr},
    {KVM_GET_MP_STATE, "KVM_GET_MP_STATE", nullptr, mp_state_of},
    {KVM_SET_MP_STATE, "KVM_SET_MP_STATE", mp_state_of, nullptr},
    {KVM_RUN, "KVM_RUN", nullptr, nullptr},
    {KVM_IRQ_LINE, "KVM_IRQ_LINE", irq_level_of, nullptr},
    {KVM_SIGNAL_MSI, "KVM_SIGNAL_MSI", msi_of, nullptr},
    {KVM_SET_GSI_ROUTING, "KVM_SET_GSI_ROUTING", routes_of, nullptr},
    {KVM_IRQFD, "KVM_IRQFD", irqfd_of, nullptr},
    {KVM_IOEVENTFD, "KVM_IOEVENTFD", ioeventfd_of, nullptr},
    {KVM_GET_CLOCK, "KVM_GET_CLOCK", nullptr, clock_of},
    {SEV_ISSUE_CMD, "SEV_ISSUE_CMD", platform_command_of, platform_answer_of},
};

const Ioctl* find_ioctl(unsigned long number) {
  const auto* found = std::ranges::find(kIoctls, number, &Ioctl::number);
  return found == std::end(kIoctls) ? nullptr : found;
}

}  // namespace

std::string call_name(unsigned long request, const void* argument) {
  const Ioctl* known = find_ioctl(request);
  if (known == nullptr) return fmt::format("ioctl {:#x}", request);
  if (request == KVM_MEMORY_ENCRYPT_OP && argument != nullptr) {
    const std::uint32_t id = copy_of<kvm_sev_cmd>(argument).id;
    const SevCommand* command = find_sev_command(id);
    return command != nullptr ? command->name : fmt::format("SEV command {}", id);
  }
  if (request == SEV_ISSUE_CMD && argument != nullptr) {
    const auto number = static_cast<std::uint32_t>(copy_of<sev_issue_cmd>(argument).cmd);
    const auto* command = std::ranges::find(kPlatformCommands, number, &PlatformCommand::number);
    return command != std::end(kPlatformCommands) ? command->name : fmt::format("SEV platform command {}", number);
  }
  return known->name;
}

std::vector<std::string_view> known_call_names() {
  std::vector<std::string_view> names = {"open /dev/kvm", "open /dev/sev", "mmap", "munmap", "close"};
  // KVM_MEMORY_ENCRYPT_OP and SEV_ISSUE_CMD among them: without a command, as a probe, they are called so.
  for (const Ioctl& call : kIoctls) names.emplace_back(call.name);
  for (const SevCommand& command : kSevCommands) names.emplace_back(command.name);
  for (const PlatformCommand& command : kPlatformCommands) names.emplace_back(command.name);
  return names;
}

bool is_call_name(std::string_view name) {
  for (const std::string_view form : {"ioctl 0x", "SEV command ", "SEV platform command "}) {
    if (name.size() > form.size() && name.starts_with(form)) return true;  // one that has no name
  }
  const std::vector<std::string_view> names = known_call_names();
  return std::ranges::find(names, name) != names.end();
}

Json describe_request(unsigned long request, const void* argument) {
  const Ioctl* known = find_ioctl(request);
  if (known == nullptr) return hex(reinterpret_cast<std::uintptr_t>(argument));
  if (known->request == nullptr) return nullptr;
  if (known->request != value_of && argument == nullptr) return nullptr;
  return known->request(argument);
}

Json describe_answer(unsigned long request, const void* argument) {
  const Ioctl* known = find_ioctl(request);
  if (known == nullptr || known->answer == nullptr || argument == nullptr) return nullptr;
  return known->answer(argument);
}

Json describe_exit(const void* state) {
  const auto run = copy_of<kvm_run>(state);
  Json json = {{"reason", run.exit_reason}};
  switch (run.exit_reason) {
    case KVM_EXIT_IO:
      json["io"] = {{"direction", run.io.direction == KVM_EXIT_IO_IN ? "in" : "out"},
                    {"size", run.io.size},
                    {"port", hex(run.io.port)},
                    {"count", run.io.count}};
      break;
    case KVM_EXIT_MMIO:
      json["mmio"] = {
          {"phys_addr", hex(run.mmio.phys_addr)}, {"len", run.mmio.len}, {"is_write", run.mmio.is_write != 0}};
      break;
    case KVM_EXIT_HYPERCALL:
      json["hypercall"] = {
          {"nr", static_cast<std::uint64_t>(run.hypercall.nr)},
          {"args", {hex(run.hypercall.args[0]), hex(run.hypercall.args[1]), hex(run.hypercall.args[2])}}};
      break;
    case KVM_EXIT_SYSTEM_EVENT:
      json["system_event"] = {
          {"type", run.system_event.type}, {"ndata", run.system_event.ndata}, {"data", hex(run.system_event.data[0])}};
      break;
    case KVM_EXIT_FAIL_ENTRY:
      json["fail_entry"] = {{"reason", hex(run.fail_entry.hardware_entry_failure_reason)}, {"cpu", run.fail_entry.cpu}};
      break;
    case KVM_EXIT_INTERNAL_ERROR:
      json["internal"] = {{"suberror", run.internal.suberror}, {"ndata", run.internal.ndata}};
      break;
    default:
      break;
  }
  return json;
}

}  // namespace sevisor::kvm
