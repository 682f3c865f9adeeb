// What guests with one key share: the memory that is encrypted with it, by the VMM's addresses, its shadows and the
// cipher. Private to emulator/memory.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "base/address.hpp"
#include "base/bytes.hpp"
#include "base/mapping.hpp"
#include "emulator/memory/dirty_log.hpp"
#include "emulator/memory/guest_memory.hpp"
#include "emulator/memory/page_cipher.hpp"

namespace sevisor::emulator {

[[nodiscard]] inline std::uintptr_t number(const std::byte* pointer) {
  return reinterpret_cast<std::uintptr_t>(pointer);
}

// A range of the VMM's memory that the guest uses, with what the emulator keeps for it. It lives as long as the guest,
// so that memory taken out of a slot and put back keeps its system-physical address and thus its ciphertext its
// meaning.
struct Backing {
  Backing(std::byte* raw_begin, std::size_t bytes, Spa first);

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

// One guest has one, but for mirrors of it.
class Domain {
 public:
  std::unique_ptr<PageCipher> cipher;  // null: nothing is encrypted
  std::vector<PageObserver*> observers;
  std::vector<const std::vector<Piece>*> guests;  // what each of them has of it

  // Whether a log does not have the page yet.
  [[nodiscard]] bool anybody_logs(const Backing& backing, std::size_t page) const;

  // The backing of the page at `host`; makes one that covers as much of [host, host + size) as has none yet.
  [[nodiscard]] Backing& backing_at(std::byte* host, std::size_t size);

  void notify_all_closed() const;
  void open_shadow(Backing& backing, std::size_t page);
  void close_shadow(Backing& backing, std::size_t page);
  void close_shadows(Backing& backing, std::size_t first, std::size_t count);
  // Also when the guest ends: its memory may be gone by then, and nobody is left who would read the ciphertext.
  void close_all_shadows();

  // GuestMemory's functions of these names, with a cipher.
  void encrypt_host(std::byte* host, std::size_t size);
  void decrypt_host(const std::byte* host, std::span<std::byte> out);
  void store_private(std::byte* host, std::span<const std::byte> plain);

 private:
  [[nodiscard]] Backing* find_backing(const std::byte* host);
  void notify_closed(const std::byte* page) const;
  // Ciphertext of a dirty shadow goes to the raw page. The memory of the shadow is still there.
  void flush_shadow(Backing& backing, std::size_t page);
  template <class Work>
  void for_pages(const std::byte* host, std::size_t size, Work work);

  static constexpr std::uint64_t kFirstSpa = 0x1'0000'0000;  // where the emulated host's DRAM starts for guests

  std::vector<std::unique_ptr<Backing>> backings_;  // by order of creation
  std::uint64_t next_spa_ = kFirstSpa;
};

}  // namespace sevisor::emulator
