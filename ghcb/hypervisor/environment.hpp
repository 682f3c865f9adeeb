// What the GHCB service needs from the hypervisor around it. One instance a vCPU.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "base/address.hpp"

namespace sevisor::ghcb {

struct CpuidValues {
  std::uint32_t eax = 0, ebx = 0, ecx = 0, edx = 0;
  friend bool operator==(const CpuidValues&, const CpuidValues&) noexcept = default;
};

// Port access: `count` elements of `size` (1, 2 or 4) bytes, packed in `data`, which has size * count bytes.
struct PortAccess {
  std::uint16_t port = 0;
  bool in = false;
  unsigned size = 1;
  std::uint32_t count = 1;
  std::span<std::byte> data;
};

// Memory-mapped access of data.size() bytes, 1 to 8.
struct MmioAccess {
  Gpa gpa;
  bool write = false;
  std::span<std::byte> data;
};

// VMMCALL: RAX and its arguments as the guest gave them; registers not marked valid are 0.
struct Hypercall {
  std::uint64_t rax = 0, rbx = 0, rcx = 0, rdx = 0, rsi = 0;
  std::uint8_t cpl = 0;
};

struct Page;     // ghcb/page.hpp
struct Request;  // ghcb/hypervisor/event_table.hpp

// What went back into the page.
struct Answer {
  Gpa page;
  const Request& request;  // with its registers as they are given back
  std::uint64_t exit_info_1 = 0;
  std::uint64_t exit_info_2 = 0;
  std::span<const std::byte> data;  // of the scratch area, in the request's direction
};

class Environment {
 public:
  virtual ~Environment() = default;

  // Guest memory as it is without the C-bit. false when some of the range has no memory, or is read-only when written.
  [[nodiscard]] virtual bool read_shared(Gpa gpa, std::span<std::byte> out) = 0;
  [[nodiscard]] virtual bool write_shared(Gpa gpa, std::span<const std::byte> in) = 0;

  // The GHCB MSR, 0xc0010130, as the guest last wrote it.
  [[nodiscard]] virtual std::uint64_t ghcb_msr() = 0;
  virtual void set_ghcb_msr(std::uint64_t value) = 0;

  // `xcr0`: what the guest says it has in XCR0, for leaf 0xd; nothing if it did not say.
  [[nodiscard]] virtual CpuidValues cpuid(std::uint32_t leaf, std::uint32_t sub_leaf,
                                          std::optional<std::uint64_t> xcr0) = 0;
  // Nothing or false: the guest gets #GP.
  [[nodiscard]] virtual std::optional<std::uint64_t> read_msr(std::uint32_t index) = 0;
  [[nodiscard]] virtual bool write_msr(std::uint32_t index, std::uint64_t value) = 0;
  // Asked when one of these has refused: user space is to answer instead.
  [[nodiscard]] virtual bool refused_msr_exits() { return false; }
  // RAX on return.
  [[nodiscard]] virtual std::uint64_t hypercall(const Hypercall& call) = 0;
  // Asked before: user space is to answer instead.
  [[nodiscard]] virtual bool hypercall_exits(const Hypercall& /*call*/) { return false; }

  // Devices of the hypervisor itself. true: done, with access.data filled for a read. false: user space must do it.
  [[nodiscard]] virtual bool port(const PortAccess& access) = 0;
  [[nodiscard]] virtual bool mmio(const MmioAccess& access) = 0;

  // An exception that comes upon the guest when it runs on, as if its next instruction had raised it.
  virtual void inject_exception(std::uint8_t vector, std::optional<std::uint32_t> error_code) = 0;
  virtual void nmi_complete() = 0;
  [[nodiscard]] virtual std::uint64_t ap_jump_table() = 0;
  virtual void set_ap_jump_table(std::uint64_t gpa) = 0;

  // For who watches: each request as it was taken (null: the page has no memory) and each answer as it was given.
  virtual void msr_requested(std::uint64_t /*value*/) {}
  virtual void msr_answered(std::uint64_t /*value*/) {}
  virtual void page_requested(Gpa /*page*/, const Request* /*request*/, const Page& /*snapshot*/) {}
  virtual void page_answered(const Answer& /*answer*/) {}
};

}  // namespace sevisor::ghcb
