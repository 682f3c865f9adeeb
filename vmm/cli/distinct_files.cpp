#include "vmm/cli/distinct_files.hpp"

#include <filesystem>
#include <fmt/format.h>
#include <optional>
#include <sys/stat.h>
#include <system_error>
#include <unistd.h>

#include "base/error.hpp"
#include "base/output_file.hpp"

namespace sevisor::cli {

namespace {

// What tells one file from another: its inode, or its place if it is not there yet.
struct Identity {
  dev_t device = 0;
  ino_t inode = 0;
  std::string place;

  bool operator==(const Identity&) const = default;
};

// Nothing for what may well be two things: devices, pipes, descriptors.
std::optional<Identity> identity_of(const std::string& path) {
  if (descriptor_named(path)) return std::nullopt;
  struct stat status {};
  if (::stat(path.c_str(), &status) == 0) {
    if (!S_ISREG(status.st_mode)) return std::nullopt;
    return Identity{status.st_dev, status.st_ino, {}};
  }
  std::error_code error;
  const std::filesystem::path place = std::filesystem::weakly_canonical(std::filesystem::absolute(path, error), error);
  return Identity{0, 0, error ? path : place.string()};
}

std::optional<Identity> identity_of(int fd) {
  struct stat status {};
  if (::fstat(fd, &status) != 0 || !S_ISREG(status.st_mode)) return std::nullopt;
  return Identity{status.st_dev, status.st_ino, {}};
}

struct NamedFile {
  std::string name;  // of the option
  Identity identity;
};

void add(const CLI::App& command, const char* name, std::vector<NamedFile>& files) {
  const CLI::Option* option = command.get_option_no_throw(name);
  if (option == nullptr) return;
  for (const std::string& path : option->results()) {
    if (const auto identity = identity_of(path)) files.push_back({name, *identity});
  }
}

}  // namespace

void require_distinct_files(const CLI::App& command, std::initializer_list<const char*> inputs,
                            std::initializer_list<const char*> outputs) {
  std::vector<NamedFile> taken;
  for (const char* name : inputs) add(command, name, taken);
  if (const auto file = identity_of(STDOUT_FILENO)) taken.push_back({"standard output", *file});
  if (const auto file = identity_of(STDERR_FILENO)) taken.push_back({"standard error", *file});
  for (const char* name : outputs) {
    std::vector<NamedFile> files;
    add(command, name, files);
    for (const NamedFile& file : files) {
      for (const NamedFile& other : taken) {
        if (other.identity != file.identity) continue;
        throw Error(ExitCode::kBadUsage,
                    fmt::format("write {} '{}'", name, command.get_option(name)->results().front()),
                    fmt::format("it is the file of {} too", other.name), "Give each a file of its own.");
      }
      taken.push_back(file);
    }
  }
}

}  // namespace sevisor::cli
