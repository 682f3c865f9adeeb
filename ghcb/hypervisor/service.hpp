// Answers VMGEXIT: the GHCB MSR protocol, and the NAE events of a GHCB page. One instance a vCPU.
//
// The guest's other vCPUs may write to the page at any time, so it is copied once and only the copy is looked at. Work
// is bounded: at most kScratchLimit bytes a request, one chunk of it a call.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <variant>
#include <vector>

#include "ghcb/hypervisor/environment.hpp"
#include "ghcb/hypervisor/event_table.hpp"
#include "ghcb/page.hpp"

namespace sevisor::ghcb {

// Most bytes of a scratch area outside the GHCB page (KVM GHCB_SCRATCH_AREA_LIMIT).
inline constexpr std::size_t kScratchLimit = 16 * 4096;
// Most bytes of string data that go to user space at a time: KVM's port data page.
inline constexpr std::size_t kPortChunk = 4096;

struct ServiceConfig {
  unsigned c_bit = 51;
  std::uint16_t min_version = kMinVersion;
  std::uint16_t max_version = 1;  // 1 after KVM_SEV_ES_INIT
  KnownRequests known = KnownRequests::kLinux72;
};

// --- Outcomes ---
struct Resume {};  // the guest runs on
struct Held {};    // AP reset hold: call finish_hold() when it ends
// User space must do the access; data is the service's own and stays until complete() is called, which takes what is
// read.
struct PortExit {
  PortAccess access;
};
struct MmioExit {
  MmioAccess access;
};
// User space must answer: call complete_msr() or complete_hypercall().
struct MsrExit {
  std::uint32_t index = 0;
  bool write = false;
  std::uint64_t value = 0;  // that is written
};
struct HypercallExit {
  Hypercall call;
};
struct Terminated {
  std::uint64_t ghcb_msr = 0;  // the request of the MSR protocol, or the address of the GHCB
};
enum class RunFailure {
  kInvalid,         // KVM_RUN fails with EINVAL
  kFault,           // KVM_RUN fails with EFAULT
  kUnexpectedExit,  // KVM_EXIT_INTERNAL_ERROR, unexpected exit reason
};
struct Failed {
  RunFailure why = RunFailure::kInvalid;
  ExitCode exit_code = 0;
};
using Outcome = std::variant<Resume, Held, PortExit, MmioExit, MsrExit, HypercallExit, Terminated, Failed>;

class Service {
 public:
  Service(const ServiceConfig& config, Environment& environment);

  // The vCPU left with VMGEXIT.
  [[nodiscard]] Outcome vmgexit();
  // User space has done the access that the last PortExit or MmioExit asked for; what it read is in access.data.
  [[nodiscard]] Outcome complete();
  // User space has answered the last MsrExit. Nothing: #GP. The value counts for a read.
  [[nodiscard]] Outcome complete_msr(std::optional<std::uint64_t> value);
  // User space has answered the last HypercallExit: RAX.
  [[nodiscard]] Outcome complete_hypercall(std::uint64_t rax);
  // The vCPU leaves the AP reset hold; `sipi`: because of a SIPI.
  void finish_hold(bool sipi);
  // Goes on where `other` was: with its reset hold, if it was in one. What user space was asked for is not taken along.
  void take_over(const Service& other);
  // What the hypervisor puts into the GHCB MSR of a new vCPU.
  [[nodiscard]] std::uint64_t initial_msr() const noexcept;

 private:
  enum class Pending { kNone, kPort, kMmio, kMsr, kHypercall, kPageHold, kMsrHold };

  Outcome msr_request(std::uint64_t value);
  void answer_msr(std::uint64_t value);
  Outcome act(Action action);
  Outcome start_msr();
  void give_msr(std::uint64_t value);
  Outcome start_hypercall();
  Outcome start_port();
  Outcome continue_port();
  Outcome start_mmio(bool write);
  Outcome continue_mmio();
  Outcome finish();  // writes the answer to the page
  Outcome refuse(InputError error);
  void raise(std::uint8_t vector);
  // Copies `size` bytes at SW_SCRATCH into buffer_. Otherwise the outcome to return.
  [[nodiscard]] bool take_scratch(std::size_t size, Outcome& otherwise);

  ServiceConfig config_;
  Environment& environment_;
  Gpa page_;  // of the request under way
  Page snapshot_{};
  Request request_;
  std::uint64_t result_1_ = 0;
  std::uint64_t result_2_ = 0;
  Pending pending_ = Pending::kNone;
  PortAccess port_{};  // the whole request; data is what is left of it
  MmioAccess mmio_{};
  bool copy_back_ = false;  // buffer_ goes to the scratch area with the answer
  std::size_t chunk_ = 0;   // bytes that user space is working on
  std::vector<std::byte> buffer_;
};

}  // namespace sevisor::ghcb
