// Debian's kernel as an SEV-ES guest on the emulated host, put together as `sevisor run` does it, that can be moved to
// another VM while it runs.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "tests/guest_move/machine_state.hpp"
#include "vmm/end/run_state.hpp"
#include "vmm/launch/launch.hpp"
#include "vmm/machine/guest_ram.hpp"
#include "vmm/machine/platform.hpp"

namespace sevisor::test {

struct GuestSetting {
  vmm::InitApi init_api = vmm::InitApi::kEsInit;
  unsigned vcpus = 1;
  std::string command_line;
};

// What kernel and initrd are taken from: build/guest, as ./dev prepares it. Empty: there is none.
[[nodiscard]] std::string guest_folder();

// An emulated host that tells which descriptors it gave for what: the typed handles do not, and have no call for most
// of what a move is made of.
class NamingHost final : public kvm::Host {
 public:
  NamingHost();
  [[nodiscard]] std::string_view name() const noexcept override { return host_->name(); }
  int open(const char* path, int flags) override { return host_->open(path, flags); }
  int ioctl(int fd, unsigned long request, void* argument) override;
  void* mmap(int fd, std::size_t size) override { return host_->mmap(fd, size); }
  int munmap(void* address, std::size_t size) override { return host_->munmap(address, size); }
  int close(int fd) override { return host_->close(fd); }

  [[nodiscard]] int kvm() const noexcept { return kvm_; }                       // that VMs were made with
  [[nodiscard]] const MachineFds& latest() const noexcept { return machine_; }  // the VM made last, with its vCPUs

 private:
  std::unique_ptr<kvm::Host> host_;
  int kvm_ = -1;
  MachineFds machine_;
};

class MovingGuest {
 public:
  explicit MovingGuest(const GuestSetting& setting);
  ~MovingGuest();
  MovingGuest(const MovingGuest&) = delete;
  MovingGuest& operator=(const MovingGuest&) = delete;

  // Runs the guest until its console has shown `text` beyond what it had shown when it was last stopped, and stops all
  // vCPUs; or until it ends, which is then the outcome.
  [[nodiscard]] vmm::Outcome run_until(const std::string& text);
  static constexpr int kStopped = -1;  // Outcome::code

  // To a new VM with the same memory and devices. Afterwards the VM that was left answers everything with EIO, or this
  // throws, naming what it did not refuse so.
  void move();

  [[nodiscard]] std::string console() const;

 private:
  struct Machine {
    kvm::Vm vm;
    std::vector<kvm::Vcpu> vcpus;
    MachineFds fds;
  };
  class Clock final : public devices::Clock {
   public:
    explicit Clock(const MovingGuest& guest) : guest_(guest) {}
    std::uint64_t now_ns() override;

   private:
    const MovingGuest& guest_;
  };

  [[nodiscard]] Machine make_machine();
  void must_be_dead(const MachineFds& machine);
  void print(std::span<const std::byte> bytes);
  void complete_exits(vmm::RunState& state);

  GuestSetting setting_;
  vmm::MemoryMap map_;
  NamingHost host_;
  kvm::Kvm kvm_;
  vmm::GuestRam ram_;
  std::optional<kvm::SevDevice> sev_;
  std::optional<Mapping> firmware_;
  std::vector<std::unique_ptr<Machine>> left_;  // dead VMs, the latest last
  std::unique_ptr<Machine> machine_;
  Clock clock_{*this};
  std::unique_ptr<vmm::Platform> platform_;
  vmm::RunState* state_ = nullptr;  // of the present run
  mutable std::mutex mutex_;        // guards the console
  std::string console_;
  std::size_t seen_ = 0;  // of it, when the guest was last stopped
  std::string wanted_;
};

}  // namespace sevisor::test
