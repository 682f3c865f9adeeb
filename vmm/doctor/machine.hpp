// What the checks of this machine look at, so that a test can give them another one.
#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>

namespace sevisor::doctor {

struct CpuidResult {
  std::uint32_t eax = 0;
  std::uint32_t ebx = 0;
  std::uint32_t ecx = 0;
  std::uint32_t edx = 0;
};

struct Machine {
  std::filesystem::path root = "/";  // above dev, proc and sys
  // The CPUID instruction; zeros for a leaf that the processor does not have.
  std::function<CpuidResult(std::uint32_t leaf, std::uint32_t subleaf)> cpuid;
  std::uint64_t memlock = 0;     // RLIMIT_MEMLOCK, bytes; UINT64_MAX: no limit
  bool may_lock_memory = false;  // CAP_IPC_LOCK: the limit does not hold
  std::string user;              // name, for advice

  // A file's first line, without its end; nullopt if it cannot be read.
  [[nodiscard]] std::optional<std::string> line_of(const std::string& path) const;
  [[nodiscard]] bool has(const std::string& path) const;
  // "mode 0660, owner root, group kvm"; empty if there is no such file.
  [[nodiscard]] std::string permissions_of(const std::string& path) const;
  // Whether those of the group may read and write it.
  [[nodiscard]] bool opens_to_group(const std::string& path, const std::string& group) const;
  // The value of a line "NAME : VALUE" of /proc/cpuinfo, of the first processor.
  [[nodiscard]] std::optional<std::string> cpuinfo(const std::string& name) const;
};

[[nodiscard]] Machine this_machine();

}  // namespace sevisor::doctor
