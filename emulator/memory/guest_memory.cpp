#include "emulator/memory/guest_memory.hpp"

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "emulator/memory/dirty_log.hpp"
#include "emulator/memory/memory_domain.hpp"

namespace sevisor::emulator {

namespace {

// KVM_SET_USER_MEMORY_REGION (Linux include/uapi/linux/kvm.h, virt/kvm/kvm_main.c, arch/x86/include/asm/kvm_host.h).
constexpr std::uint32_t kLogDirtyPages = 1;
constexpr std::uint32_t kReadOnly = 2;
constexpr std::uint32_t kMaxSlots = 32764;  // KVM_USER_MEM_SLOTS of x86
constexpr std::uint64_t kMaxSlotPages = (std::uint64_t{1} << 31) - 1;
constexpr std::uint64_t kGuestPhysicalEnd = std::uint64_t{1} << 48;

struct Slot {
  std::uint32_t id;
  std::uint32_t flags;
  Gpa gpa;
  std::uint64_t size;
  std::byte* host;
  std::unique_ptr<DirtyLog> log;  // while kLogDirtyPages is set
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
        Backing& backing = domain->backing_at(host, slot.size - done);
        const std::size_t offset = number(host) - number(backing.raw);
        const std::uint64_t size = std::min<std::uint64_t>(slot.size - done, backing.size - offset);
        pieces.push_back({.gpa = slot.gpa + done,
                          .size = size,
                          .backing = &backing,
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
  if (impl_->domain->cipher) impl_->domain->encrypt_host(host, size);
}

void GuestMemory::decrypt_host(const std::byte* host, std::span<std::byte> out) {
  if (impl_->domain->cipher) return impl_->domain->decrypt_host(host, out);
  std::memcpy(out.data(), host, out.size());
}

void GuestMemory::store_private(std::byte* host, std::span<const std::byte> plain) {
  if (impl_->domain->cipher) return impl_->domain->store_private(host, plain);
  std::memcpy(host, plain.data(), plain.size());
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
