// Memory accesses that the software TLB does not answer.
#include <algorithm>
#include <bit>
#include <cstring>

#include "emulator/cpu/code/code_cache.hpp"
#include "emulator/cpu/core.hpp"
#include "emulator/cpu/state/host_unit.hpp"
#include "emulator/cpu/system.hpp"
#include "ghcb/exit_code.hpp"

namespace sevisor::emulator {

namespace {

constexpr std::uint64_t kPageMask = 0xfff;

// Bytes of an access that lie in the page of `va`.
std::size_t in_page(std::uint64_t va, std::size_t size) {
  return std::min<std::size_t>(size, kPageSize - (va & kPageMask));
}

// Linear addresses of a program are 32 bits wide but in 64-bit code (APM vol. 2, 4.5.3 and 1.2.3: i386 programs have
// their thread's data at negative offsets from GS); those of the processor's own accesses are so outside long mode.
std::uint64_t wrap(const Core& core, std::uint64_t va, bool supervisor) {
  return (supervisor ? core.long_mode : core.code64) ? va : va & 0xffffffff;
}

}  // namespace

// KVM maps what no slot backs with a reserved bit: of an SEV-ES guest the nested page fault is a non-automatic exit
// (APM vol. 2, 15.35.4).
bool Core::no_memory(std::uint64_t gpa, std::uint32_t error) noexcept {
  if (config.protection == Protection::kSevEs) return raise(kVectorVc, static_cast<std::uint32_t>(ghcb::kExitNpf));
  fault_info = Fault{.npf = true, .error = error, .cr2 = gpa};
  return false;
}

// The host address of `sum`, base plus offset, after all checks; nullptr with the fault noted. A write that finds code
// drops it. `size` bytes lie within the page.
std::byte* Core::resolve(std::uint64_t sum, std::size_t size, Access access, bool supervisor) noexcept {
  return_units(vec);  // opening a page may run any code
  const std::uint64_t va = wrap(*this, sum, supervisor);
  Translation t;
  if (!translate(va, access, supervisor, t)) return nullptr;
  const OpenPage page = memory.open(t.gpa.page(), t.view);
  bool keep = true;
  if (config.watch_memory) {
    keep = config.observer->memory_used({.rip = current != nullptr ? rip_of(current) : rip,
                                         .gpa = t.gpa,
                                         .size = size,
                                         .shared = t.view == View::kShared,
                                         .write = access == Access::kWrite,
                                         .has_memory = page.host != nullptr});
  }
  if (page.host == nullptr) {
    static_cast<void>(no_memory(t.gpa.value, access == Access::kWrite ? kNpfWrite : 0));
    return nullptr;
  }
  if (access == Access::kWrite && page.read_only) {
    fault_info = Fault{.npf = true, .error = kNpfPresent | kNpfWrite, .cr2 = t.gpa.value};
    return nullptr;
  }
  const std::uint64_t offset = va & kPageMask;
  bool writable = t.writable && !page.read_only;
  if (config.watch_memory) writable = writable && access == Access::kWrite;
  if ((*page.flags & kPageHasCode) != 0 && t.view == View::kPrivate) {
    if (access == Access::kWrite) code.invalidate(page.host, static_cast<unsigned>(offset), size);
    writable = writable && (*page.flags & kPageHasCode) == 0;
  }
  if ((*page.flags & kPageLogged) != 0) {
    if (access == Access::kWrite) memory.note_write(t.gpa);
    writable = writable && (*page.flags & kPageLogged) == 0;
  }
  // Implicit accesses have other rights than the TLB's privilege.
  if (keep && !supervisor && !alignment_checked && !watching && (code64 || !long_mode || cpl == 3)) {
    // By the sum before it was cut: that is what the next access looks up. 64-bit code has a TLB of its own.
    const std::uint64_t tag = sum & ~kPageMask;
    host_pages.set(host_page_bit(page.host));
    tlb->at(sum) = TlbEntry{.read_tag = tag,
                            .write_tag = writable ? tag : Tlb::kNoPage,
                            .addend = reinterpret_cast<std::uintptr_t>(page.host) - tag,
                            .global = t.global,
                            .shift = t.shift};
  }
  return page.host + offset;
}

bool Core::read_pieces(std::uint64_t va, std::byte* out, std::size_t size, bool supervisor) noexcept {
  while (size != 0) {
    const std::size_t piece = in_page(va, size);
    const std::byte* from = resolve(va, piece, Access::kRead, supervisor);
    if (from != nullptr) {
      std::memcpy(out, from, piece);
    } else {
      if (!on_bus(supervisor)) return false;
      if (!bus->read(Gpa(fault_info.cr2), std::span(out, piece))) {
        fault_info = Fault{.waiting = true};
        return false;
      }
    }
    out += piece;
    va += piece;
    size -= piece;
  }
  return true;
}

bool Core::probe_pieces(std::uint64_t va, std::size_t size, bool supervisor) noexcept {
  while (size != 0) {
    const std::size_t piece = in_page(va, size);
    if (resolve(va, piece, Access::kWrite, supervisor) == nullptr && !on_bus(supervisor)) return false;
    va += piece;
    size -= piece;
  }
  return true;
}

bool Core::write_pieces(std::uint64_t va, const std::byte* in, std::size_t size, bool supervisor) noexcept {
  // Nothing may be written if the second page faults.
  if (in_page(va, size) != size && !probe_pieces(va, size, supervisor)) return false;
  while (size != 0) {
    const std::size_t piece = in_page(va, size);
    std::byte* to = resolve(va, piece, Access::kWrite, supervisor);
    if (to != nullptr) {
      std::memcpy(to, in, piece);
    } else {
      if (!on_bus(supervisor)) return false;
      bus->write(Gpa(fault_info.cr2), std::span(in, piece));
    }
    in += piece;
    va += piece;
    size -= piece;
  }
  return true;
}

bool Core::aligned(std::uint64_t va, std::size_t size) noexcept {
  if (!alignment_checked) return true;
  // Larger operands are made of eight-byte ones, as far as this check goes.
  const std::size_t unit = std::bit_floor(std::min<std::size_t>(size, 8));
  return (va & (unit - 1)) == 0 || (long_mode && !canonical(va)) || raise(kVectorAc, 0);
}

bool Core::read_slow(std::uint64_t va, void* out, std::size_t size) noexcept {
  if (watching) note_access(va, size, false);
  return aligned(va, size) && read_pieces(va, static_cast<std::byte*>(out), size, false);
}
bool Core::write_slow(std::uint64_t va, const void* in, std::size_t size) noexcept {
  if (watching) note_access(va, size, true);
  return aligned(va, size) && write_pieces(va, static_cast<const std::byte*>(in), size, false);
}
bool Core::slow_read(std::uint64_t va, std::size_t size) noexcept {
  if (watching) note_access(va, size, false);
  return aligned(va, size) && read_pieces(va, slow_value.data(), size, false);
}
bool Core::slow_write(std::uint64_t va, std::size_t size) noexcept {
  if (watching) note_access(va, size, true);
  return aligned(va, size) && write_pieces(va, slow_value.data(), size, false);
}
bool Core::slow_modify(std::uint64_t va, std::size_t size) noexcept {
  if (watching) note_access(va, size, true);
  return aligned(va, size) && probe_pieces(va, size, false) && read_pieces(va, slow_value.data(), size, false);
}
bool Core::probe_write(std::uint64_t va, std::size_t size) noexcept { return probe_pieces(va, size, false); }
bool Core::read_system(std::uint64_t va, void* out, std::size_t size) noexcept {
  return read_pieces(va, static_cast<std::byte*>(out), size, true);
}
bool Core::write_system(std::uint64_t va, const void* in, std::size_t size) noexcept {
  return write_pieces(va, static_cast<const std::byte*>(in), size, true);
}

const std::byte* Core::fetch_page(std::uint64_t va, std::uint8_t*& page_flags) {
  va = wrap(*this, va, false);
  const std::uint64_t page_va = va & ~kPageMask;
  FetchEntry& e = fetches[(va >> 12) & (kFetchEntries - 1)];
  if (e.page == page_va && e.key == jump_key) {
    page_flags = e.page_flags;
    return e.host;
  }
  return_units(vec);
  Translation t;
  if (!translate(va, Access::kFetch, false, t)) return nullptr;
  // Fetches use the guest's key whatever the C-bit says (APM 15.34.5).
  const OpenPage page = memory.open(t.gpa.page(), View::kPrivate);
  if (page.host == nullptr) {
    static_cast<void>(no_memory(t.gpa.value, kNpfFetch));
    return nullptr;
  }
  code_pages.set(code_page_bit(va, t.shift));
  local_code = local_code || (!t.global && cpl != 3);
  host_pages.set(host_page_bit(page.host));
  e = FetchEntry{.page = page_va, .key = jump_key, .host = page.host, .page_flags = page.flags};
  page_flags = page.flags;
  return page.host;
}

}  // namespace sevisor::emulator
