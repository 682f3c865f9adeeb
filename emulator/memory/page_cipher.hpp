// The encryption engine of the memory controller: one guest's AES-128 key, each 16-byte block tweaked by where it lies.
// AMD documents the tweak only as "from the system-physical address"; here it is XTS (IEEE 1619) with a page as data
// unit and its system-physical address as the data unit's number. A changed block of plaintext changes that block of
// ciphertext only.
#pragma once

#include <cstddef>
#include <memory>
#include <span>

#include "base/address.hpp"
#include "base/bytes.hpp"

namespace sevisor::emulator {

using PageBytes = std::span<std::byte, kPageSize>;
using ConstPageBytes = std::span<const std::byte, kPageSize>;

class PageCipher {
 public:
  // The two keys must differ (XTS). Throws Error when OpenSSL refuses.
  PageCipher(std::span<const std::byte, 16> key, std::span<const std::byte, 16> tweak_key);
  ~PageCipher();
  PageCipher(const PageCipher&) = delete;
  PageCipher& operator=(const PageCipher&) = delete;

  // `spa`: system-physical address of the page. `in` and `out` are the same page or do not overlap.
  void encrypt(Spa spa, ConstPageBytes in, PageBytes out);
  void decrypt(Spa spa, ConstPageBytes in, PageBytes out);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace sevisor::emulator
