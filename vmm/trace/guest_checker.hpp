// `sevisor run --check`: what a guest does that real hardware lets pass and an auditor would not. It learns what the
// guest does from the emulated host (kvm::Observer) and what devices do from the VMM. docs/check.md explains each rule.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <map>
#include <mutex>
#include <set>
#include <string>
#include <string_view>
#include <unordered_set>
#include <vector>

#include "devices/guest_dma.hpp"
#include "kvm/observer.hpp"

namespace sevisor::vmm {

struct Finding {
  std::string rule;        // one of kCheckRules
  std::string detail;      // what exactly, without values of the guest
  std::uint64_t rip = 0;   // of the guest; 0: not an instruction's doing
  std::uint64_t page = 0;  // guest-physical; of the first time
  unsigned vcpu = 0;
  std::uint64_t count = 0;
};

struct CheckRule {
  std::string_view name;
  std::string_view what;
};
inline constexpr std::array kCheckRules = {
    CheckRule{"register-exposed", "the GHCB shows a register that the request does not need"},
    CheckRule{"reply-unchecked", "an answer is used before its valid bit, or exit_info_1, was read"},
    CheckRule{"reply-unmarked", "a field is read from an answer that does not hold it"},
    CheckRule{"mmio-private", "device memory is accessed with C=1"},
    CheckRule{"dma-private", "a device reads or writes memory that the guest uses with C=1"},
    CheckRule{"c-bit-mismatch", "memory is read with another C-bit than it was written with"},
    CheckRule{"ghcb-nested", "a nested #VC writes to a GHCB that is in use, without saving it"},
    CheckRule{"secret-shared", "a launch secret stands in memory that the guest uses with C=0"},
};

class GuestChecker final : public kvm::Observer {
 public:
  void observe(const kvm::Moment& moment, const kvm::GuestEvent& event) override;
  // A device moves `size` bytes at `at`.
  void device_access(Gpa at, std::size_t size, bool write);
  // Looks for secrets in what the guest used with C=0. When it has stopped.
  void look_for_secrets(devices::GuestDma& memory);

  // By rule, in the order of kCheckRules.
  [[nodiscard]] std::vector<Finding> findings() const;

 private:
  enum class Use : std::uint8_t { kNone, kPrivate, kShared };

  struct OpenVc {
    bool page_busy = false;   // the GHCB was in use when it came
    bool page_saved = false;  // and was read since
  };
  struct VcpuState {
    std::vector<OpenVc> vcs;
    std::uint64_t page = ~std::uint64_t{0};  // its GHCB
    // Of the last answer, until the next request.
    bool answered = false;
    bool bitmap_read = false;
    bool info_read = false;
    std::array<std::uint64_t, 4> given{};  // RAX, RCX, RDX, RBX as the hypervisor left them
  };

  void add(std::string_view rule, const kvm::Moment& moment, std::uint64_t page, std::string detail);
  void memory_used(const kvm::Moment& moment, const kvm::MemoryUse& use);
  void page_touched(const kvm::Moment& moment, const kvm::MemoryUse& use, VcpuState& vcpu);
  void requested(const kvm::Moment& moment, const kvm::PageRequest& request);
  void answered(const kvm::Moment& moment, const kvm::PageReply& reply);
  void remember_secret(std::span<const std::byte> plain);
  [[nodiscard]] bool has_secret(std::span<const std::byte> bytes) const;

  mutable std::mutex mutex_;
  std::map<unsigned, VcpuState> vcpus_;
  std::map<std::uint64_t, Use> written_;  // by page: with which C-bit it was last written
  std::map<std::uint64_t, Use> used_;     // by page: with which C-bit it was last used
  std::unordered_set<std::string> secret_windows_;
  std::map<std::tuple<std::string, std::uint64_t, std::string>, Finding> findings_;
};

// A device's way to memory, watched.
class CheckedDma final : public devices::GuestDma {
 public:
  // Both must outlive this; `checker` may be null.
  CheckedDma(devices::GuestDma& memory, GuestChecker* checker) : memory_(memory), checker_(checker) {}
  [[nodiscard]] bool read(Gpa at, std::span<std::byte> to) override {
    if (checker_ != nullptr) checker_->device_access(at, to.size(), false);
    return memory_.read(at, to);
  }
  [[nodiscard]] bool write(Gpa at, std::span<const std::byte> from) override {
    if (checker_ != nullptr) checker_->device_access(at, from.size(), true);
    return memory_.write(at, from);
  }

 private:
  devices::GuestDma& memory_;
  GuestChecker* checker_;
};

}  // namespace sevisor::vmm
