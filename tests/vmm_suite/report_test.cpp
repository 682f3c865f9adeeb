#include <catch2/catch.hpp>
#include <nlohmann/json.hpp>

#include "vmm/suite/progress.hpp"
#include "vmm/suite/suite_report.hpp"
#include "vmm/suite/suite_run.hpp"

using namespace sevisor::suite;
using Catch::Matchers::Contains;

namespace {

std::vector<CaseResult> results() {
  CaseResult good;
  good.name = "boots";
  good.host = "emulated";
  good.seconds = 1.5;
  CaseResult bad = good;
  bad.name = "a < \"b\" & c";
  bad.verdict = Verdict::kFailed;
  bad.summary = "expected \x1b '>'";
  bad.last_lines = {"last line"};
  bad.exit_code = 32;
  CaseResult none = good;
  none.name = "no kernel";
  none.verdict = Verdict::kError;
  none.summary = "no such file";
  return {good, bad, none};
}

}  // namespace

TEST_CASE("JUnit XML has what CI systems look for") {
  const std::string xml = junit_report("suite", results());
  CHECK_THAT(xml, Contains(R"(<testsuite name="suite" tests="3" failures="1" errors="1" skipped="0" time="4.500">)"));
  CHECK_THAT(xml, Contains(R"(<testcase name="boots" classname="suite.emulated" time="1.500"></testcase>)"));
  CHECK_THAT(xml, Contains(R"(name="a &lt; &quot;b&quot; &amp; c")"));
  CHECK_THAT(xml, Contains(R"(<failure message="expected  '&gt;'">)"));
  CHECK_THAT(xml, Contains("last line"));
  CHECK_THAT(xml, Contains(R"(<error message="no such file">)"));
}

TEST_CASE("JUnit XML is what Jenkins' xUnit plugin and GitLab take") {
  const std::string xml = junit_report("suite", results());
  CHECK_THAT(xml, Contains(R"(<testsuites name="suite" tests="3" failures="1" errors="1" time="4.500">)"));
  CHECK_THAT(xml, !Contains("<testsuites name=\"suite\" tests=\"3\" failures=\"1\" errors=\"1\" skipped"));
}

TEST_CASE("whatever names and consoles hold, JUnit is well-formed XML") {
  CaseResult bad;
  bad.host = "emulated";
  bad.verdict = Verdict::kFailed;
  std::string all;
  for (int c = 0; c < 256; ++c) all += static_cast<char>(c);
  bad.name = "caf\xc3\xa9 \xf0\x9f\x90\xa7 ]]> \x01 \xff";
  bad.summary = all;
  // Cut off, too long, a surrogate, the two that are no characters, above the last one.
  bad.last_lines = {"\xc3",         "\xc0\xaf",     "\xe0\x80\xaf",     "\xed\xa0\x80",
                    "\xef\xbf\xbe", "\xef\xbf\xbf", "\xf4\x90\x80\x80", "\x80"};
  const std::string xml = junit_report("a\x1b]]>\xe2\x82", {bad});
  const std::string instead = "\xef\xbf\xbd";
  CHECK_THAT(xml, Contains("name=\"caf\xc3\xa9 \xf0\x9f\x90\xa7 ]]&gt;  " + instead + "\""));
  CHECK_THAT(xml, Contains("name=\"a]]&gt;" + instead) && !Contains("]]>"));
  for (const char c : xml) CHECK((static_cast<unsigned char>(c) >= 0x20 || c == '\n'));
  CHECK_THAT(xml, Contains("| " + instead + "&#10;    | " + instead + instead + "&#10;"));
}

TEST_CASE("the JSON report has a case's whole result") {
  const auto report = nlohmann::json::parse(json_report("suite", results()));
  CHECK(report["passed"] == 1);
  CHECK(report["failed"] == 1);
  CHECK(report["errors"] == 1);
  CHECK(report["cases"][1]["verdict"] == "failed");
  CHECK(report["cases"][1]["exit"]["code"] == 32);
  CHECK(report["cases"][1]["last_lines"][0] == "last line");
  CHECK_FALSE(report["cases"][0].contains("summary"));
  CHECK(summary_text(results()) == "1 passed, 1 failed, 1 could not run");
}

TEST_CASE("a log's name is safe and a case's own") {
  CHECK(log_name("a/../b c", "emulated", 4) == "005-a_.._b_c-emulated.log");
  CHECK(log_name(std::string(500, 'x'), "kernel", 0) != log_name(std::string(500, 'x'), "kernel", 1));
}

TEST_CASE("without a terminal each finished case is a line, and a failed one says why") {
  std::FILE* file = std::tmpfile();
  REQUIRE(file != nullptr);
  {
    Progress progress(file, false, 3);
    progress.started(0, "boots (emulated)");
    progress.doing(0, "step 1");
    progress.tick();
    progress.finished(0, results()[0]);
    progress.started(1, "bad (emulated)");
    progress.finished(1, results()[1]);
  }
  std::rewind(file);
  char text[4096] = {};
  (void)std::fread(text, 1, sizeof text - 1, file);
  std::fclose(file);
  CHECK_THAT(text, Contains("PASS [1/3] boots (emulated) (1.5 s)\n") && Contains("FAIL [2/3] bad") &&
                       Contains("| last line") && !Contains("step 1") && !Contains("\x1b["));
}
