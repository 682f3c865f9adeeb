#include "emulator/memory/memory_domain.hpp"

#include <array>
#include <cstring>
#include <sys/mman.h>

namespace sevisor::emulator {

namespace {

constexpr std::uint64_t kBackingAlignment = 0x20'0000;  // SPA of a backing: 2 MiB, as the kernel's huge pages have it

}  // namespace

Backing::Backing(std::byte* raw_begin, std::size_t bytes, Spa first)
    : raw(raw_begin),
      size(bytes),
      spa(first),
      shadow(Mapping::anonymous(bytes, PROT_READ | PROT_WRITE)),
      flags(Mapping::anonymous(align_up(bytes / kPageSize, kPageSize), PROT_READ | PROT_WRITE)) {}

bool Domain::anybody_logs(const Backing& backing, std::size_t page) const {
  const auto wants = [&](const Piece& piece) {
    if (piece.log == nullptr || piece.backing != &backing || page < piece.first_page) return false;
    const std::size_t in_piece = page - piece.first_page;
    return in_piece < piece.size / kPageSize && !piece.log->written(piece.slot_page + in_piece);
  };
  return std::ranges::any_of(guests, [&](const auto* pieces) { return std::ranges::any_of(*pieces, wants); });
}

Backing* Domain::find_backing(const std::byte* host) {
  for (auto& backing : backings_) {
    if (backing->holds(host)) return backing.get();
  }
  return nullptr;
}

Backing& Domain::backing_at(std::byte* host, std::size_t size) {
  if (Backing* backing = find_backing(host)) return *backing;
  for (auto& backing : backings_) {
    if (number(backing->raw) > number(host)) size = std::min(size, number(backing->raw) - number(host));
  }
  backings_.push_back(std::make_unique<Backing>(host, size, Spa(next_spa_)));
  next_spa_ += align_up(size, kBackingAlignment);
  return *backings_.back();
}

void Domain::notify_closed(const std::byte* page) const {
  for (PageObserver* observer : observers) observer->page_closed(page);
}

void Domain::notify_all_closed() const {
  for (PageObserver* observer : observers) observer->all_pages_closed();
}

void Domain::open_shadow(Backing& backing, std::size_t page) {
  std::uint8_t& flags = backing.flag(page);
  if (flags & kPageRawOpen) notify_closed(backing.raw_page(page).data());
  cipher->decrypt(backing.spa_of(page), backing.raw_page(page), backing.shadow_page(page));
  flags = static_cast<std::uint8_t>((flags & ~kPageRawOpen) | kPageShadowed);
}

void Domain::flush_shadow(Backing& backing, std::size_t page) {
  notify_closed(backing.shadow_page(page).data());
  std::uint8_t& flags = backing.flag(page);
  if (flags & kPageDirty) {
    cipher->encrypt(backing.spa_of(page), backing.shadow_page(page), backing.raw_page(page));
  }
  flags &= static_cast<std::uint8_t>(~(kPageShadowed | kPageHasCode | kPageDirty));
}

void Domain::close_shadow(Backing& backing, std::size_t page) {
  if (!(backing.flag(page) & kPageShadowed)) return;
  flush_shadow(backing, page);
  ::madvise(backing.shadow_page(page).data(), kPageSize, MADV_DONTNEED);
}

void Domain::close_shadows(Backing& backing, std::size_t first, std::size_t count) {
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

void Domain::close_all_shadows() {
  for (auto& backing : backings_) {
    if (::msync(backing->raw, backing->size, MS_ASYNC) == 0) close_shadows(*backing, 0, backing->size / kPageSize);
  }
}

// Calls `work(backing, page, offset in page, offset in range, bytes)` for each page of [host, host + size).
template <class Work>
void Domain::for_pages(const std::byte* host, std::size_t size, Work work) {
  for (std::size_t done = 0; done < size;) {
    const std::size_t in_page = (number(host) + done) % kPageSize;
    const std::size_t bytes = std::min(size - done, kPageSize - in_page);
    auto* page_host = const_cast<std::byte*>(host) + done - in_page;
    const std::size_t rest = align_up(in_page + size - done, kPageSize);
    Backing& backing = backing_at(page_host, rest);
    work(backing, (number(page_host) - number(backing.raw)) / kPageSize, in_page, done, bytes);
    done += bytes;
  }
}

void Domain::encrypt_host(std::byte* host, std::size_t size) {
  for_pages(host, size, [&](Backing& backing, std::size_t page, std::size_t at, std::size_t, std::size_t bytes) {
    close_shadow(backing, page);
    std::array<std::byte, kPageSize> plain;
    const PageBytes raw = backing.raw_page(page);
    // Blocks outside the range go through decryption and back unchanged: XTS treats each on
    // its own.
    if (bytes != kPageSize) cipher->decrypt(backing.spa_of(page), raw, plain);
    std::memcpy(plain.data() + at, raw.data() + at, bytes);
    cipher->encrypt(backing.spa_of(page), plain, raw);
  });
}

void Domain::decrypt_host(const std::byte* host, std::span<std::byte> out) {
  for_pages(host, out.size(),
            [&](Backing& backing, std::size_t page, std::size_t at, std::size_t done, std::size_t bytes) {
              std::array<std::byte, kPageSize> plain;
              if (!(backing.flag(page) & kPageShadowed)) {
                cipher->decrypt(backing.spa_of(page), backing.raw_page(page), plain);
                std::memcpy(out.data() + done, plain.data() + at, bytes);
              } else {
                std::memcpy(out.data() + done, backing.shadow_page(page).data() + at, bytes);
              }
            });
}

void Domain::store_private(std::byte* host, std::span<const std::byte> plain) {
  for_pages(host, plain.size(),
            [&](Backing& backing, std::size_t page, std::size_t at, std::size_t done, std::size_t bytes) {
              close_shadow(backing, page);
              std::array<std::byte, kPageSize> whole;
              cipher->decrypt(backing.spa_of(page), backing.raw_page(page), whole);
              std::memcpy(whole.data() + at, plain.data() + done, bytes);
              cipher->encrypt(backing.spa_of(page), whole, backing.raw_page(page));
            });
}

}  // namespace sevisor::emulator
