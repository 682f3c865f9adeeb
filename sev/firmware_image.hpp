// A firmware image, read once: its bytes, its name, and what its tables say. Whoever measures, verifies, checks or
// launches it is handed this value, so that no two of them can disagree about it. The image is untrusted input.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "sev/firmware_facts.hpp"
#include "sev/footer_table.hpp"

namespace sevisor::sev {

class FirmwareImage {
 public:
  // No bytes, and fit for nothing.
  FirmwareImage() = default;
  // `bytes` must outlive it and its copies. `name`: of the file, for messages.
  FirmwareImage(std::span<const std::byte> bytes, std::string name);
  // Keeps the file's bytes alive.
  FirmwareImage(std::shared_ptr<const std::vector<std::byte>> file, std::string name);

  [[nodiscard]] std::span<const std::byte> bytes() const noexcept { return bytes_; }
  [[nodiscard]] std::size_t size() const noexcept { return bytes_.size(); }
  [[nodiscard]] const std::string& name() const noexcept { return name_; }
  [[nodiscard]] const FirmwareFacts& facts() const noexcept { return facts_; }

  // As require_ap_reset_address() and require_hashes_area() of its footer table; throws Error (kBadUsage) that names
  // the image when it has no such thing, or no table.
  [[nodiscard]] std::uint32_t ap_reset_address() const;
  [[nodiscard]] FooterArea hashes_area() const;
  // The same for the area that the table names for launch secrets.
  [[nodiscard]] FooterArea secret_area() const;

 private:
  [[nodiscard]] const FooterTable& table() const;
  [[noreturn]] void refuse(std::string came_back, std::string advice) const;

  std::shared_ptr<const std::vector<std::byte>> file_;  // null: somebody else keeps the bytes
  std::span<const std::byte> bytes_;
  std::string name_;
  FirmwareFacts facts_;
};

}  // namespace sevisor::sev
