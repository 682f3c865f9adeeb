#include "vmm/boot/variable_store.hpp"

#include <algorithm>
#include <cerrno>
#include <fcntl.h>
#include <filesystem>
#include <fmt/format.h>
#include <spdlog/spdlog.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/bytes.hpp"
#include "base/error.hpp"
#include "vmm/boot/input_file.hpp"
#include "vmm/text/size_text.hpp"

namespace sevisor::vmm {

namespace {

[[noreturn]] void refuse(const std::string& path, std::string came_back, std::string advice) {
  throw Error(ExitCode::kBadUsage, fmt::format("use the variables '{}'", path), std::move(came_back),
              std::move(advice));
}

Mapping read_content(const std::string& path) {
  const FileBytes bytes = read_input_file("vars", path, kVariablesMaxSize);
  if (bytes->size() % kPageSize != 0) {
    refuse(path, fmt::format("it has {} bytes, which is no multiple of {}", bytes->size(), kPageSize),
           "Give an image of a variable store, such as a copy of OVMF_VARS.fd.");
  }
  Mapping memory = Mapping::anonymous(bytes->size(), PROT_READ | PROT_WRITE);
  std::ranges::copy(*bytes, memory.data());
  return memory;
}

}  // namespace

VariableStore VariableStore::keep(const std::string& path) {
  // O_NONBLOCK: a FIFO must not hold up the start. The lock comes before the content.
  UniqueFd file(::open(path.c_str(), O_RDWR | O_CLOEXEC | O_NONBLOCK));
  if (!file) {
    refuse(path, errno_text(errno), "Give a file of your own that can be written, such as a copy of OVMF_VARS.fd.");
  }
  if (::flock(file.get(), LOCK_EX | LOCK_NB) != 0) {
    refuse(path, errno == EWOULDBLOCK ? "another guest uses it" : errno_text(errno),
           "Give each guest a file of its own.");
  }
  return {std::move(file), path, read_content(path)};
}

VariableStore VariableStore::forget(const std::string& path) { return {UniqueFd(), path, read_content(path)}; }

void VariableStore::save(std::size_t offset, std::size_t size) {
  if (!file_) return;
  while (size > 0) {
    const ssize_t done = ::pwrite(file_.get(), memory_.data() + offset, size, static_cast<off_t>(offset));
    if (done < 0 && errno == EINTR) continue;
    if (done <= 0) {
      if (!std::exchange(complained_, true)) {
        spdlog::error("write to the variables '{}': {}; what the guest changes is lost", path_, errno_text(errno));
      }
      return;
    }
    offset += static_cast<std::size_t>(done);
    size -= static_cast<std::size_t>(done);
  }
}

std::optional<std::string> find_variables_of(const std::string& firmware_path) {
  const std::filesystem::path firmware(firmware_path);
  std::string name = firmware.filename().string();
  static constexpr std::string_view kCode = "_CODE";
  const std::size_t at = name.find(kCode);
  if (at == std::string::npos) return std::nullopt;
  name.replace(at, kCode.size(), "_VARS");
  // What follows the size ("secboot") names a kind of firmware; most of them share the variables.
  const std::size_t kind = name.find('.');
  for (const std::string& candidate : {name, name.substr(0, kind) + firmware.extension().string()}) {
    const std::filesystem::path path = firmware.parent_path() / candidate;
    std::error_code ignored;
    if (std::filesystem::is_regular_file(path, ignored)) return path.string();
  }
  return std::nullopt;
}

}  // namespace sevisor::vmm
