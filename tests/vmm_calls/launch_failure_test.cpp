// A launch in which one call fails: each call once, taken from a record of a launch that works.
#include <catch2/catch.hpp>
#include <cerrno>
#include <filesystem>
#include <iterator>

#include "base/error.hpp"
#include "tests/vmm_calls/launches.hpp"

using namespace sevisor;
using namespace sevisor::test;

namespace {

constexpr std::uint32_t kResourceLimit = 23;  // of the Secure Processor's status codes

std::ptrdiff_t open_files() {
  const std::filesystem::directory_iterator folder("/proc/self/fd");
  return std::distance(begin(folder), end(folder));
}

bool is_release(const std::string& call) { return call == "close" || call == "munmap"; }
// The kernel answers 0 when it does not know a capability; a failure is taken for the same.
bool may_be_absent(const std::string& call) { return call == "KVM_CHECK_EXTENSION"; }
bool is_sev_command(const std::string& call) { return call.starts_with("LAUNCH_") || call.starts_with("SEV_"); }

void check_all_failures(vmm::InitApi api) {
  const Launches launches(2);
  const std::size_t asids = launches.free_asids();
  REQUIRE(asids > 0);
  std::map<std::string, std::uint64_t> seen;
  std::size_t checked = 0;
  for (const auto& record : launches.record(api)) {
    const std::string call = record["call"];
    const std::uint64_t number = ++seen[call];
    for (const int error_number : {EIO, ENOMEM, EINTR}) {
      INFO(call << ", number " << number << ", error " << error_number);
      CountingHost::Open open;
      const std::ptrdiff_t files = open_files();
      const auto host =
          kvm::make_failing_host(launches.counted(open), {.call = call,
                                                          .number = number,
                                                          .error_number = error_number,
                                                          .firmware_status = error_number == EIO ? kResourceLimit : 0});
      bool failed = false;
      try {
        launches.launch(*host, api);
      } catch (const Error& error) {
        failed = true;
        INFO(error.what());
        // With INIT2 asked for, an absent capability is the reason.
        CHECK(error.exit_code() == ExitCode::kHostCannot);
        if (may_be_absent(call)) {
          CHECK(error.tried().find("KVM_SEV_INIT2") != std::string::npos);
        } else if (call == "mmap") {
          CHECK(error.tried().find("map the run area of vCPU " + std::to_string(number - 1)) != std::string::npos);
        } else {
          CHECK(error.tried().find(call) != std::string::npos);
        }
        if (!may_be_absent(call)) CHECK(error.came_back().find(strerrorname_np(error_number)) != std::string::npos);
        if (is_sev_command(call) && error_number == EIO) {
          CHECK(error.came_back().find("RESOURCE_LIMIT") != std::string::npos);
        }
        if (error_number == ENOMEM) CHECK_FALSE(error.advice().empty());
      }
      if (!may_be_absent(call)) CHECK(failed == !is_release(call));
      CHECK(open.descriptors == 0);
      CHECK(open.areas == 0);
      CHECK(open.pinned.empty());
      CHECK(launches.guests() == 0);
      CHECK(open_files() == files);
      ++checked;
    }
  }
  CHECK(checked > 90);
  // After all of them the host is as good as new.
  CHECK(launches.free_asids() == asids);
  CountingHost::Open open;
  const auto host = launches.counted(open);
  CHECK_NOTHROW(launches.launch(*host, api));
}

}  // namespace

TEST_CASE("whichever call of a launch by KVM_SEV_ES_INIT fails, the message says so and nothing is left behind") {
  check_all_failures(vmm::InitApi::kEsInit);
}

TEST_CASE("whichever call of a launch by KVM_SEV_INIT2 fails, the message says so and nothing is left behind") {
  check_all_failures(vmm::InitApi::kInit2);
}
