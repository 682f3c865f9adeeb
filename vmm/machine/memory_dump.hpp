// The guest's RAM in a file, after its end: what DRAM holds, so private pages are ciphertext.
#pragma once

#include <string>

#include "base/unique_fd.hpp"
#include "vmm/machine/guest_ram.hpp"

namespace sevisor::vmm {

class MemoryDump {
 public:
  // Makes the file, or empties it. Throws Error (kBadUsage) when it cannot be written.
  explicit MemoryDump(std::string path);

  // The byte of guest-physical address N goes to offset N. Zero pages and what is not RAM become holes. Caches that
  // hold the guest's data have been written back. Throws Error (kBadUsage), for want of room, say.
  void write(const GuestRam& ram) const;

 private:
  std::string path_;
  UniqueFd fd_;
};

}  // namespace sevisor::vmm
