// `sevisor firmware` says of known images what is known of them.
#include "tool.hpp"

using namespace sevisor;
using namespace sevisor::test;
using nlohmann::json;

namespace {

std::string synth(const char* name) { return std::string(SEVISOR_SOURCE_DIR) + "/tests/data/measurement/fw/" + name; }

json facts(const WorkFolder& folder, const std::string& file, int code) {
  const Result result = sevisor::test::sevisor(folder, {"firmware", "--json", file});
  CAPTURE(file, result.err);
  CHECK(result.code == code);
  return json::parse(result.out);
}

}  // namespace

TEST_CASE("firmware tells apart Debian's two builds of OVMF") {
  const WorkFolder folder;
  const std::string usable = "/usr/share/OVMF/OVMF_CODE.fd";
  const std::string unusable = "/usr/share/OVMF/OVMF_CODE_4M.fd";
  if (!read_file(usable) || !read_file(unusable)) {
    skip("Debian's package ovmf is not here");
    return;
  }
  const json good = facts(folder, usable, 0);
  CHECK(good["can"]["sev_es"]["answer"] == true);
  CHECK(good["can"]["more_vcpus"]["answer"] == true);
  CHECK_THAT(good["can"]["more_vcpus"]["why"].get<std::string>(), Catch::Contains("0x80b004"));
  CHECK(good["can"]["measured_direct_boot"]["answer"] == false);
  CHECK(good["can"]["launch_secret"]["answer"] == false);
  CHECK(good["snp_metadata"].size() == 5);  // as OvmfPkgX64 of edk2-stable202211 has them
  CHECK(good["snp_metadata"][2]["base"] == 0x80d000);

  const json bad = facts(folder, unusable, 1);
  CHECK(bad["can"]["sev_es"]["answer"] == false);
  CHECK_THAT(bad["can"]["sev_es"]["why"].get<std::string>(), Catch::Contains("32-bit"));
  CHECK(bad["snp_metadata"].empty());
}

TEST_CASE("firmware says what the synthetic images lack") {
  const WorkFolder folder;
  const json full = facts(folder, synth("synth-full.fd"), 0);
  CHECK(full["can"]["measured_direct_boot"]["answer"] == true);
  CHECK_THAT(full["can"]["measured_direct_boot"]["why"].get<std::string>(), Catch::Contains("0x810c00"));
  CHECK_THAT(full["can"]["launch_secret"]["why"].get<std::string>(), Catch::Contains("3072 bytes at 0x810000"));
  CHECK(facts(folder, synth("synth-zeroreset.fd"), 0)["can"]["more_vcpus"]["answer"] == false);
  CHECK(facts(folder, synth("synth-noreset.fd"), 1)["can"]["sev_es"]["answer"] == false);
  const json none = facts(folder, synth("synth-nofooter.fd"), 1);
  CHECK_THAT(none["can"]["sev_es"]["why"].get<std::string>(), Catch::Contains("there is none"));
}

TEST_CASE("firmware reads our own image") {
  const WorkFolder folder;
  const Result own = sevisor::test::sevisor(folder, {"firmware"});
  CHECK(own.code == 0);
  CHECK_THAT(own.out, Catch::Contains("run as a SEV-ES guest? Yes"));
  CHECK_THAT(own.out, Catch::Contains("boot a measured kernel? Yes"));
  CHECK_THAT(own.out, Catch::Contains("receive a launch secret? Yes"));
  check_refused(sevisor::test::sevisor(folder, {"firmware", "/nonexistent"}), "No such file");
}
