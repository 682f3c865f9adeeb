// One request through the GHCB page and its reply. The page is shared: what comes back is copied once, then checked.
// GHCB specification (AMD 56421) section 4.1. Freestanding.
#pragma once

#include <cstdint>
#include <optional>

#include "ghcb/event.hpp"
#include "ghcb/page.hpp"

namespace sevisor::ghcb::guest {

// How a processor reaches its GHCB.
class Channel {
 public:
  // The page, mapped shared. The hypervisor may write to it at any time.
  [[nodiscard]] virtual Page& page() noexcept = 0;
  // Its guest-physical address.
  [[nodiscard]] virtual std::uint64_t page_address() const noexcept = 0;
  // Puts the address into the GHCB MSR and executes VMGEXIT.
  virtual void vmgexit() noexcept = 0;

 protected:
  ~Channel() = default;
};

// A private copy of all that a reply can hold.
struct Reply {
  enum class Status : std::uint8_t {
    kSuccess,
    kException,  // `event`, #GP or #UD, is to be raised
    kMalformed,  // the hypervisor refused the request: exit_info_2 has an InputError
    kViolation,  // the reply itself is not one that the specification allows
  };
  Status status = Status::kViolation;
  Event event;
  std::uint64_t info_2 = 0;

  // A register that the hypervisor marked valid: kRax, kRbx, kRcx or kRdx.
  [[nodiscard]] std::optional<std::uint64_t> get(Field field) const noexcept;

  ValidBitmap valid{};
  std::uint64_t rax = 0, rbx = 0, rcx = 0, rdx = 0;
};

class Exchange {
 public:
  // Clears what an earlier request left, so that nothing stale can be taken for a reply, nor leak.
  Exchange(Channel& channel, std::uint16_t version) noexcept;

  // `field` lies in the save area; the CPL is its low byte.
  void set(Field field, std::uint64_t value) noexcept;
  // Guest-physical address of the page's own shared buffer; becomes SW_SCRATCH.
  void use_shared_buffer() noexcept;
  [[nodiscard]] Reply call(ExitCode code, std::uint64_t info_1, std::uint64_t info_2) noexcept;

 private:
  Channel& channel_;
  ValidBitmap valid_{};
};

}  // namespace sevisor::ghcb::guest
