// What follows from the control registers: execution mode, privilege's TLB, and which cached jumps still hold.
#include <algorithm>

#include "emulator/cpu/code/code_cache.hpp"
#include "emulator/cpu/core.hpp"

namespace sevisor::emulator {

namespace {

constexpr std::uint64_t kNoKey = 0;  // no jump_key: generations start at 1
constexpr std::size_t kSupervisorTlb = 0;
constexpr std::size_t kUserTlb = 1;
constexpr std::size_t kSupervisorAcTlb = 2;
constexpr std::size_t kEmptyTlb = 3;
constexpr std::size_t kCompatibilityTlb = 4;  // CPL 3 in compatibility mode: its tags are sums that are still to be cut

// A segment whose whole 4 GiB may be read and written needs no check at its accesses.
bool flat(const Segment& s) {
  constexpr std::uint16_t kWritable = 0x2;
  constexpr std::uint16_t kExpandDownOrCode = 0xc;
  return s.limit == 0xffffffff && (s.attributes & kSegPresent) != 0 && (s.attributes & kWritable) != 0 &&
         (s.attributes & kExpandDownOrCode) == 0;
}

}  // namespace

void Core::select_tlb() noexcept {
  alignment_checked = cpl == 3 && (cr0 & kCr0Am) != 0 && (system_flags & kFlagAc) != 0;
  const bool compatibility = long_mode && !code64;
  if (alignment_checked || watching || (compatibility && cpl != 3)) {
    tlb = &tlbs[kEmptyTlb];
  } else if (compatibility) {
    tlb = &tlbs[kCompatibilityTlb];
  } else if (cpl == 3) {
    tlb = &tlbs[kUserTlb];
  } else if ((cr4 & kCr4Smap) != 0 && (system_flags & kFlagAc) != 0) {
    tlb = &tlbs[kSupervisorAcTlb];
  } else {
    tlb = &tlbs[kSupervisorTlb];
  }
}

unsigned Core::mode_bits() const noexcept {
  const unsigned single_step = (system_flags & kFlagTf) != 0 ? 16 : 0;
  if (code64) return 2 | single_step;
  const unsigned code_size = (seg[kCs].attributes & kSegDefault) != 0 ? 1 : 0;
  const unsigned stack = (seg[kSs].attributes & kSegDefault) != 0 ? 4 : 0;
  const bool all_flat = flat(seg[kEs]) && flat(seg[kSs]) && flat(seg[kDs]) && flat(seg[kFs]) && flat(seg[kGs]);
  return code_size | stack | (all_flat ? 0U : 8U) | single_step;
}

void Core::update_mode() noexcept {
  long_mode = (efer & kEferLma) != 0;
  code64 = long_mode && (seg[kCs].attributes & kSegLong) != 0;
  sse_ready = (cr0 & (kCr0Em | kCr0Ts)) == 0 && (cr4 & kCr4Osfxsr) != 0;
  avx_ready = (cr0 & (kCr0Pe | kCr0Ts)) == kCr0Pe && (cr4 & kCr4Osxsave) != 0 && (vec.xcr0 & kXcr0Ymm) == kXcr0Ymm;
  look_at_breakpoints();
  jump_key = (cpl == 3 ? user_jumps << 8 | 0x80 : supervisor_jumps << 8) | mode_bits();
  select_tlb();
}

void Core::forget_jumps() noexcept {
  generation = supervisor_jumps = user_jumps = code.next_key();
  local_code = false;
  code_pages.reset();
  update_mode();
}

void Core::flush_tlb(bool keep_global) noexcept {
  for (Tlb& t : tlbs) {
    if (keep_global) {
      t.flush_non_global();
    } else {
      t.flush_all();
    }
  }
  if (!keep_global) host_pages.reset();
  if (!keep_global || local_code) {
    forget_jumps();
  } else {
    generation = user_jumps = code.next_key();
    update_mode();
  }
}

void Core::invalidate_page(std::uint64_t va) noexcept {
  for (Tlb& t : tlbs) t.flush_page(va);
  constexpr unsigned kPageShifts[] = {12, 21, 22, 30};
  const bool may_hold_code =
      std::ranges::any_of(kPageShifts, [&](unsigned shift) { return code_pages.test(code_page_bit(va, shift)); });
  if (may_hold_code) {
    forget_jumps();
  } else {
    generation = code.next_key();
  }
}

void Core::page_closed(const std::byte* host_page) {
  code.invalidate_page(host_page);  // jumps into the page find poisoned blocks
  if (host_pages.test(host_page_bit(host_page))) {
    for (Tlb& t : tlbs) t.flush_host_page(host_page);
    for (FetchEntry& e : fetches) {
      if (e.host == host_page) e.key = kNoKey;
    }
  }
  generation = code.next_key();
}

void Core::all_pages_closed() {
  code.invalidate_all();
  flush_tlb(false);
}

}  // namespace sevisor::emulator
