// The built firmware on the emulated processor, with a hypervisor that lies where a test tells it to. No KVM surface:
// the GHCB service and the few devices that the firmware uses.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "devices/fw_cfg.hpp"
#include "ghcb/hypervisor/service.hpp"
#include "ghcb/page.hpp"

namespace sevisor::test {

// The kernel of these tests ends the guest at once with a termination request of this reason set and reason.
inline constexpr unsigned kKernelReasonSet = 0xe;
inline constexpr unsigned kKernelReason = 0x42;

// A bzImage whose 64-bit entry does just that. `padding`: bytes behind its code.
[[nodiscard]] std::vector<std::byte> tiny_kernel(std::size_t padding = 0);

// What an application processor asked in a GHCB.
struct ApRequest {
  unsigned vcpu = 0;
  std::uint64_t page = 0;
  std::uint64_t exit_code = 0;
};

// What ends a hold.
enum class Wake { kNothing, kNoReason, kNmi, kSipi, kRefusal };

// How a guest's run ended.
struct BootEnd {
  enum class Kind {
    kTerminated,  // `reason_set` and `reason` are the request's
    kShutdown,    // triple fault
    kStuck,       // the limit of instructions or exits was reached
    kFailed,      // anything else: `text`
  };
  Kind kind = Kind::kFailed;
  unsigned reason_set = 0;
  unsigned reason = 0;
  std::string text{};
  std::string console{};
  std::uint64_t instructions = 0;  // of all vCPUs
  std::uint64_t vmgexits = 0;
  std::vector<std::pair<std::uint64_t, std::uint64_t>> mmio_writes{};  // address and value, but those of the local APIC
  std::optional<std::uint64_t> unsupported_event{};                    // what the firmware reported as one
  unsigned x2_commands = 0;                                            // INIT and SIPI sent through x2APIC's MSR
  std::vector<ApRequest> ap_requests{};                                // by GHCB page, in their order

  [[nodiscard]] bool kernel_reached() const {
    return kind == Kind::kTerminated && reason_set == kKernelReasonSet && reason == kKernelReason;
  }
};

// Every hook may be left empty; then the hypervisor is honest.
struct Lies {
  std::function<void(std::uint32_t leaf, std::uint32_t sub_leaf, ghcb::CpuidValues& values)> cpuid{};
  // After a reply of the GHCB MSR protocol: the value that the guest reads, by its request.
  std::function<std::uint64_t(std::uint64_t request, std::uint64_t reply)> msr_reply{};
  // After a reply in the GHCB page, with the exit code that was asked. `number` counts these replies from 0.
  std::function<void(std::uint64_t number, std::uint64_t exit_code, ghcb::Page& page)> page_reply{};
  // Event injected at the VMRUN that follows this many VMGEXITs; 0 is none.
  std::function<std::uint64_t(std::uint64_t vmgexits)> inject{};
  std::function<std::optional<std::uint64_t>(std::uint32_t msr)> read_msr{};
  // fw_cfg, before the guest starts; what the DMA moves into the guest, at any time.
  std::function<void(devices::FwCfg& fw_cfg)> fw_cfg{};
  std::function<void(std::span<std::byte> bytes)> dma{};
  // An AP holds for the `count`th time, from 1 on.
  std::function<Wake(unsigned vcpu, unsigned count)> hold{};
  // At reset; bit 10 is x2APIC mode.
  std::uint64_t apic_base = 0xfee00900;
  // Bytes of RAM from 4 GiB on, besides 64 MiB below.
  std::uint64_t high_memory = 0;
  std::uint16_t min_version = 1;
  std::uint16_t max_version = 2;
};

class BootMachine {
 public:
  explicit BootMachine(Lies lies = {}, unsigned vcpus = 1);
  ~BootMachine();
  BootMachine(const BootMachine&) = delete;
  BootMachine& operator=(const BootMachine&) = delete;

  // What the VMM hands over. Without these there is tiny_kernel(), no initrd and an empty command line.
  void set_kernel(std::vector<std::byte> file);
  void set_initrd(std::vector<std::byte> file);
  void set_command_line(std::string text);

  // As LAUNCH_UPDATE_DATA and LAUNCH_SECRET put it there; not after run().
  void launch_private(std::uint64_t address, std::span<const std::byte> bytes);

  [[nodiscard]] BootEnd run(std::uint64_t instruction_limit = 100'000'000);

  // The guest's own view, for looking at what it has left, or for doing in its place. `size` bytes of one page.
  [[nodiscard]] std::vector<std::byte> private_bytes(std::uint64_t address, std::size_t size);
  void write_private(std::uint64_t address, std::span<const std::byte> bytes);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace sevisor::test
