// Lines of a trace, their summary, and what a crash report keeps of them.
#include <catch2/catch.hpp>
#include <nlohmann/json.hpp>
#include <sstream>

#include "base/error.hpp"
#include "ghcb/exit_code.hpp"
#include "ghcb/ioio.hpp"
#include "vmm/trace/recent_events.hpp"
#include "vmm/trace/trace_line.hpp"
#include "vmm/trace/trace_summary.hpp"

using namespace sevisor;
using namespace sevisor::vmm;

namespace {

nlohmann::json line_of(const kvm::Moment& moment, const kvm::GuestEvent& event) {
  std::string text;
  append_trace_line(text, moment, event);
  REQUIRE(text.back() == '\n');
  CHECK(text.find('\n') == text.size() - 1);
  return nlohmann::json::parse(text);
}

ghcb::Request request_of(ghcb::ExitCode code, std::uint64_t info_1 = 0, std::uint64_t info_2 = 0) {
  return {.exit_code = code, .exit_info_1 = info_1, .exit_info_2 = info_2};
}

constexpr const char* kFirst = "{\"trace\":\"sevisor\",\"version\":1}\n";

TraceSummary sum_up(const std::string& lines) {
  std::istringstream in(kFirst + lines);
  return summarise_trace(in, "a trace");
}

std::string refusal(const std::string& file) {
  std::istringstream in(file);
  try {
    (void)summarise_trace(in, "a trace");
  } catch (const Error& error) {
    CHECK(error.exit_code() == ExitCode::kBadUsage);
    return error.what();
  }
  return "accepted";
}

const TraceSummary::Row& row(const TraceSummary& summary, const std::string& kind, const std::string& name) {
  for (const auto& r : summary.rows) {
    if (r.kind == kind && r.name == name) return r;
  }
  FAIL("no row " << kind << " " << name);
  return summary.rows.front();
}

bool has(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

}  // namespace

TEST_CASE("each event is a line of JSON with its fields decoded") {
  const kvm::Moment moment{.time_ns = 1234, .vcpu = 2, .rip = 0xffffffff81000000};
  auto line = line_of(moment, kvm::VcRaised{.code = ghcb::kExitCpuid, .cpl = 3});
  CHECK(line["t"] == 1234);
  CHECK(line["cpu"] == 2);
  CHECK(line["rip"] == "0xffffffff81000000");
  CHECK(line["ev"] == "vc");
  CHECK(line["code"] == "0x72");
  CHECK(line["name"] == "CPUID");
  CHECK(line["cpl"] == 3);
  CHECK_FALSE(line.contains("injected"));

  ghcb::Request out = request_of(ghcb::kExitIoio, encode(ghcb::IoAccess{.port = 0x3f8, .size = 2}));
  out.rax = 0x11223344;
  out.valid.set(ghcb::Field::kRax);
  line = line_of(moment, kvm::PageRequest{.page = Gpa(0x809000), .request = out});
  CHECK(line["ev"] == "vmgexit");
  CHECK(line["ghcb"] == "0x809000");
  CHECK(line["name"] == "IOIO");
  CHECK(line["port"] == "0x3f8");
  CHECK(line["dir"] == "out");
  CHECK(line["size"] == 2);
  CHECK(line["value"] == "0x3344");
  CHECK(line["valid"] == "rax");

  ghcb::Request msr = request_of(ghcb::kExitMsr);
  msr.rax = 0xfee00900;
  msr.rdx = 1;
  msr.rcx = 0x1b;
  line = line_of(moment, kvm::PageReply{.page = Gpa(0x809000), .request = msr});
  CHECK(line["ev"] == "reply");
  CHECK(line["value"] == "0x1fee00900");
  line = line_of(moment, kvm::PageReply{.request = msr, .exit_info_1 = 1, .exit_info_2 = 0x8000030d});
  CHECK(line["raises"] == 13);
  line = line_of(moment, kvm::PageReply{.request = msr, .exit_info_1 = 2, .exit_info_2 = 4});
  CHECK(line["refused"] == "missing input");
  line = line_of(moment, kvm::PageReply{.request = msr, .exit_info_1 = 2, .exit_info_2 = 4000});
  CHECK(line["refused"] == "unknown");

  const std::array<std::byte, 4> data{std::byte{0xde}, std::byte{0xad}, std::byte{0xbe}, std::byte{0xef}};
  line = line_of(moment, kvm::PageReply{.request = request_of(ghcb::kExitMmioRead, 0xfee00020, 4), .data = data});
  CHECK(line["data"] == "deadbeef");
  CHECK(line_of(moment, kvm::PageRequest{.page = Gpa(1 << 30), .readable = false})["refused"] == "no memory");

  line = line_of(moment, kvm::MsrRequest{0x4000'001f'4000'0004});
  CHECK(line["name"] == "CPUID_REQ");
  CHECK(line["leaf"] == "0x4000001f");
  CHECK(line["register"] == 1);
  line = line_of(moment, kvm::MsrRequest{0x12100});
  CHECK(line["name"] == "TERM_REQ");
  CHECK(line["reason_set"] == 2);
  CHECK(line["reason"] == 1);
  line = line_of(moment, kvm::Injection{0x800000ec});
  CHECK(line["type"] == "interrupt");
  CHECK(line["vector"] == 0xec);
  line = line_of({}, kvm::FirmwareCommand{.id = 0x30, .name = "LAUNCH_START", .handle = 7, .status = 0});
  CHECK(line["guest"] == 7);
  CHECK(line["status_name"] == "SUCCESS");
  CHECK_FALSE(line.contains("cpu"));
  line = line_of(moment, kvm::AutomaticExit{.code = ghcb::kExitHlt});
  CHECK(line["name"] == "HLT");
  line = line_of(moment, kvm::UserExit{.reason = 2, .write = true, .address = 0x3f8, .size = 1, .handling_ns = 55});
  CHECK(line["name"] == "IO");
  CHECK(line["ns"] == 55);
  line = line_of(moment, kvm::SevCall{.device = "vm", .id = 2, .error_number = 5, .firmware_error = 7});
  CHECK(line["name"] == "LAUNCH_START");
  CHECK(line["errno"] == 5);
  CHECK(line["status"] == "0x7");
}

TEST_CASE("a summary counts, adds up times and finds the slowest") {
  const TraceSummary s = sum_up(
      R"({"t":0,"ev":"psp","name":"INIT","status_name":"SUCCESS"}
{"t":0,"ev":"psp","name":"LAUNCH_START","status_name":"POLICY_FAILURE"}
{"t":0,"ev":"host","name":"emulated","cpus":2}
{"t":100,"cpu":0,"rip":"0x10","ev":"vc","name":"CPUID"}
{"t":110,"cpu":0,"ev":"vmgexit","name":"CPUID"}
{"t":110,"cpu":0,"ev":"reply","name":"CPUID"}
{"t":150,"cpu":0,"rip":"0x10","ev":"vc_done","name":"CPUID","ns":50}
{"t":200,"cpu":1,"rip":"0x20","ev":"vc","name":"CPUID"}
{"t":210,"cpu":1,"ev":"vmgexit","name":"CPUID"}
{"t":210,"cpu":1,"ev":"reply","name":"CPUID","refused":"missing input"}
{"t":9000,"cpu":1,"rip":"0x20","ev":"vc_done","name":"CPUID","ns":8800}
{"t":9500,"cpu":1,"ev":"exit","name":"HLT"}
{"t":9900,"cpu":1,"ev":"inject","type":"interrupt","vector":236}
{"t":9901,"cpu":1,"ev":"of a later version","name":"x"}
)");
  CHECK(s.host == "emulated");
  CHECK(s.cpus == 2);
  CHECK(s.events == 13);
  CHECK(s.last_ns == 9901);
  CHECK_FALSE(s.cut_off);
  CHECK(row(s, "vc", "CPUID").count == 2);
  CHECK(row(s, "vc", "CPUID").timed == 2);
  CHECK(row(s, "vc", "CPUID").total_ns == 8850);
  CHECK(row(s, "vc", "CPUID").longest_ns == 8800);
  CHECK(row(s, "vmgexit", "CPUID").count == 2);
  CHECK(row(s, "vmgexit", "CPUID").refused == 1);
  CHECK(row(s, "psp", "INIT").refused == 0);
  CHECK(row(s, "psp", "LAUNCH_START").refused == 1);
  CHECK(row(s, "inject", "interrupt 236").count == 1);
  REQUIRE(s.slowest.size() == 2);
  CHECK(s.slowest[0].duration_ns == 8800);
  CHECK(s.slowest[0].rip == "0x20");
  CHECK(s.slowest[0].cpu == 1);
  // Two VMGEXITs in the first microsecond, HLT in the tenth.
  CHECK(s.bucket_ns == 1000);
  REQUIRE(s.timeline.size() == 10);
  CHECK(s.timeline_names == std::vector<std::string>{"CPUID", "HLT"});
  CHECK(s.timeline[0] == TraceSummary::Bucket{2, 0});
  CHECK(s.timeline[9] == TraceSummary::Bucket{0, 1});
}

TEST_CASE("the timeline widens with the trace, and its names are bounded") {
  std::string lines;
  for (unsigned i = 0; i < 1000; ++i) {
    lines += "{\"t\":" + std::to_string(std::uint64_t{i} * 1'000'000'000) + ",\"cpu\":0,\"ev\":\"exit\",\"name\":\"E" +
             std::to_string(i) + "\",\"ns\":" + std::to_string(i) + "}\n";
  }
  lines += "{\"t\":18446744073709551615,\"cpu\":0,\"ev\":\"exit\",\"name\":\"E1\",\"ns\":18446744073709551615}\n";
  const TraceSummary s = sum_up(lines);
  CHECK(s.events == 1001);
  CHECK(s.rows.size() <= 513);
  CHECK(row(s, "exit", "others").count == 1000 - 512);
  CHECK(row(s, "exit", "E1").total_ns == ~std::uint64_t{0});  // 1 and the greatest number: not wrapped
  CHECK(s.slowest.size() == 20);
  CHECK(s.timeline.size() <= 120);
  CHECK(s.timeline_names.size() == 9);
  CHECK(s.timeline_names.back() == "others");
  std::uint64_t counted = 0;
  for (const auto& bucket : s.timeline) {
    for (const std::uint64_t n : bucket) counted += n;
  }
  CHECK(counted == 1001);
}

TEST_CASE("a file that is no trace is refused, with the line that is wrong") {
  CHECK(has(refusal(""), "nothing behind"));
  CHECK(has(refusal("hello\n"), "line 1: not a JSON object"));
  CHECK(has(refusal("{\"trace\":\"other\",\"version\":1}\n"), "line 1: not the first line of a trace"));
  CHECK(has(refusal("{\"trace\":\"sevisor\",\"version\":2}\n"), "line 1: a version"));
  CHECK(has(refusal(kFirst), "nothing behind"));
  CHECK(has(refusal(kFirst + std::string("{\"t\":1,\"ev\":\"vc\"}\n[]\n")), "line 3: not a JSON object"));
  CHECK(has(refusal(kFirst + std::string("{\"ev\":\"vc\"}\n")), "line 2: without a time"));
  CHECK(has(refusal(kFirst + std::string("{\"t\":-1,\"ev\":\"vc\"}\n")), "line 2: without a time"));
  CHECK(has(refusal(kFirst + std::string(70000, 'x')), "line 2: longer than"));
  CHECK(has(refusal(kFirst + std::string(60000, '[') + "\n"), "line 2: not a JSON object"));
  // Only the very end may be missing.
  const TraceSummary s = sum_up("{\"t\":1,\"ev\":\"vc\",\"name\":\"CPUID\"}\n{\"t\":2,\"ev");
  CHECK(s.cut_off);
  CHECK(s.events == 1);
}

TEST_CASE("what a trace says is shown, not obeyed") {
  const TraceSummary s = sum_up(
      "{\"t\":1,\"ev\":\"vc\",\"name\":\"\\u001b[2J<script>alert('&\\\")</script>\"}\n"
      "{\"t\":5,\"ev\":\"run\",\"name\":\"IO\",\"ns\":3,\"rip\":\"<img src=x>\"}\n");
  const std::string text = trace_text(s);
  CHECK_FALSE(has(text, "\x1b"));
  CHECK(has(text, "?[2J<script>"));
  const std::string html = trace_html(s, "Trace of <b>");
  CHECK_FALSE(has(html, "<script"));
  CHECK_FALSE(has(html, "<img"));
  CHECK(has(html, "&lt;script&gt;"));
  CHECK(has(html, "Trace of &lt;b&gt;"));
  CHECK(has(html, "<svg"));
  CHECK_FALSE(has(html, "http"));  // refers to nothing outside
}

TEST_CASE("a crash report has what a vCPU did last, its last #VC in any case") {
  RecentEvents recent;
  CHECK(recent.describe(0).empty());
  recent.observe({.time_ns = 1'000'000, .vcpu = 0, .rip = 0xfff0}, kvm::VcRaised{.code = ghcb::kExitCpuid, .cpl = 0});
  recent.observe({.time_ns = 1, .vcpu = 1}, kvm::AutomaticExit{.code = ghcb::kExitHlt});
  {
    const std::vector<std::byte> gone(8);
    recent.observe({.vcpu = 0},
                   kvm::PageReply{.request = request_of(ghcb::kExitMmioRead, 0xfee00000, 8), .data = gone});
  }
  REQUIRE(recent.describe(0).size() == 2);
  CHECK(recent.describe(0)[0] == "1.000000 ms rip 0xfff0: #VC CPUID (0x72) at CPL 0");
  CHECK(recent.describe(1).size() == 1);
  for (unsigned i = 0; i < 100; ++i) {
    recent.observe({.vcpu = 0}, kvm::PageRequest{.page = Gpa(0x1000), .request = request_of(ghcb::kExitMsr, i & 1)});
    recent.observe({.vcpu = 0}, kvm::VcDone{.code = ghcb::kExitMsr});  // says nothing new
  }
  const auto lines = recent.describe(0);
  REQUIRE(lines.size() == RecentEvents::kKept + 1);
  CHECK(has(lines.front(), "#VC CPUID"));
  CHECK(has(lines.back(), "VMGEXIT MSR (0x7c) write of"));
}
