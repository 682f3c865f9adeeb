#include "vmm/trace/trace_line.hpp"

#include <algorithm>
#include <array>
#include <cstring>
#include <fmt/format.h>
#include <iterator>
#include <utility>

#include "base/bytes.hpp"
#include "ghcb/event.hpp"
#include "ghcb/exit_name.hpp"
#include "ghcb/ioio.hpp"
#include "ghcb/msr_protocol.hpp"
#include "kvm/abi.hpp"
#include "kvm/exit_name.hpp"
#include "sev/firmware_status.hpp"

namespace sevisor::vmm {

namespace {

using ghcb::Field;

constexpr std::size_t kMostData = 16;  // bytes of a scratch area that a line shows

struct FieldName {
  Field field;
  std::string_view name;
};
// What a request may hold besides its exit code and infos.
constexpr std::array kFields = {
    FieldName{Field::kCpl, "cpl"},   FieldName{Field::kXss, "xss"}, FieldName{Field::kDr7, "dr7"},
    FieldName{Field::kRip, "rip"},   FieldName{Field::kRsp, "rsp"}, FieldName{Field::kRax, "rax"},
    FieldName{Field::kRcx, "rcx"},   FieldName{Field::kRdx, "rdx"}, FieldName{Field::kRbx, "rbx"},
    FieldName{Field::kRbp, "rbp"},   FieldName{Field::kRsi, "rsi"}, FieldName{Field::kRdi, "rdi"},
    FieldName{Field::kR8, "r8"},     FieldName{Field::kR9, "r9"},   FieldName{Field::kR10, "r10"},
    FieldName{Field::kR11, "r11"},   FieldName{Field::kR12, "r12"}, FieldName{Field::kR13, "r13"},
    FieldName{Field::kR14, "r14"},   FieldName{Field::kR15, "r15"}, FieldName{Field::kScratch, "scratch"},
    FieldName{Field::kXcr0, "xcr0"},
};

constexpr std::array<std::string_view, 7> kInputErrors = {"",
                                                          "the GHCB is not registered",
                                                          "unsupported usage",
                                                          "invalid scratch area",
                                                          "missing input",
                                                          "invalid input",
                                                          "unsupported event"};

std::string_view event_type_name(ghcb::EventType type) {
  switch (type) {
    case ghcb::EventType::kExternal:
      return "interrupt";
    case ghcb::EventType::kNmi:
      return "NMI";
    case ghcb::EventType::kException:
      return "exception";
    case ghcb::EventType::kSoftware:
      return "software interrupt";
  }
  return "unknown";
}

std::string_view msr_protocol_name(std::uint64_t value) {
  switch (ghcb::msr::info(value)) {
    case ghcb::msr::kSevInfoResponse:
      return "SEV_INFO_RESP";
    case ghcb::msr::kSevInfoRequest:
      return "SEV_INFO_REQ";
    case ghcb::msr::kCpuidRequest:
      return "CPUID_REQ";
    case ghcb::msr::kCpuidResponse:
      return "CPUID_RESP";
    case ghcb::msr::kApResetHoldRequest:
      return "AP_RESET_HOLD_REQ";
    case ghcb::msr::kApResetHoldResponse:
      return "AP_RESET_HOLD_RESP";
    case ghcb::msr::kFeaturesRequest:
      return "HV_FT_REQ";
    case ghcb::msr::kFeaturesResponse:
      return "HV_FT_RESP";
    case ghcb::msr::kTerminateRequest:
      return "TERM_REQ";
    default:
      return "unknown";
  }
}

// Collects the members of one JSON object. Names and texts are ours: nothing in them needs escaping.
class Line {
 public:
  explicit Line(std::string& to) : to_(to) {}
  void number(std::string_view name, std::uint64_t value) { add(R"("{}":{})", name, value); }
  void hex(std::string_view name, std::uint64_t value) { add(R"("{}":"{:#x}")", name, value); }
  void text(std::string_view name, std::string_view value) { add(R"("{}":"{}")", name, value); }
  void flag(std::string_view name) { add(R"("{}":true)", name); }
  void bytes(std::string_view name, std::span<const std::byte> data) {
    add(R"("{}":"{}")", name, hex_of(data));
    if (data.size() > kMostData) number("data_size", data.size());
  }
  void valid(const ghcb::ValidBitmap& bitmap) {
    std::string names;
    for (const FieldName& f : kFields) {
      if (bitmap.has(f.field)) names += fmt::format("{}{}", names.empty() ? "" : " ", f.name);
    }
    text("valid", names);
  }
  static std::string hex_of(std::span<const std::byte> data) {
    std::string digits;
    for (const std::byte b : data.first(std::min(data.size(), kMostData))) {
      fmt::format_to(std::back_inserter(digits), "{:02x}", static_cast<unsigned>(b));
    }
    return digits;
  }

 private:
  template <class... Args>
  void add(fmt::format_string<Args...> format, Args&&... args) {
    if (to_.back() != '{') to_ += ',';
    fmt::format_to(std::back_inserter(to_), format, std::forward<Args>(args)...);
  }
  std::string& to_;
};

std::uint64_t low_bytes(std::uint64_t value, unsigned bytes) {
  return bytes >= 8 ? value : value & ((std::uint64_t{1} << 8 * bytes) - 1);
}

// What the request asks for, decoded.
void add_request(Line& line, const ghcb::Request& request) {
  switch (request.exit_code) {
    case ghcb::kExitIoio:
      if (const auto io = ghcb::decode_ioio(request.exit_info_1)) {
        line.hex("port", io->port);
        line.text("dir", io->in ? "in" : "out");
        line.number("size", io->size);
        if (io->string) line.number("count", request.exit_info_2);
        if (!io->string && !io->in) line.hex("value", low_bytes(request.rax, io->size));
      }
      break;
    case ghcb::kExitCpuid:
      line.hex("leaf", request.rax);
      line.hex("subleaf", request.rcx);
      break;
    case ghcb::kExitMsr:
      line.hex("msr", request.rcx);
      line.text("dir", request.exit_info_1 != 0 ? "write" : "read");
      if (request.exit_info_1 != 0) line.hex("value", request.rdx << 32 | (request.rax & 0xffffffff));
      break;
    case ghcb::kExitMmioRead:
    case ghcb::kExitMmioWrite:
      line.hex("gpa", request.exit_info_1);
      line.number("size", request.exit_info_2);
      break;
    case ghcb::kExitVmmcall:
      line.hex("rax", request.rax);
      line.number("cpl", request.cpl);
      break;
    case ghcb::kExitTerminate:
      line.number("reason_set", request.exit_info_1 & 0xf);
      line.number("reason", request.exit_info_1 >> 4 & 0xff);
      break;
    case ghcb::kExitUnsupportedEvent:
      line.hex("vc_code", request.exit_info_1);
      line.text("vc_name", ghcb::exit_name(request.exit_info_1));
      break;
    default:
      break;
  }
}

void add_reply(Line& line, const kvm::PageReply& reply) {
  const ghcb::Request& request = reply.request;
  if (reply.exit_info_1 == ghcb::kResultMalformed) {
    const auto error = reply.exit_info_2;
    line.text("refused", error < kInputErrors.size() ? kInputErrors[error] : "unknown");
    return;
  }
  if (reply.exit_info_1 == ghcb::kResultException) {
    line.number("raises", ghcb::decode_event(reply.exit_info_2).vector);
    return;
  }
  switch (request.exit_code) {
    case ghcb::kExitIoio:
      if (const auto io = ghcb::decode_ioio(request.exit_info_1); io && io->in && !io->string) {
        line.hex("value", low_bytes(request.rax, io->size));
      }
      break;
    case ghcb::kExitCpuid:
      line.hex("eax", request.rax);
      line.hex("ebx", request.rbx);
      line.hex("ecx", request.rcx);
      line.hex("edx", request.rdx);
      break;
    case ghcb::kExitMsr:
      if (request.exit_info_1 == 0) line.hex("value", request.rdx << 32 | (request.rax & 0xffffffff));
      break;
    case ghcb::kExitVmmcall:
      line.hex("rax", request.rax);
      break;
    default:
      break;
  }
  if (!reply.data.empty()) line.bytes("data", reply.data);
}

struct Members {
  Line& line;

  void begin(std::string_view kind) const { line.text("ev", kind); }
  void code(ghcb::ExitCode value) const {
    line.hex("code", value);
    line.text("name", ghcb::exit_name(value));
  }
  void operator()(const kvm::VcRaised& e) const {
    begin("vc");
    code(e.code);
    line.number("cpl", e.cpl);
    if (e.injected) line.flag("injected");
  }
  void operator()(const kvm::VcDone& e) const {
    begin("vc_done");
    code(e.code);
    line.number("ns", e.duration_ns);
  }
  void msr(std::string_view kind, std::uint64_t value) const {
    begin(kind);
    line.hex("value", value);
    line.text("name", msr_protocol_name(value));
    if (const auto cpuid = ghcb::msr::decode_cpuid_request(value)) {
      line.hex("leaf", cpuid->leaf);
      line.number("register", static_cast<unsigned>(cpuid->reg));
    }
    if (const auto end = ghcb::msr::decode_termination(value)) {
      line.number("reason_set", end->reason_set);
      line.number("reason", end->reason);
    }
  }
  void operator()(const kvm::MsrRequest& e) const { msr("msr", e.value); }
  void operator()(const kvm::MsrReply& e) const { msr("msr_reply", e.value); }
  void operator()(const kvm::PageRequest& e) const {
    begin("vmgexit");
    line.hex("ghcb", e.page.value);
    if (!e.readable) {
      line.text("refused", "no memory");
      return;
    }
    code(e.request.exit_code);
    line.hex("info1", e.request.exit_info_1);
    line.hex("info2", e.request.exit_info_2);
    line.number("version", e.request.version);
    line.valid(e.request.valid);
    add_request(line, e.request);
  }
  void operator()(const kvm::PageReply& e) const {
    begin("reply");
    code(e.request.exit_code);
    line.hex("info1", e.exit_info_1);
    line.hex("info2", e.exit_info_2);
    add_reply(line, e);
  }
  void operator()(const kvm::AutomaticExit& e) const {
    begin("exit");
    code(e.code);
    line.hex("info1", e.info_1);
    line.hex("info2", e.info_2);
  }
  void operator()(const kvm::Injection& e) const {
    const ghcb::Event event = ghcb::decode_event(e.event);
    begin("inject");
    line.hex("value", e.event);
    line.text("type", event_type_name(event.type));
    line.number("vector", event.vector);
  }
  void operator()(const kvm::FirmwareCommand& e) const {
    begin("psp");
    line.hex("code", e.id);
    line.text("name", e.name);
    if (e.handle != 0) line.number("guest", e.handle);
    line.hex("status", e.status);
    line.text("status_name", sev::firmware_status_name(e.status));
  }
  void operator()(const kvm::MemoryUse&) const {}
  void operator()(const kvm::PrivateStore&) const {}
  void operator()(const kvm::UserExit& e) const {
    begin("run");
    if (e.error_number != 0) {
      line.number("errno", static_cast<std::uint64_t>(e.error_number));
      line.text("name", "failed");
    } else {
      line.number("code", e.reason);
      line.text("name", kvm::exit_reason_name(e.reason));
    }
    if (e.size != 0) {
      line.hex("address", e.address);
      line.text("dir", e.write ? "write" : "read");
      line.number("size", e.size);
      if (e.count > 1) line.number("count", e.count);
    }
    line.number("ns", e.handling_ns);
  }
  void operator()(const kvm::SevCall& e) const {
    begin("sev");
    line.text("device", e.device);
    line.number("code", e.id);
    line.text("name", e.device == "vm" ? kvm::sev_command_name(e.id) : kvm::platform_command_name(e.id));
    if (e.error_number != 0) line.number("errno", static_cast<std::uint64_t>(e.error_number));
    if (e.error_number != 0) line.hex("status", e.firmware_error);
    line.number("ns", e.duration_ns);
  }
};

}  // namespace

bool is_traced(const kvm::GuestEvent& event) {
  return !std::holds_alternative<kvm::MemoryUse>(event) && !std::holds_alternative<kvm::PrivateStore>(event);
}

void append_trace_line(std::string& to, const kvm::Moment& moment, const kvm::GuestEvent& event) {
  if (!is_traced(event)) return;
  to += '{';
  Line line(to);
  line.number("t", moment.time_ns);
  // What the platform does is of no vCPU.
  if (!std::holds_alternative<kvm::FirmwareCommand>(event) && !std::holds_alternative<kvm::SevCall>(event)) {
    line.number("cpu", moment.vcpu);
    if (moment.rip != 0) line.hex("rip", moment.rip);
  }
  std::visit(Members{line}, event);
  to += "}\n";
}

namespace {

std::string request_text(const ghcb::Request& request) {
  const std::string name = fmt::format("{} ({:#x})", ghcb::exit_name(request.exit_code), request.exit_code);
  switch (request.exit_code) {
    case ghcb::kExitIoio:
      if (const auto io = ghcb::decode_ioio(request.exit_info_1)) {
        return fmt::format("{} {}{} {:#x}, {} bytes", name, io->in ? "in from" : "out to",
                           io->string ? " (string)" : "", io->port, io->size);
      }
      break;
    case ghcb::kExitCpuid:
      return fmt::format("{} leaf {:#x}", name, request.rax);
    case ghcb::kExitMsr:
      return fmt::format("{} {} {:#x}", name, request.exit_info_1 != 0 ? "write of" : "read of", request.rcx);
    case ghcb::kExitUnsupportedEvent:
      return fmt::format("{}: the guest cannot handle #VC {} ({:#x})", name, ghcb::exit_name(request.exit_info_1),
                         request.exit_info_1);
    default:
      break;
  }
  return fmt::format("{} with {:#x}, {:#x}", name, request.exit_info_1, request.exit_info_2);
}

struct Describe {
  std::string operator()(const kvm::VcRaised& e) const {
    return fmt::format("#VC {} ({:#x}) at CPL {}{}", ghcb::exit_name(e.code), e.code, e.cpl,
                       e.injected ? ", injected" : "");
  }
  std::string operator()(const kvm::VcDone& e) const { return fmt::format("end of #VC {}", ghcb::exit_name(e.code)); }
  std::string operator()(const kvm::MsrRequest& e) const {
    return fmt::format("VMGEXIT by MSR {} ({:#x})", msr_protocol_name(e.value), e.value);
  }
  std::string operator()(const kvm::MsrReply& e) const {
    return fmt::format("answer {} ({:#x})", msr_protocol_name(e.value), e.value);
  }
  std::string operator()(const kvm::PageRequest& e) const {
    if (!e.readable) return fmt::format("VMGEXIT with a GHCB at {:#x}, where there is no memory", e.page.value);
    return "VMGEXIT " + request_text(e.request);
  }
  std::string operator()(const kvm::PageReply& e) const {
    if (e.exit_info_1 == ghcb::kResultSuccess) return "answered";
    if (e.exit_info_1 == ghcb::kResultException) {
      return fmt::format("answered with exception {}", ghcb::decode_event(e.exit_info_2).vector);
    }
    return fmt::format("refused: {}", e.exit_info_2 < kInputErrors.size() ? kInputErrors[e.exit_info_2] : "unknown");
  }
  std::string operator()(const kvm::AutomaticExit& e) const {
    return fmt::format("exit {} ({:#x})", ghcb::exit_name(e.code), e.code);
  }
  std::string operator()(const kvm::Injection& e) const {
    const ghcb::Event event = ghcb::decode_event(e.event);
    return fmt::format("{} {} injected", event_type_name(event.type), event.vector);
  }
  std::string operator()(const kvm::FirmwareCommand& e) const { return fmt::format("{}: {:#x}", e.name, e.status); }
  std::string operator()(const kvm::UserExit& e) const {
    if (e.error_number != 0) return fmt::format("KVM_RUN failed with errno {}", e.error_number);
    if (e.size == 0) return fmt::format("KVM_EXIT_{}", kvm::exit_reason_name(e.reason));
    return fmt::format("KVM_EXIT_{} {} {:#x}, {} bytes", kvm::exit_reason_name(e.reason), e.write ? "write" : "read",
                       e.address, e.size);
  }
  std::string operator()(const kvm::MemoryUse&) const { return "memory"; }
  std::string operator()(const kvm::PrivateStore&) const { return "a secret"; }
  std::string operator()(const kvm::SevCall& e) const { return fmt::format("SEV command {}", e.id); }
};

}  // namespace

std::string describe(const kvm::GuestEvent& event) { return std::visit(Describe{}, event); }

}  // namespace sevisor::vmm
