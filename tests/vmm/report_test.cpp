#include <catch2/catch.hpp>
#include <cstdlib>
#include <fcntl.h>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <string>
#include <sys/stat.h>

#include "base/error.hpp"
#include "base/output_file.hpp"
#include "vmm/boot/input_file.hpp"
#include "vmm/run/json_report.hpp"
#include "vmm/run/report_file.hpp"

using namespace sevisor;
using namespace sevisor::vmm;
namespace fs = std::filesystem;

namespace {

class Folder {
 public:
  Folder() {
    std::string pattern = (fs::temp_directory_path() / "sevisor-test.XXXXXX").string();
    REQUIRE(::mkdtemp(pattern.data()) != nullptr);
    path_ = pattern;
  }
  ~Folder() { fs::remove_all(path_); }
  [[nodiscard]] std::string at(const char* name) const { return (path_ / name).string(); }
  [[nodiscard]] std::ptrdiff_t files() const { return std::distance(fs::directory_iterator(path_), {}); }

 private:
  fs::path path_;
};

std::string text_of(const std::string& path) {
  std::ifstream file(path);
  return {std::istreambuf_iterator<char>(file), {}};
}

}  // namespace

TEST_CASE("the report has what users rely on") {
  ReportContents contents{.host = "emulated", .policy = 5, .cpus = 2, .cpu_type = "EPYC-v4", .launch = {}};
  contents.launch.init_api = "KVM_SEV_ES_INIT";
  contents.launch.api = {1, 55, 21};
  contents.launch.digest.fill(std::byte{0xab});
  const auto report = nlohmann::json::parse(json_report(contents, Outcome(ExitCode::kTimedOut, "late")));
  CHECK(report["host"] == "emulated");
  CHECK(report["init_api"] == "KVM_SEV_ES_INIT");
  CHECK(report["policy"] == 5);
  CHECK(report["api_major"] == 1);
  CHECK(report["api_minor"] == 55);
  CHECK(report["build_id"] == 21);
  CHECK(report["launch_digest"].get<std::string>().substr(0, 4) == "abab");
  CHECK(report["launch_digest"].get<std::string>().size() == 64);
  CHECK(report["measurement"].get<std::string>().size() == 64);
  CHECK(report["cpus"] == 2);
  CHECK(report["cpu_type"] == "EPYC-v4");
  CHECK(report["exit"]["code"] == 36);
  CHECK(report["exit"]["reason"] == "late");
}

TEST_CASE("a report replaces the file as a whole, and nothing is left beside it") {
  const Folder folder;
  const ReportFile file(folder.at("report.json"), "--json");
  CHECK(folder.files() == 0);
  file.write("one");
  CHECK(text_of(folder.at("report.json")) == "one");
  file.write("two");
  CHECK(text_of(folder.at("report.json")) == "two");
  CHECK(folder.files() == 1);
}

TEST_CASE("a report that could not be written is refused before there is anything to report") {
  const Folder folder;
  CHECK_THROWS_AS(ReportFile("", "--json"), Error);
  CHECK_THROWS_AS(ReportFile(folder.at(""), "--json"), Error);
  CHECK_THROWS_AS(ReportFile(folder.at("no/such/report.json"), "--json"), Error);
  CHECK_NOTHROW(ReportFile("/dev/null", "--json").write("text"));
  CHECK(folder.files() == 0);
}

TEST_CASE("a symbolic link is written through, and stays one") {
  const Folder folder;
  std::ofstream(folder.at("real")) << "a longer text than the report";
  fs::create_symlink("real", folder.at("link"));
  fs::create_symlink("link", folder.at("link of a link"));
  fs::create_symlink("made by it", folder.at("link to nothing yet"));
  for (const char* name : {"link", "link of a link", "link to nothing yet"}) {
    CAPTURE(name);
    ReportFile(folder.at(name), "--json").write(name);
    CHECK(fs::is_symlink(folder.at(name)));
    CHECK(text_of(folder.at(name)) == name);
  }
  CHECK(text_of(folder.at("real")) == "link of a link");
  CHECK(text_of(folder.at("made by it")) == "link to nothing yet");
  fs::create_symlink("no/such/folder", folder.at("astray"));
  CHECK_THROWS_AS(ReportFile(folder.at("astray"), "--json"), Error);
}

TEST_CASE("a descriptor by whatever name is written where it stands") {
  const Folder folder;
  const UniqueFd fd(::open(folder.at("file").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
  REQUIRE(::write(fd.get(), "before ", 7) == 7);
  const std::string name = "/dev/fd/" + std::to_string(fd.get());
  fs::create_symlink("/proc/self/fd/" + std::to_string(fd.get()), folder.at("my stdout"));
  for (const std::string& path : {name, folder.at("my stdout")}) ReportFile(path, "--json").write("one ");
  REQUIRE(::write(fd.get(), "after", 5) == 5);
  CHECK(text_of(folder.at("file")) == "before one one after");
  CHECK(fs::is_symlink(folder.at("my stdout")));
  CHECK(descriptor_named("-") == 1);
  CHECK(descriptor_named("/dev/stdout") == 1);
  CHECK(descriptor_named("/dev/stderr") == 2);
  CHECK_FALSE(descriptor_named("/dev/null"));
  CHECK_FALSE(descriptor_named("/dev/fd/x"));
  CHECK_FALSE(descriptor_named(folder.at("file")));
  fs::create_symlink("round", folder.at("round"));
  CHECK_FALSE(descriptor_named(folder.at("round")));
  CHECK_THROWS_AS(ReportFile("/dev/fd/987", "--json"), Error);
}

TEST_CASE("a full disk is an error of the option whose file it is") {
  for (const char* option : {"--json", "--junit", "--launch-report", "--html"}) {
    try {
      ReportFile("/dev/full", option).write("text");
      FAIL("it was taken");
    } catch (const Error& error) {
      CHECK(error.exit_code() == ExitCode::kBadUsage);
      CHECK(error.came_back().find("ENOSPC") != std::string::npos);
      CHECK(error.advice().find(option) != std::string::npos);
    }
  }
}

TEST_CASE("a run that came to no guest has a report of its end alone") {
  const auto report = nlohmann::json::parse(json_failure_report({ExitCode::kHostCannot, "open /dev/kvm: no"}));
  CHECK(report == nlohmann::json::parse(R"({"exit": {"code": 38, "reason": "open /dev/kvm: no"}})"));
}

TEST_CASE("input files are read whole, or refused with their name") {
  const Folder folder;
  std::ofstream(folder.at("kernel")) << "0123456789";
  CHECK(read_input_file("kernel", folder.at("kernel"), 10)->size() == 10);
  CHECK_THROWS_AS(read_input_file("kernel", folder.at("kernel"), 9), Error);
  std::ofstream(folder.at("empty")).flush();
  CHECK_THROWS_AS(read_input_file("kernel", folder.at("empty"), 10), Error);
  CHECK_THROWS_AS(read_input_file("kernel", folder.at(""), 10), Error);
  REQUIRE(::mkfifo(folder.at("fifo").c_str(), 0600) == 0);
  CHECK_THROWS_AS(read_input_file("kernel", folder.at("fifo"), 10), Error);  // and does not hang
  try {
    (void)read_input_file("initrd", folder.at("none"), 10);
    FAIL("read what is not there");
  } catch (const Error& error) {
    CHECK(error.exit_code() == ExitCode::kBadUsage);
    CHECK(std::string(error.what()).find(folder.at("none")) != std::string::npos);
    CHECK(error.advice().find("--initrd") != std::string::npos);
  }
}
