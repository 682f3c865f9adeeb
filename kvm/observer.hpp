// What a host tells of its guests to who asks: the tracer, crash reports, the checker. The emulated host sees all of
// it; silicon hides #VC and the GHCB's traffic from everybody, so above the kernel's host only user space's own calls
// are seen. Part of the seam, as kvm/host.hpp is.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <variant>
#include <vector>

#include "base/address.hpp"
#include "ghcb/hypervisor/event_table.hpp"

namespace sevisor::kvm {

// When and where in the guest something happened.
struct Moment {
  std::uint64_t time_ns = 0;  // virtual on the emulated host; above the kernel's, since the trace began
  unsigned vcpu = 0;
  std::uint64_t rip = 0;  // where the guest is: at the instruction of a #VC, behind a VMGEXIT; 0 where it is not known
};

// #VC is about to be delivered.
struct VcRaised {
  ghcb::ExitCode code = 0;  // its error code
  unsigned cpl = 0;
  bool injected = false;   // by the hypervisor
  bool ghcb_busy = false;  // the vCPU's GHCB has fields marked valid. Only told when memory is watched
};
// IRET from the handler of #VC to the instruction that raised it, or the one behind.
struct VcDone {
  ghcb::ExitCode code = 0;
  std::uint64_t duration_ns = 0;  // since VcRaised
};
// VMGEXIT with a request of the GHCB MSR protocol, and its answer.
struct MsrRequest {
  std::uint64_t value = 0;
};
struct MsrReply {
  std::uint64_t value = 0;
};
// VMGEXIT with a GHCB page. `readable`: the page has memory; without, `request` is empty and nobody answers.
struct PageRequest {
  Gpa page = {};
  bool readable = true;
  ghcb::Request request = {};
  const ghcb::Page* snapshot = nullptr;  // all of it; null: not readable. Valid for the call
};
// The answer in the page. `data`: what was in the scratch area, in the direction of the request; valid for the call.
struct PageReply {
  Gpa page = {};
  ghcb::Request request = {};  // with the registers as they are given back
  std::uint64_t exit_info_1 = 0;
  std::uint64_t exit_info_2 = 0;
  std::span<const std::byte> data = {};
};
// An automatic exit other than VMGEXIT, and those that only a timer or the host's own doing cause.
struct AutomaticExit {
  ghcb::ExitCode code = 0;
  std::uint64_t info_1 = 0;
  std::uint64_t info_2 = 0;
};
// EVENTINJ of a VMRUN.
struct Injection {
  std::uint64_t event = 0;
};
// A command of the Secure Processor.
struct FirmwareCommand {
  std::uint32_t id = 0;
  std::string_view name = {};
  std::uint32_t handle = 0;  // of the guest that it names; 0: none
  std::uint32_t status = 0;
};
// KVM_RUN came back to user space.
struct UserExit {
  std::uint32_t reason = 0;  // KVM_EXIT_*
  int error_number = 0;      // when KVM_RUN failed
  bool write = false;
  std::uint64_t address = 0;  // port or guest-physical address
  std::uint32_t size = 0;     // bytes an access
  std::uint32_t count = 0;
  std::uint64_t handling_ns = 0;  // until the next KVM_RUN
};
// KVM_MEMORY_ENCRYPT_OP or SEV_ISSUE_CMD.
struct SevCall {
  std::string_view device = {};  // "vm" or "sev"
  std::uint32_t id = 0;
  int error_number = 0;  // 0: success
  std::uint32_t firmware_error = 0;
  std::uint64_t duration_ns = 0;
};

// The first access of a kind to a page since it was mapped, and each to a GHCB. Only told when memory is watched.
struct MemoryUse {
  Gpa at = {};
  std::size_t size = 0;  // within the page
  bool shared = false;   // C=0
  bool write = false;
  bool has_memory = true;  // false: a device's, if anybody's
};
// Plaintext that the Secure Processor put into the guest's private memory: a launch secret. Valid for the call.
struct PrivateStore {
  std::span<const std::byte> plain = {};
};

using GuestEvent = std::variant<VcRaised, VcDone, MsrRequest, MsrReply, PageRequest, PageReply, AutomaticExit,
                                Injection, FirmwareCommand, UserExit, SevCall, MemoryUse, PrivateStore>;

class Observer {
 public:
  virtual ~Observer() = default;
  // In the order in which things happen, from any thread, but the events of a VM one at a time. Must not call the host.
  virtual void observe(const Moment& moment, const GuestEvent& event) = 0;
};

// Tells several.
class Observers final : public Observer {
 public:
  // `observer` must outlive this. Before anything is observed.
  void add(Observer& observer) { list_.push_back(&observer); }
  void observe(const Moment& moment, const GuestEvent& event) override {
    for (Observer* observer : list_) observer->observe(moment, event);
  }

 private:
  std::vector<Observer*> list_;
};

}  // namespace sevisor::kvm
