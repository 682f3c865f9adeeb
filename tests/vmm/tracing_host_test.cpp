// What can be seen above a host that says nothing itself.
#include "vmm/trace/tracing_host.hpp"

#include <array>
#include <catch2/catch.hpp>
#include <cerrno>
#include <vector>

#include "kvm/abi.hpp"

using namespace sevisor;

namespace {

struct ScriptedHost final : kvm::Host {
  kvm_run* area = nullptr;
  bool vm_fails = false;
  [[nodiscard]] std::string_view name() const noexcept override { return "scripted"; }
  int open(const char* path, int) override { return std::string_view(path) == "/dev/sev" ? 3 : 4; }
  int ioctl(int, unsigned long request, void* argument) override {
    switch (request) {
      case KVM_CREATE_VM:
        return 5;
      case KVM_CREATE_VCPU:
        return 6;
      case KVM_RUN:
        if (vm_fails) {
          errno = EINTR;
          return -1;
        }
        area->exit_reason = KVM_EXIT_IO;
        area->io.direction = KVM_EXIT_IO_OUT;
        area->io.port = 0x3f8;
        area->io.size = 1;
        area->io.count = 1;
        return 0;
      case KVM_MEMORY_ENCRYPT_OP:
        if (argument != nullptr) static_cast<kvm_sev_cmd*>(argument)->error = 7;
        errno = EIO;
        return -1;
      default:
        return 0;
    }
  }
  void* mmap(int, std::size_t) override { return area; }
  int munmap(void*, std::size_t) override { return 0; }
  int close(int) override { return 0; }
};

struct Seen final : kvm::Observer {
  std::vector<std::pair<kvm::Moment, kvm::GuestEvent>> events;
  void observe(const kvm::Moment& moment, const kvm::GuestEvent& event) override { events.emplace_back(moment, event); }
};

}  // namespace

TEST_CASE("exits of KVM_RUN and SEV commands are told, with errno as it was") {
  alignas(kvm_run) std::array<std::byte, sizeof(kvm_run)> area{};
  auto scripted = std::make_unique<ScriptedHost>();
  ScriptedHost& inner = *scripted;
  inner.area = reinterpret_cast<kvm_run*>(area.data());
  Seen seen;
  auto host = vmm::make_tracing_host(std::move(scripted), seen);
  CHECK(host->name() == "scripted");
  const int kvm = host->open("/dev/kvm", 0);
  const int vm = host->ioctl(kvm, KVM_CREATE_VM, nullptr);
  kvm_sev_cmd command{};
  command.id = KVM_SEV_LAUNCH_START;
  errno = 0;
  CHECK(host->ioctl(vm, KVM_MEMORY_ENCRYPT_OP, &command) == -1);
  CHECK(errno == EIO);
  CHECK(host->ioctl(vm, KVM_MEMORY_ENCRYPT_OP, nullptr) == -1);  // the probe is no command
  REQUIRE(seen.events.size() == 1);
  const auto& call = std::get<kvm::SevCall>(seen.events[0].second);
  CHECK(call.id == KVM_SEV_LAUNCH_START);
  CHECK(call.error_number == EIO);
  CHECK(call.firmware_error == 7);

  const int vcpu = host->ioctl(vm, KVM_CREATE_VCPU, reinterpret_cast<void*>(9));
  REQUIRE(host->mmap(vcpu, sizeof area) == area.data());
  CHECK(host->ioctl(vcpu, KVM_RUN, nullptr) == 0);
  CHECK(seen.events.size() == 1);  // until it is dealt with
  inner.vm_fails = true;
  CHECK(host->ioctl(vcpu, KVM_RUN, nullptr) == -1);
  CHECK(errno == EINTR);
  REQUIRE(seen.events.size() == 2);
  CHECK(seen.events[1].first.vcpu == 9);
  const auto& exit = std::get<kvm::UserExit>(seen.events[1].second);
  CHECK(exit.reason == KVM_EXIT_IO);
  CHECK(exit.write);
  CHECK(exit.address == 0x3f8);
  host->close(vcpu);  // the last one
  REQUIRE(seen.events.size() == 3);
  CHECK(std::get<kvm::UserExit>(seen.events[2].second).error_number == EINTR);
}
