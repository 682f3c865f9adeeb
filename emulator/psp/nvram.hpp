// Where a platform's firmware keeps what has to survive power-off.
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <string>

#include "sev/secret_memory.hpp"

namespace sevisor::emulator {

class Nvram {
 public:
  virtual ~Nvram() = default;
  // As last written; empty if nothing was.
  [[nodiscard]] virtual sev::SecretBytes read() const = 0;
  // false: it cannot be written, and holds what it did before. Never half of each.
  [[nodiscard]] virtual bool write(std::span<const std::byte> bytes) = 0;
};

// As long as the process lives.
[[nodiscard]] std::shared_ptr<Nvram> make_volatile_nvram();
// A file, readable by its owner alone. A new version takes the old one's place in one step (rename(2)).
[[nodiscard]] std::shared_ptr<Nvram> make_file_nvram(std::string path);

}  // namespace sevisor::emulator
