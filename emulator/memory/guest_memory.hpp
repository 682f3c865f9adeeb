// Guest-physical memory of one emulated guest, seen in two ways.
//
// The raw view is the memory the VMM gave with KVM_SET_USER_MEMORY_REGION, as DRAM is: ciphertext wherever the guest
// wrote with C=1. The private view is the plaintext, held in a shadow page of the emulator's own. A page has at most
// one of the two open at a time:
//   - opening the private view of a page without a shadow decrypts the raw bytes into the shadow;
//   - opening the shared view of a page with a shadow encrypts the shadow into the raw bytes and drops it.
// The shadow thus behaves as a dirty cache line of the guest's encryption domain (APM vol. 2, 15.34.7), and
// write_back() as CLFLUSH. Only what comes from a read-only slot stays clean: its shadow is dropped as it is, so that
// what the VMM has written meanwhile (a flash's array) is not lost. The cipher is AES-128 with a tweak made from the
// system-physical address of each 16-byte block; here XTS.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "base/address.hpp"
#include "base/bytes.hpp"
#include "base/mapping.hpp"

namespace sevisor::emulator {

class PageCipher;  // emulator/memory/page_cipher.hpp

// Told when host pointers that were handed out stop being valid. A vCPU drops its TLB and the blocks decoded from the
// page.
class PageObserver {
 public:
  virtual ~PageObserver() = default;
  // `host_page`: the page-aligned pointer (private or raw view) that must not be used any more.
  virtual void page_closed(const std::byte* host_page) = 0;
  // All pointers: slots changed.
  virtual void all_pages_closed() = 0;
};

enum class View : std::uint8_t { kShared, kPrivate };

struct OpenPage {
  std::byte* host = nullptr;      // first byte of the page in the asked view; nullptr: no memory slot has this page
  bool read_only = false;         // KVM_MEM_READONLY slot
  std::uint8_t* flags = nullptr;  // PageFlag bits of this page, shared by all vCPUs; stays valid while the slot exists
};

// Bits of *OpenPage::flags that the memory keeps for its users.
enum PageFlag : std::uint8_t {
  kPageShadowed = 1,  // the private view is open
  kPageRawOpen = 2,   // the shared view was handed out since the private view was last closed
  kPageDirty = 8,     // the private view was handed out for writing: closing it writes it back
  kPageHasCode = 4,   // a vCPU has decoded instructions from the private view: writes must go through its slow path
  kPageLogged = 16,   // somebody wants to know of the next write: it must go through the slow path, and note_write()
};

class GuestMemory {
 public:
  GuestMemory();
  ~GuestMemory();
  GuestMemory(const GuestMemory&) = delete;
  GuestMemory& operator=(const GuestMemory&) = delete;

  // The guest's key; called at LAUNCH_START / ACTIVATE. Without a key the private view equals the raw one.
  void set_key(std::span<const std::byte, 16> key, std::span<const std::byte, 16> tweak_key);
  void clear_key();

  // Slots, as KVM_SET_USER_MEMORY_REGION has them. 0 or a negative errno (-EEXIST, -EINVAL), as the kernel answers.
  // `size` 0 deletes; the shadows of a deleted slot are written back first.
  int set_slot(std::uint32_t slot, std::uint32_t flags, Gpa gpa, std::uint64_t size, std::byte* host);

  // --- KVM_MEM_LOG_DIRTY_PAGES. Errors as the kernel's: -EINVAL, and -ENOENT for a slot that has no log.
  // Logs that start from now on have all pages in them (KVM_DIRTY_LOG_INITIALLY_SET).
  void set_logs_start_full(bool full);
  // KVM_GET_DIRTY_LOG: one bit a page, in whole words. `clear`: they are forgotten.
  [[nodiscard]] int get_dirty_log(std::uint32_t slot, bool clear, std::vector<std::uint64_t>& pages);
  // KVM_CLEAR_DIRTY_LOG, in two steps: whether the range is one of the slot's, and the pages in it to forget.
  [[nodiscard]] int check_log_range(std::uint32_t slot, std::uint64_t first, std::uint64_t count) const;
  void clear_dirty_log(std::uint32_t slot, std::uint64_t first, std::span<const std::uint64_t> pages);
  // The page is about to be written to, in either view. To be called if its flags have kPageLogged.
  void note_write(Gpa gpa);

  // The page that holds `gpa` in the asked view. May close the other view, which calls the observers.
  [[nodiscard]] OpenPage open(Gpa gpa, View view);

  // CLFLUSH, DMA out: encrypts the page's shadow into the raw view and drops it. Nothing if it has none.
  void write_back(Gpa gpa);
  void write_back_all();

  // Bytes in the shared view, across pages. false (and nothing guaranteed of the destination) if a page has no slot,
  // or, for write_shared, a read-only one.
  [[nodiscard]] bool read_shared(Gpa gpa, std::span<std::byte> out);
  [[nodiscard]] bool write_shared(Gpa gpa, std::span<const std::byte> in);

  // LAUNCH_UPDATE_DATA, LAUNCH_SECRET and DBG_*: work on host-virtual addresses of the VMM, which need not lie in a
  // slot (LAUNCH_UPDATE_DATA may precede it). Addresses and sizes are multiples of 16; the memory must be readable and
  // writable. encrypt_host: in place, what lies there in clear becomes ciphertext.
  void encrypt_host(std::byte* host, std::size_t size);
  // The private view of `out.size()` bytes at `host`.
  void decrypt_host(const std::byte* host, std::span<std::byte> out);
  // Writes plaintext to the private view, without a moment of it in the raw one.
  void store_private(std::byte* host, std::span<const std::byte> plain);

  // From now on this guest's memory is encrypted as `other`'s is: the same key, and the same plaintext wherever the
  // slots of both are the same memory of the VMM. This guest must not have had a key.
  void share(GuestMemory& other);

  void add_observer(PageObserver* observer);
  void remove_observer(PageObserver* observer);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace sevisor::emulator
