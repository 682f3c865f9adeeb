// Launches of a small guest on one emulated host, through whatever is put around it.
#pragma once

#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "base/error.hpp"
#include "emulator/kvm/emulated_host.hpp"
#include "firmware/image.hpp"
#include "kvm/recording_host.hpp"
#include "vmm/launch/launch.hpp"
#include "vmm/machine/guest_ram.hpp"
#include "vmm/machine/memory_map.hpp"

namespace sevisor::test {

// Passes calls on to a host that lives on, and counts what is open.
class CountingHost final : public kvm::Host {
 public:
  struct Open {
    int descriptors = 0;
    int areas = 0;
    std::map<int, int> pinned;  // ranges of memory by the VM's descriptor; KVM lets go of them with the VM
  };
  CountingHost(kvm::Host& inner, Open& open) : inner_(inner), open_(open) {}

  [[nodiscard]] std::string_view name() const noexcept override { return inner_.name(); }
  int open(const char* path, int flags) override { return count(inner_.open(path, flags)); }
  int ioctl(int fd, unsigned long request, void* argument) override {
    const int result = inner_.ioctl(fd, request, argument);
    if (result >= 0 && request == KVM_MEMORY_ENCRYPT_REG_REGION) ++open_.pinned[fd];
    if (result >= 0 && request == KVM_MEMORY_ENCRYPT_UNREG_REGION) --open_.pinned[fd];
    return request == KVM_CREATE_VM || request == KVM_CREATE_VCPU ? count(result) : result;
  }
  void* mmap(int fd, std::size_t size) override {
    void* area = inner_.mmap(fd, size);
    open_.areas += area != nullptr ? 1 : 0;
    return area;
  }
  int munmap(void* address, std::size_t size) override {
    --open_.areas;
    return inner_.munmap(address, size);
  }
  int close(int fd) override {
    --open_.descriptors;
    open_.pinned.erase(fd);
    return inner_.close(fd);
  }

 private:
  int count(int fd) {
    open_.descriptors += fd >= 0 ? 1 : 0;
    return fd;
  }
  kvm::Host& inner_;
  Open& open_;
};

using Records = std::vector<nlohmann::json>;

inline constexpr std::uint32_t kPolicy = 5;
inline constexpr std::uint64_t kMemory = 64 << 20;
inline constexpr std::uint32_t kSignature = 0x00800f12;

class Launches {
 public:
  explicit Launches(unsigned vcpus) : vcpus_(vcpus) {}

  // Launches through `around`, and gives the guest back at once. Throws what launch() throws.
  void launch(kvm::Host& around, vmm::InitApi api) const {
    vmm::LaunchConfig config;
    config.policy = kPolicy;
    config.vcpus = vcpus_;
    config.cpu_signature = kSignature;
    config.firmware = {firmware::image(), "built in"};
    config.init_api = api;
    (void)vmm::launch(around, ram_, config);
  }

  [[nodiscard]] std::unique_ptr<kvm::Host> counted(CountingHost::Open& open) const {
    return std::make_unique<CountingHost>(*host_, open);
  }

  // All calls of a launch, and of giving its guest back.
  [[nodiscard]] Records record(vmm::InitApi api) const {
    CountingHost::Open open;
    Records records;
    const auto host = kvm::make_recording_host(
        counted(open), [&](std::string_view line) { records.push_back(nlohmann::json::parse(line)); });
    launch(*host, api);
    return records;
  }

  // How many guests the Secure Processor has.
  [[nodiscard]] unsigned guests() const { return kvm::SevDevice::open(*host_).platform_status().guest_count; }

  // How many ASIDs are free: so many VMs can be made SEV-ES ones at a time, which are then closed.
  [[nodiscard]] std::size_t free_asids() const {
    const kvm::Kvm kvm = kvm::Kvm::open(*host_);
    std::vector<kvm::Vm> taken;
    try {
      for (;;) {
        kvm::Vm vm = kvm.create_vm();
        vm.sev_es_init();
        taken.push_back(std::move(vm));
      }
    } catch (const Error& error) {
      if (error.came_back().find("EBUSY") == std::string::npos) throw;
    }
    return taken.size();
  }

  [[nodiscard]] const vmm::GuestRam& ram() const { return ram_; }

 private:
  unsigned vcpus_;
  vmm::GuestRam ram_{vmm::make_memory_map(kMemory)};
  std::unique_ptr<kvm::Host> host_ = emulator::make_emulated_host();
};

}  // namespace sevisor::test
