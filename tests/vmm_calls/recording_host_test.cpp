#include "kvm/recording_host.hpp"

#include <catch2/catch.hpp>
#include <cerrno>
#include <nlohmann/json.hpp>

#include "base/error.hpp"
#include "tests/vmm/scripted_host.hpp"

using namespace sevisor;
using namespace sevisor::kvm;
using nlohmann::json;
using sevisor::test::ScriptedHost;

namespace {

struct Fixture {
  ScriptedHost* inner = nullptr;
  std::vector<json> records;
  std::unique_ptr<Host> host;
  Fixture() {
    auto scripted = std::make_unique<ScriptedHost>();
    inner = scripted.get();
    host = make_recording_host(std::move(scripted),
                               [this](std::string_view line) { records.push_back(json::parse(line)); });
  }
};

}  // namespace

TEST_CASE_METHOD(Fixture, "what is asked, what comes back, and errno are recorded, and passed on") {
  CHECK(host->name() == "scripted");
  CHECK(host->open("/dev/kvm", 2) == ScriptedHost::kKvmFd);
  inner->answers[KVM_GET_CLOCK] = [](void* argument) {
    static_cast<kvm_clock_data*>(argument)->clock = 42;
    return 0;
  };
  kvm_clock_data clock{};
  CHECK(host->ioctl(7, KVM_GET_CLOCK, &clock) == 0);
  inner->answers[KVM_IRQ_LINE] = [](void*) { return -ENXIO; };
  kvm_irq_level level{};
  level.irq = 4;
  level.level = 1;
  errno = 0;
  CHECK(host->ioctl(8, KVM_IRQ_LINE, &level) == -1);
  CHECK(errno == ENXIO);
  CHECK(host->ioctl(8, 0x1234, nullptr) == 0);
  REQUIRE(records.size() == 4);
  CHECK(records[0] == json({{"n", 1}, {"call", "open /dev/kvm"}, {"request", {{"flags", 2}}}, {"result", 100}}));
  CHECK(records[1]["answer"]["clock"] == 42);
  CHECK(records[1]["number"] == "0x8030ae7c");
  CHECK(records[2]["request"] == json({{"irq", 4}, {"level", 1}}));
  CHECK(records[2]["errno"] == "ENXIO");
  CHECK(records[3]["call"] == "ioctl 0x1234");
}

TEST_CASE_METHOD(Fixture, "exits of KVM_RUN are decoded from the run area") {
  auto* run = static_cast<kvm_run*>(host->mmap(103, kVcpuMmapSize));
  REQUIRE(run != nullptr);
  const auto exit = [&](std::uint32_t reason) {
    run->exit_reason = reason;
    CHECK(host->ioctl(103, KVM_RUN, nullptr) == 0);
    return records.back()["answer"];
  };
  run->io.direction = KVM_EXIT_IO_OUT;
  run->io.port = 0x3f8;
  run->io.size = 1;
  run->io.count = 1;
  CHECK(exit(KVM_EXIT_IO)["io"] == json({{"direction", "out"}, {"size", 1}, {"port", "0x3f8"}, {"count", 1}}));
  run->mmio.phys_addr = 0xfed00000;
  run->mmio.len = 4;
  run->mmio.is_write = 1;
  CHECK(exit(KVM_EXIT_MMIO)["mmio"]["phys_addr"] == "0xfed00000");
  run->system_event.type = KVM_SYSTEM_EVENT_SEV_TERM;
  run->system_event.ndata = 1;
  run->system_event.data[0] = 0x100;
  CHECK(exit(KVM_EXIT_SYSTEM_EVENT)["system_event"]["data"] == "0x100");
  CHECK(exit(KVM_EXIT_SHUTDOWN) == json({{"reason", KVM_EXIT_SHUTDOWN}}));
  // After the area is gone nothing is read from it.
  CHECK(host->munmap(run, kVcpuMmapSize) == 0);
  CHECK(host->close(103) == 0);
  CHECK(host->ioctl(103, KVM_RUN, nullptr) == 0);
  CHECK_FALSE(records.back().contains("answer"));
}

TEST_CASE("the call that shall fail does, and no other") {
  auto scripted = std::make_unique<ScriptedHost>();
  ScriptedHost* inner = scripted.get();
  const auto host = make_failing_host(std::move(scripted), parse_fault("LAUNCH_START:2:EIO:7"));
  kvm_sev_cmd command{};
  command.id = KVM_SEV_LAUNCH_START;
  CHECK(host->ioctl(1, KVM_MEMORY_ENCRYPT_OP, &command) == 0);
  errno = 0;
  CHECK(host->ioctl(1, KVM_MEMORY_ENCRYPT_OP, &command) == -1);
  CHECK(errno == EIO);
  CHECK(command.error == 7);
  CHECK(inner->calls.size() == 1);
  CHECK(host->ioctl(1, KVM_MEMORY_ENCRYPT_OP, &command) == 0);
}

TEST_CASE("a failure is read from text") {
  const Fault plain = parse_fault("open /dev/sev");
  CHECK(plain.call == "open /dev/sev");
  CHECK(plain.number == 1);
  CHECK(plain.error_number == EIO);
  CHECK(plain.firmware_status == 0);
  CHECK(parse_fault("KVM_CREATE_VCPU:3:EBUSY").error_number == EBUSY);
  for (const char* bad : {"", ":1", "A:0", "A:x", "A:1:EWHAT", "A:1:EIO:x", "A:1:EIO:1:1"}) {
    INFO(bad);
    CHECK_THROWS_AS(parse_fault(bad), Error);
  }
}

TEST_CASE("a failure of a call that there is not is refused, with those that there are") {
  for (const char* bad : {"FOO", "KVM_RUNN:1:EIO", "launch_start", "open /dev/null", "open", "ioctl 0x"}) {
    INFO(bad);
    try {
      (void)parse_fault(bad);
      FAIL("it was taken");
    } catch (const Error& error) {
      CHECK(error.exit_code() == ExitCode::kBadUsage);
      CHECK(error.came_back().find("there is no call") != std::string::npos);
      CHECK(error.advice().find("LAUNCH_MEASURE") != std::string::npos);
    }
  }
  for (const char* good :
       {"open /dev/kvm", "mmap", "SEV_PDH_CERT_EXPORT", "ioctl 0xae99:2", "SEV command 77", "KVM_MEMORY_ENCRYPT_OP"}) {
    INFO(good);
    CHECK_NOTHROW(parse_fault(good));
  }
}

TEST_CASE("it is counted how often the call that shall fail came") {
  const auto count = std::make_shared<std::atomic<std::uint64_t>>(0);
  const auto host = make_failing_host(std::make_unique<ScriptedHost>(), parse_fault("KVM_GET_API_VERSION:9"), count);
  for (int i = 0; i < 3; ++i) CHECK(host->ioctl(1, KVM_GET_API_VERSION, nullptr) >= 0);
  (void)host->ioctl(1, KVM_CREATE_VM, nullptr);
  CHECK(*count == 3);
}
