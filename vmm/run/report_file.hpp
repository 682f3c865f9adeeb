// A file that a command writes once, at its end.
#pragma once

#include <string>

namespace sevisor::vmm {

// A file that is replaced as a whole or not at all.
class ReportFile {
 public:
  // Throws Error (kBadUsage) when the file could not be written; does not touch it yet and leaves nothing behind.
  // `option`: the one that the path was given with.
  explicit ReportFile(std::string path, std::string option = "--json");

  // Throws Error (kBadUsage).
  void write(const std::string& text) const;

 private:
  [[nodiscard]] bool is_special() const;  // a device or pipe, which is written in place

  std::string path_;
  std::string option_;
};

}  // namespace sevisor::vmm
