#include "emulator/memory/guest_memory.hpp"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <sys/mman.h>

#include "emulator/memory/dirty_log.hpp"
#include "emulator/memory/page_cipher.hpp"

namespace sevisor::emulator {

namespace {

// KVM_SET_USER_MEMORY_REGION (Linux include/uapi/linux/kvm.h, virt/kvm/kvm_main.c, arch/x86/include/asm/kvm_host.h).
constexpr std::uint32_t kLogDirtyPages = 1;
constexpr std::uint32_t kReadOnly = 2;
constexpr std::uint32_t kMaxSlots = 32764;  // KVM_USER_MEM_SLOTS of x86
constexpr std::uint64_t kMaxSlotPages = (std::uint64_t{1} << 31) - 1;
constexpr std::uint64_t kGuestPhysicalEnd = std::uint64_t{1} << 48;

constexpr std::uint64_t kFirstSpa = 0x1'0000'0000;      // where the emulated host's DRAM starts for guests
constexpr std::uint64_t kBackingAlignment = 0x20'0000;  // SPA of a backing: 2 MiB, as the kernel's huge pages have it

std::uintptr_t number(const std::byte* pointer) { return reinterpret_cast<std::uintptr_t>(pointer); }

// A range of the VMM's memory that the guest uses, with what the emulator keeps for it. It lives as long as the guest,
// so that memory taken out of a slot and put back keeps its system-physical address and thus its ciphertext its
// meaning.
struct Backing {
  Backing(std::byte* raw_begin, std::size_t bytes, Spa first)
      : raw(raw_begin),
        size(bytes),
        spa(first),
        shadow(Mapping::anonymous(bytes, PROT_READ | PROT_WRITE)),
        flags(Mapping::anonymous(align_up(bytes / kPageSize, kPageSize), PROT_READ | PROT_WRITE)) {}

  [[nodiscard]] bool holds(const std::byte* host) const noexcept {
    return number(host) >= number(raw) && number(host) - number(raw) < size;
  }
  [[nodiscard]] std::uint8_t& flag(std::size_t page) const noexcept {
    return reinterpret_cast<std::uint8_t*>(flags.data())[page];
  }
  [[nodiscard]] PageBytes raw_page(std::size_t page) const noexcept {
    return PageBytes(raw + page * kPageSize, kPageSize);
  }
  [[nodiscard]] PageBytes shadow_page(std::size_t page) const noexcept {
    return PageBytes(shadow.data() + page * kPageSize, kPageSize);
  }
  [[nodiscard]] Spa spa_of(std::size_t page) const noexcept { return spa + page * kPageSize; }

  std::byte* raw;
  std::size_t size;
  Spa spa;
  Mapping shadow;  // reserved, not committed: pages come by touch and go by MADV_DONTNEED
  Mapping flags;   // a byte a page: PageFlag
};

struct Slot {
  std::uint32_t id;
  std::uint32_t flags;
  Gpa gpa;
  std::uint64_t size;
  std::byte* host;
  std::unique_ptr<DirtyLog> log;  // while kLogDirtyPages is set
};

// The part of a slot that lies in one backing.
struct Piece {
  Gpa gpa;
  std::uint64_t size;
  Backing* backing;
  std::size_t first_page;  // of the backing
  bool read_only;
  DirtyLog* log;            // the slot's, or null
  std::uint64_t slot_page;  // where in it the piece begins
};

// What guests with one key share: the memory that is encrypted with it, by the VMM's addresses. One guest, but for
// mirrors of it.
struct Domain {
  std::vector<std::unique_ptr<Backing>> backings;  // by order of creation
  std::uint64_t next_spa = kFirstSpa;
  std::unique_ptr<PageCipher> cipher;
  std::vector<PageObserver*> observers;
  std::vector<const std::vector<Piece>*> guests;  // what each of them has of it

  // A log that does not have the page yet.
  [[nodiscard]] bool anybody_logs(const Backing& backing, std::size_t page) const {
    const auto wants = [&](const Piece& piece) {
      if (piece.log == nullptr || piece.backing != &backing || page < piece.first_page) return false;
      const std::size_t in_piece = page - piece.first_page;
      return in_piece < piece.size / kPageSize && !piece.log->written(piece.slot_page + in_piece);
    };
    return std::ranges::any_of(guests, [&](const auto* pieces) { return std::ranges::any_of(*pieces, wants); });
  }

  Backing* find_backing(const std::byte* host) {
    for (auto& backing : backings) {
      if (backing->holds(host)) return backing.get();
    }
    return nullptr;
  }

  // The backing of the page at `host`; makes one that covers as much of [host, host + size) as has none yet.
  Backing* backing_at(std::byte* host, std::size_t size) {
    if (Backing* backing = find_backing(host)) return backing;
    for (auto& backing : backings) {
      if (number(backing->raw) > number(host)) size = std::min(size, number(backing->raw) - number(host));
    }
    backings.push_back(std::make_unique<Backing>(host, size, Spa(next_spa)));
    next_spa += align_up(size, kBackingAlignment);
    return backings.back().get();
  }

  void notify_closed(const std::byte* page) {
    for (PageObserver* observer : observers) observer->page_closed(page);
  }
  void notify_all_closed() {
    for (PageObserver* observer : observers) observer->all_pages_closed();
  }

  void open_shadow(Backing& backing, std::size_t page) {
    std::uint8_t& flags = backing.flag(page);
    if (flags & kPageRawOpen) notify_closed(backing.raw_page(page).data());
    cipher->decrypt(backing.spa_of(page), backing.raw_page(page), backing.shadow_page(page));
    flags = static_cast<std::uint8_t>((flags & ~kPageRawOpen) | kPageShadowed);
  }

  // Ciphertext of a dirty shadow goes to the raw page. The memory of the shadow is still there.
  void flush_shadow(Backing& backing, std::size_t page) {
    notify_closed(backing.shadow_page(page).data());
    std::uint8_t& flags = backing.flag(page);
    if (flags & kPageDirty) {
      cipher->encrypt(backing.spa_of(page), backing.shadow_page(page), backing.raw_page(page));
    }
    flags &= static_cast<std::uint8_t>(~(kPageShadowed | kPageHasCode | kPageDirty));
  }
  void close_shadow(Backing& backing, std::size_t page) {
    if (!(backing.flag(page) & kPageShadowed)) return;
    flush_shadow(backing, page);
    ::madvise(backing.shadow_page(page).data(), kPageSize, MADV_DONTNEED);
  }
  void close_shadows(Backing& backing, std::size_t first, std::size_t count) {
    const std::size_t end = first + count;
    for (std::size_t page = first; page < end;) {
      if (!(backing.flag(page) & kPageShadowed)) {
        ++page;
        continue;
      }
      const std::size_t run = page;
      for (; page < end && (backing.flag(page) & kPageShadowed); ++page) flush_shadow(backing, page);
      ::madvise(backing.shadow_page(run).data(), (page - run) * kPageSize, MADV_DONTNEED);
    }
  }
  // Also when the guest ends: its memory may be gone by then, and nobody is left who would read the ciphertext.
  void close_all_shadows() {
    for (auto& backing : backings) {
      if (::msync(backing->raw, backing->size, MS_ASYNC) == 0) close_shadows(*backing, 0, backing->size / kPageSize);
    }
  }

  // Calls `work(backing, page, offset in page, offset in range, bytes)` for each page of [host, host + size).
  template <class Work>
  void for_pages(const std::byte* host, std::size_t size, Work work) {
    for (std::size_t done = 0; done < size;) {
      const std::size_t in_page = (number(host) + done) % kPageSize;
      const std::size_t bytes = std::min(size - done, kPageSize - in_page);
      auto* page_host = const_cast<std::byte*>(host) + done - in_page;
      const std::size_t rest = align_up(in_page + size - done, kPageSize);
      Backing& backing = *backing_at(page_host, rest);
      work(backing, (number(page_host) - number(backing.raw)) / kPageSize, in_page, done, bytes);
      done += bytes;
    }
  }
};

}  // namespace

struct GuestMemory::Impl {
  std::shared_ptr<Domain> domain = std::make_shared<Domain>();
  std::vector<PageObserver*> observers;  // of this guest; the domain has them too
  std::vector<Slot> slots;
  std::vector<Piece> pieces;  // by GPA
  std::size_t last_piece = 0;
  bool logs_start_full = false;

  Impl() { domain->guests.push_back(&pieces); }
  ~Impl() { std::erase(domain->guests, &pieces); }
  Impl(const Impl&) = delete;
  Impl& operator=(const Impl&) = delete;

  Piece* find(Gpa gpa) {
    if (last_piece < pieces.size()) {
      Piece& last = pieces[last_piece];
      if (gpa.value - last.gpa.value < last.size) return &last;
    }
    auto after = std::upper_bound(pieces.begin(), pieces.end(), gpa, [](Gpa g, const Piece& p) { return g < p.gpa; });
    if (after == pieces.begin()) return nullptr;
    --after;
    if (gpa - after->gpa >= after->size) return nullptr;
    last_piece = static_cast<std::size_t>(after - pieces.begin());
    return &*after;
  }

  // Cuts the slots into pieces anew. Pages keep their shadows.
  void rebuild_pieces() {
    pieces.clear();
    last_piece = 0;
    for (const Slot& slot : slots) {
      for (std::uint64_t done = 0; done < slot.size;) {
        std::byte* host = slot.host + done;
        Backing* backing = domain->backing_at(host, slot.size - done);
        const std::size_t offset = number(host) - number(backing->raw);
        const std::uint64_t size = std::min<std::uint64_t>(slot.size - done, backing->size - offset);
        pieces.push_back({.gpa = slot.gpa + done,
                          .size = size,
                          .backing = backing,
                          .first_page = offset / kPageSize,
                          .read_only = (slot.flags & kReadOnly) != 0,
                          .log = slot.log.get(),
                          .slot_page = done / kPageSize});
        done += size;
      }
    }
    std::sort(pieces.begin(), pieces.end(), [](const Piece& a, const Piece& b) { return a.gpa < b.gpa; });
    drop_pages();
  }

  // No pointer that was handed out is used any more.
  void drop_pages() {
    for (PageObserver* observer : observers) observer->all_pages_closed();
  }

  [[nodiscard]] Slot* find_slot(std::uint32_t id) {
    const auto found = std::ranges::find(slots, id, &Slot::id);
    return found == slots.end() ? nullptr : &*found;
  }

  void set_logging(Slot& slot) {
    if ((slot.flags & kLogDirtyPages) == 0) {
      slot.log.reset();
    } else if (slot.log == nullptr) {
      slot.log = std::make_unique<DirtyLog>(slot.size / kPageSize, logs_start_full);
    }
  }

  // The next writes to these pages of the slot go through note_write().
  void log_writes(const Slot& slot, std::span<const std::uint64_t> pages) {
    for (const std::uint64_t page : pages) {
      const Piece* piece = find(slot.gpa + page * kPageSize);
      piece->backing->flag(piece->first_page + page - piece->slot_page) |= kPageLogged;
    }
    if (!pages.empty()) drop_pages();
  }
  void log_all_writes(const Slot& slot) {
    for (const Piece& piece : pieces) {
      if (piece.log == nullptr || piece.log != slot.log.get()) continue;
      for (std::size_t i = 0; i < piece.size / kPageSize; ++i) {
        if (!piece.log->written(piece.slot_page + i)) piece.backing->flag(piece.first_page + i) |= kPageLogged;
      }
    }
  }

  void write_back_slot(const Slot& slot) {
    for (Piece& piece : pieces) {
      if (piece.gpa >= slot.gpa && piece.gpa - slot.gpa < slot.size) {
        domain->close_shadows(*piece.backing, piece.first_page, piece.size / kPageSize);
      }
    }
  }

  [[nodiscard]] bool overlaps_other(std::uint32_t id, Gpa gpa, std::uint64_t size) const {
    return std::any_of(slots.begin(), slots.end(), [&](const Slot& slot) {
      return slot.id != id && gpa.value < slot.gpa.value + slot.size && slot.gpa.value < gpa.value + size;
    });
  }
};

GuestMemory::GuestMemory() : impl_(std::make_unique<Impl>()) {}
GuestMemory::~GuestMemory() = default;

void GuestMemory::set_key(std::span<const std::byte, 16> key, std::span<const std::byte, 16> tweak_key) {
  clear_key();
  impl_->domain->cipher = std::make_unique<PageCipher>(key, tweak_key);
}

void GuestMemory::clear_key() {
  if (impl_->domain->cipher) impl_->domain->close_all_shadows();
  impl_->domain->cipher.reset();
  impl_->domain->notify_all_closed();
}

int GuestMemory::set_slot(std::uint32_t slot, std::uint32_t flags, Gpa gpa, std::uint64_t size, std::byte* host) {
  if (flags & ~(kLogDirtyPages | kReadOnly)) return -EINVAL;
  if (size % kPageSize != 0 || gpa.value % kPageSize != 0 || number(host) % kPageSize != 0) return -EINVAL;
  if (slot >= kMaxSlots || gpa.value + size < gpa.value || number(host) + size < number(host)) return -EINVAL;
  if (size / kPageSize > kMaxSlotPages) return -EINVAL;

  auto& slots = impl_->slots;
  const auto old = std::find_if(slots.begin(), slots.end(), [&](const Slot& s) { return s.id == slot; });
  if (size == 0) {
    if (old == slots.end()) return -EINVAL;
    impl_->write_back_slot(*old);
    slots.erase(old);
    impl_->rebuild_pieces();
    return 0;
  }
  if (gpa.value + size > kGuestPhysicalEnd) return -EINVAL;
  if (old != slots.end()) {
    if (size != old->size || host != old->host || ((flags ^ old->flags) & kReadOnly)) return -EINVAL;
    if (gpa != old->gpa && impl_->overlaps_other(slot, gpa, size)) return -EEXIST;
    const bool moved = gpa != old->gpa;
    const bool logged = old->log != nullptr;
    old->gpa = gpa;
    old->flags = flags;
    impl_->set_logging(*old);
    if (moved || logged != (old->log != nullptr)) {
      impl_->rebuild_pieces();
      impl_->log_all_writes(*old);
    }
    return 0;
  }
  if (impl_->overlaps_other(slot, gpa, size)) return -EEXIST;
  slots.push_back({.id = slot, .flags = flags, .gpa = gpa, .size = size, .host = host, .log = nullptr});
  impl_->set_logging(slots.back());
  impl_->rebuild_pieces();
  impl_->log_all_writes(slots.back());
  return 0;
}

void GuestMemory::set_logs_start_full(bool full) { impl_->logs_start_full = full; }

int GuestMemory::get_dirty_log(std::uint32_t slot, bool clear, std::vector<std::uint64_t>& pages) {
  if (slot >= kMaxSlots) return -EINVAL;
  const Slot* found = impl_->find_slot(slot);
  if (found == nullptr || found->log == nullptr) return -ENOENT;
  pages.assign(found->log->words().begin(), found->log->words().end());
  if (clear) impl_->log_writes(*found, found->log->clear(0, pages));
  return 0;
}

int GuestMemory::check_log_range(std::uint32_t slot, std::uint64_t first, std::uint64_t count) const {
  constexpr std::uint64_t kUnit = DirtyLog::kPagesPerWord;
  if (slot >= kMaxSlots || first % kUnit != 0) return -EINVAL;
  const Slot* found = impl_->find_slot(slot);
  if (found == nullptr || found->log == nullptr) return -ENOENT;
  const std::uint64_t pages = found->log->pages();
  if (first > pages || count > pages - first || (count < pages - first && count % kUnit != 0)) return -EINVAL;
  return 0;
}

void GuestMemory::clear_dirty_log(std::uint32_t slot, std::uint64_t first, std::span<const std::uint64_t> pages) {
  const Slot* found = impl_->find_slot(slot);
  if (found != nullptr && found->log != nullptr) impl_->log_writes(*found, found->log->clear(first, pages));
}

void GuestMemory::note_write(Gpa gpa) {
  const Piece* piece = impl_->find(gpa);
  if (piece == nullptr) return;
  const std::size_t in_piece = (gpa - piece->gpa) / kPageSize;
  if (piece->log != nullptr) piece->log->mark(piece->slot_page + in_piece);
  const std::size_t page = piece->first_page + in_piece;
  if (!impl_->domain->anybody_logs(*piece->backing, page)) {
    piece->backing->flag(page) &= static_cast<std::uint8_t>(~kPageLogged);
  }
}

OpenPage GuestMemory::open(Gpa gpa, View view) {
  const Piece* piece = impl_->find(gpa);
  if (piece == nullptr) return {};
  Backing& backing = *piece->backing;
  const std::size_t page = piece->first_page + (gpa - piece->gpa) / kPageSize;
  std::uint8_t& flags = backing.flag(page);
  OpenPage opened{.host = nullptr, .read_only = piece->read_only, .flags = &flags};
  if (view == View::kPrivate && impl_->domain->cipher) {
    if (!(flags & kPageShadowed)) impl_->domain->open_shadow(backing, page);
    if (!piece->read_only) flags |= kPageDirty;
    opened.host = backing.shadow_page(page).data();
    return opened;
  }
  impl_->domain->close_shadow(backing, page);
  flags |= kPageRawOpen;
  opened.host = backing.raw_page(page).data();
  return opened;
}

void GuestMemory::write_back(Gpa gpa) {
  if (const Piece* piece = impl_->find(gpa)) {
    impl_->domain->close_shadow(*piece->backing, piece->first_page + (gpa - piece->gpa) / kPageSize);
  }
}

void GuestMemory::write_back_all() { impl_->domain->close_all_shadows(); }

bool GuestMemory::read_shared(Gpa gpa, std::span<std::byte> out) {
  while (!out.empty()) {
    const OpenPage page = open(gpa, View::kShared);
    if (page.host == nullptr) return false;
    const std::size_t bytes = std::min<std::size_t>(out.size(), kPageSize - gpa.offset_in_page());
    std::memcpy(out.data(), page.host + gpa.offset_in_page(), bytes);
    out = out.subspan(bytes);
    gpa = gpa + bytes;
  }
  return true;
}

bool GuestMemory::write_shared(Gpa gpa, std::span<const std::byte> in) {
  while (!in.empty()) {
    const OpenPage page = open(gpa, View::kShared);
    if (page.host == nullptr || page.read_only) return false;
    if ((*page.flags & kPageLogged) != 0) note_write(gpa);
    const std::size_t bytes = std::min<std::size_t>(in.size(), kPageSize - gpa.offset_in_page());
    std::memcpy(page.host + gpa.offset_in_page(), in.data(), bytes);
    in = in.subspan(bytes);
    gpa = gpa + bytes;
  }
  return true;
}

void GuestMemory::encrypt_host(std::byte* host, std::size_t size) {
  if (!impl_->domain->cipher) return;
  impl_->domain->for_pages(host, size,
                           [&](Backing& backing, std::size_t page, std::size_t at, std::size_t, std::size_t bytes) {
                             impl_->domain->close_shadow(backing, page);
                             std::array<std::byte, kPageSize> plain;
                             const PageBytes raw = backing.raw_page(page);
                             // Blocks outside the range go through decryption and back unchanged: XTS treats each on
                             // its own.
                             if (bytes != kPageSize) impl_->domain->cipher->decrypt(backing.spa_of(page), raw, plain);
                             std::memcpy(plain.data() + at, raw.data() + at, bytes);
                             impl_->domain->cipher->encrypt(backing.spa_of(page), plain, raw);
                           });
}

void GuestMemory::decrypt_host(const std::byte* host, std::span<std::byte> out) {
  if (!impl_->domain->cipher) {
    std::memcpy(out.data(), host, out.size());
    return;
  }
  impl_->domain->for_pages(
      host, out.size(), [&](Backing& backing, std::size_t page, std::size_t at, std::size_t done, std::size_t bytes) {
        std::array<std::byte, kPageSize> plain;
        if (!(backing.flag(page) & kPageShadowed)) {
          impl_->domain->cipher->decrypt(backing.spa_of(page), backing.raw_page(page), plain);
          std::memcpy(out.data() + done, plain.data() + at, bytes);
        } else {
          std::memcpy(out.data() + done, backing.shadow_page(page).data() + at, bytes);
        }
      });
}

void GuestMemory::store_private(std::byte* host, std::span<const std::byte> plain) {
  if (!impl_->domain->cipher) {
    std::memcpy(host, plain.data(), plain.size());
    return;
  }
  impl_->domain->for_pages(
      host, plain.size(), [&](Backing& backing, std::size_t page, std::size_t at, std::size_t done, std::size_t bytes) {
        impl_->domain->close_shadow(backing, page);
        std::array<std::byte, kPageSize> whole;
        impl_->domain->cipher->decrypt(backing.spa_of(page), backing.raw_page(page), whole);
        std::memcpy(whole.data() + at, plain.data() + done, bytes);
        impl_->domain->cipher->encrypt(backing.spa_of(page), whole, backing.raw_page(page));
      });
}

void GuestMemory::add_observer(PageObserver* observer) {
  impl_->observers.push_back(observer);
  impl_->domain->observers.push_back(observer);
}
void GuestMemory::remove_observer(PageObserver* observer) {
  std::erase(impl_->observers, observer);
  std::erase(impl_->domain->observers, observer);
}

void GuestMemory::share(GuestMemory& other) {
  for (PageObserver* observer : impl_->observers) other.impl_->domain->observers.push_back(observer);
  std::erase(impl_->domain->guests, &impl_->pieces);
  impl_->domain = other.impl_->domain;
  impl_->domain->guests.push_back(&impl_->pieces);
  impl_->rebuild_pieces();
}

}  // namespace sevisor::emulator
