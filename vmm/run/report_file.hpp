// A file that a command writes once, at its end.
#pragma once

#include <string>

namespace sevisor::vmm {

// A file that is replaced as a whole or not at all; what is no ordinary file (a symbolic link, a device, a pipe, "-"
// for standard output) is written through.
class ReportFile {
 public:
  // Throws Error (kBadUsage) when the file could not be written; does not touch it yet and leaves nothing behind.
  // `option`: the one that the path was given with.
  ReportFile(std::string path, std::string option);

  [[nodiscard]] const std::string& path() const noexcept { return path_; }

  // Throws Error (kBadUsage).
  void write(const std::string& text) const;

 private:
  std::string path_;
  std::string option_;
};

}  // namespace sevisor::vmm
