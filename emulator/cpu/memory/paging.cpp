// From linear to guest-physical addresses (APM vol. 2 chapter 5), with the C-bit (15.34).
#include "emulator/cpu/code/code_cache.hpp"
#include "emulator/cpu/core.hpp"
#include "emulator/cpu/memory/paging_cache.hpp"
#include "emulator/cpu/system.hpp"
#include "ghcb/exit_code.hpp"

namespace sevisor::emulator {

namespace {

// Bits of an entry at every level (APM vol. 2, 5.4).
constexpr std::uint64_t kPresent = 1U << 0;
constexpr std::uint64_t kWritable = 1U << 1;
constexpr std::uint64_t kUser = 1U << 2;
constexpr std::uint64_t kAccessed = 1U << 5;
constexpr std::uint64_t kDirty = 1U << 6;
constexpr std::uint64_t kLarge = 1U << 7;   // PS; not in the lowest level
constexpr std::uint64_t kGlobal = 1U << 8;  // in the level that maps
constexpr std::uint64_t kNoExecute = std::uint64_t{1} << 63;
constexpr std::uint64_t kAddress = 0x000f'ffff'ffff'f000;

// Error code of #PF (APM vol. 2, 8.4.2).
constexpr std::uint32_t kErrorPresent = 1U << 0;
constexpr std::uint32_t kErrorWrite = 1U << 1;
constexpr std::uint32_t kErrorUser = 1U << 2;
constexpr std::uint32_t kErrorReserved = 1U << 3;
constexpr std::uint32_t kErrorFetch = 1U << 4;

// What all levels together allow.
constexpr std::uint8_t kRightWrite = 1;
constexpr std::uint8_t kRightUser = 2;
constexpr std::uint8_t kRightExecute = 4;
constexpr std::uint8_t kAllRights = kRightWrite | kRightUser | kRightExecute;

// One translation while it is worked out.
struct Walk {
  Core& core;
  std::uint64_t va;
  Access access;
  bool user;      // the access has user privilege
  bool implicit;  // of a processor structure: SMAP holds whatever RFLAGS.AC says
  std::uint8_t rights = kAllRights;

  [[nodiscard]] bool write() const noexcept { return access == Access::kWrite; }
  [[nodiscard]] bool no_execute_on() const noexcept { return (core.efer & kEferNxe) != 0 && (core.cr4 & kCr4Pae) != 0; }

  bool page_fault(std::uint32_t cause) const noexcept {
    std::uint32_t error = cause;
    if (write()) error |= kErrorWrite;
    if (user) error |= kErrorUser;
    if (access == Access::kFetch && (no_execute_on() || (core.cr4 & kCr4Smep) != 0)) error |= kErrorFetch;
    core.raise(kVectorPf, error);
    core.fault_info.cr2 = va;
    return false;
  }

  // Takes the rights of an entry with the R/W, U/S and NX bits.
  void narrow(std::uint64_t entry) noexcept {
    if ((entry & kWritable) == 0) rights &= static_cast<std::uint8_t>(~kRightWrite);
    if ((entry & kUser) == 0) rights &= static_cast<std::uint8_t>(~kRightUser);
    if ((entry & kNoExecute) != 0) rights &= static_cast<std::uint8_t>(~kRightExecute);
  }

  // Would a write of this privilege be allowed? (CR0.WP: APM vol. 2, 5.6.3.)
  [[nodiscard]] bool may_write() const noexcept {
    return (rights & kRightWrite) != 0 || (!user && (core.cr0 & kCr0Wp) == 0);
  }

  [[nodiscard]] bool allowed() const noexcept {
    const bool user_page = (rights & kRightUser) != 0;
    if (user && !user_page) return false;
    if (access == Access::kFetch) {
      if ((rights & kRightExecute) == 0) return false;
      return user || !user_page || (core.cr4 & kCr4Smep) == 0;
    }
    if (!user && user_page && (core.cr4 & kCr4Smap) != 0 && (implicit || (core.system_flags & kFlagAc) == 0)) {
      return false;
    }
    return !write() || may_write();
  }

  // The private view of the page of entries at `gpa`; walks ignore the C-bit (APM vol. 2, 15.34.5). An absent one
  // gives, as any nested page fault with a reserved bit, #VC.
  [[nodiscard]] bool open_table(std::uint64_t gpa, PagingCache::TablePage& out) const noexcept {
    PagingCache::TablePage& known = core.paging.pages[(gpa >> 12) & (PagingCache::kTablePages - 1)];
    if (known.generation != core.generation || known.gpa != gpa) {
      const OpenPage page = core.memory.open(Gpa(gpa), View::kPrivate);
      if (page.host == nullptr) {
        (void)core.no_memory(gpa, write() ? kNpfWrite : 0);
        return false;
      }
      known = {.generation = core.generation,
               .gpa = gpa,
               .host = page.host,
               .flags = page.flags,
               .read_only = page.read_only};
    }
    out = known;
    return true;
  }

  // Sets `bits` (A, D) of the entry of type T at `offset`.
  template <class T>
  [[nodiscard]] bool mark(const PagingCache::TablePage& table, unsigned offset, T entry, T bits) const noexcept {
    if ((entry & bits) == bits) return true;
    if (table.read_only) {
      core.fault_info = Fault{.npf = true, .error = kNpfPresent | kNpfWrite, .cr2 = table.gpa + offset};
      return false;
    }
    if ((*table.flags & kPageHasCode) != 0) core.code.invalidate(table.host, offset, sizeof(T));
    if ((*table.flags & kPageLogged) != 0) core.memory.note_write(Gpa(table.gpa));
    store<T>(table.host + offset, static_cast<T>(entry | bits));
    return true;
  }

  // The last step: checks rights, sets A and D, fills `out`. `shift`: log2 of the page's size.
  template <class T>
  [[nodiscard]] bool finish(const PagingCache::TablePage& table, unsigned offset, T entry, std::uint64_t page,
                            unsigned shift, bool encrypted, Core::Translation& out) const noexcept {
    if (!allowed()) return page_fault(kErrorPresent);
    const T bits = static_cast<T>(kAccessed | (write() ? kDirty : 0));
    if (!mark<T>(table, offset, entry, bits)) return false;
    const std::uint64_t in_page = va & ((std::uint64_t{1} << shift) - 1);
    out.gpa = Gpa(page + in_page);
    out.view = encrypted || core.config.protection == Protection::kNone ? View::kPrivate : View::kShared;
    out.writable = may_write() && ((entry | bits) & kDirty) != 0;
    out.global = (entry & kGlobal) != 0 && (core.cr4 & kCr4Pge) != 0;
    out.shift = static_cast<std::uint8_t>(shift);
    return true;
  }
};

// 32-bit entries: 4 KiB and, with CR4.PSE, 4 MiB pages. No C-bit: all private.
bool walk_32bit(Walk& w, Core::Translation& out) noexcept {
  constexpr unsigned kPse36Shift = 32 - 13;  // bits 20:13 of a 4 MiB entry are address bits 39:32
  constexpr std::uint64_t kPse36Bits = 0x001f'e000;
  constexpr std::uint32_t kPse36Reserved = 1U << 21;
  PagingCache::TablePage table;
  if (!w.open_table(w.core.cr3 & 0xffff'f000, table)) return false;
  unsigned offset = static_cast<unsigned>(w.va >> 22) * 4;
  auto entry = load<std::uint32_t>(table.host + offset);
  if ((entry & kPresent) == 0) return w.page_fault(0);
  w.narrow(entry);
  if ((entry & kLarge) != 0 && (w.core.cr4 & kCr4Pse) != 0) {
    if ((entry & kPse36Reserved) != 0) return w.page_fault(kErrorPresent | kErrorReserved);
    const std::uint64_t page = (entry & 0xffc0'0000) | (entry & kPse36Bits) << kPse36Shift;
    return w.finish<std::uint32_t>(table, offset, entry, page, 22, true, out);
  }
  if (!w.mark<std::uint32_t>(table, offset, entry, kAccessed)) return false;
  if (!w.open_table(entry & 0xffff'f000, table)) return false;
  offset = static_cast<unsigned>(w.va >> 12 & 0x3ff) * 4;
  entry = load<std::uint32_t>(table.host + offset);
  if ((entry & kPresent) == 0) return w.page_fault(0);
  w.narrow(entry);
  return w.finish<std::uint32_t>(table, offset, entry, entry & 0xffff'f000, 12, true, out);
}

// 64-bit entries: long mode and PAE.
bool walk_64bit(Walk& w, Core::Translation& out) noexcept {
  constexpr unsigned kPml4Shift = 39;
  constexpr unsigned kPdpShift = 30;
  constexpr unsigned kPdShift = 21;
  constexpr unsigned kPtShift = 12;
  constexpr std::uint64_t kPaePdpReserved = 0x1e6;                   // MBZ in the four PDPEs of PAE (5.3.3)
  constexpr std::uint64_t kPaeHighReserved = 0x7ff0'0000'0000'0000;  // 62:52; available to software in long mode
  constexpr std::uint64_t kLargePat = 1U << 12;

  Core& core = w.core;
  const std::uint64_t c_bit = c_bit_mask(core.config);
  const std::uint64_t address = ((std::uint64_t{1} << core.config.physical_bits) - 1) & kAddress & ~c_bit;
  std::uint64_t reserved = kAddress & ~address & ~c_bit;
  if ((core.efer & kEferNxe) == 0) reserved |= kNoExecute;
  if (!core.long_mode) reserved |= kPaeHighReserved;

  PagingCache::TablePage table;
  unsigned shift = kPtShift;
  PagingCache::Region& region = core.paging.regions[(w.va >> kPdShift) & (PagingCache::kRegions - 1)];
  if (region.generation == core.generation && region.number == w.va >> kPdShift) {
    table = region.table;
    w.rights = region.rights;
  } else if (core.long_mode) {
    shift = kPml4Shift;
    if (!w.open_table(core.cr3 & address, table)) return false;
  } else {
    shift = kPdpShift;
    if (!w.open_table(core.cr3 & 0xffff'f000, table)) return false;
  }

  while (true) {
    unsigned offset = static_cast<unsigned>(w.va >> shift & 0x1ff) * 8;
    const bool pae_pdp = !core.long_mode && shift == kPdpShift;
    if (pae_pdp) offset = static_cast<unsigned>((core.cr3 & 0xfe0) + (w.va >> kPdpShift & 3) * 8);
    const auto entry = load<std::uint64_t>(table.host + offset);
    if ((entry & kPresent) == 0) return w.page_fault(0);

    std::uint64_t forbidden = reserved;
    const bool leaf = shift == kPtShift || ((entry & kLarge) != 0 && shift <= kPdpShift && !pae_pdp);
    if (pae_pdp) {
      forbidden |= kPaePdpReserved | kNoExecute;
    } else if (shift == kPml4Shift) {
      forbidden |= kLarge | kGlobal;
    } else if (leaf && shift != kPtShift) {
      forbidden |= ((std::uint64_t{1} << shift) - 1) & ~std::uint64_t{0xfff} & ~kLargePat;
    }
    if ((entry & forbidden) != 0) return w.page_fault(kErrorPresent | kErrorReserved);
    if (!pae_pdp) w.narrow(entry);
    if (leaf) {
      const std::uint64_t page = entry & address & ~((std::uint64_t{1} << shift) - 1);
      return w.finish<std::uint64_t>(table, offset, entry, page, shift, (entry & c_bit) != 0, out);
    }
    if (!pae_pdp && !w.mark<std::uint64_t>(table, offset, entry, kAccessed)) return false;
    if (!w.open_table(entry & address, table)) return false;
    if (shift == kPdShift) {
      region = {.generation = core.generation, .number = w.va >> kPdShift, .table = table, .rights = w.rights};
    }
    shift -= 9;
  }
}

}  // namespace

bool Core::translate(std::uint64_t va, Access access, bool supervisor, Translation& out) noexcept {
  if (!long_mode) va &= 0xffff'ffff;
  if ((cr0 & kCr0Pg) == 0) {
    out = Translation{.gpa = Gpa(va), .view = View::kPrivate, .writable = true, .global = false, .shift = 12};
    return true;
  }
  if (long_mode && !canonical(va)) {
    fault_info =
        Fault{.vector = kVectorGp, .has_error = true, .non_canonical = access != Access::kFetch && !supervisor};
    return false;
  }
  Walk walk{.core = *this, .va = va, .access = access, .user = cpl == 3 && !supervisor, .implicit = supervisor};
  return (cr4 & kCr4Pae) != 0 ? walk_64bit(walk, out) : walk_32bit(walk, out);
}

}  // namespace sevisor::emulator
