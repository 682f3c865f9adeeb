#include "vmm/doctor/machine.hpp"

#include <cpuid.h>
#include <fmt/format.h>
#include <fstream>
#include <grp.h>
#include <linux/capability.h>
#include <pwd.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

namespace sevisor::doctor {

namespace {

CpuidResult run_cpuid(std::uint32_t leaf, std::uint32_t subleaf) {
  CpuidResult result;
  if (__get_cpuid_count(leaf, subleaf, &result.eax, &result.ebx, &result.ecx, &result.edx) == 0) return {};
  return result;
}

// CapEff of /proc/self/status (proc(5)).
bool has_capability(unsigned number) {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (line.starts_with("CapEff:")) return (std::stoull(line.substr(7), nullptr, 16) >> number & 1) != 0;
  }
  return false;
}

std::string user_name() {
  const passwd* entry = ::getpwuid(::geteuid());
  return entry != nullptr ? entry->pw_name : std::to_string(::geteuid());
}

}  // namespace

std::optional<std::string> Machine::line_of(const std::string& path) const {
  std::ifstream file(root / path);
  std::string line;
  if (!std::getline(file, line)) return std::nullopt;
  return line;
}

bool Machine::has(const std::string& path) const {
  std::error_code error;
  return std::filesystem::exists(root / path, error);
}

std::string Machine::permissions_of(const std::string& path) const {
  struct stat status {};
  if (::stat((root / path).c_str(), &status) != 0) return {};
  const passwd* owner = ::getpwuid(status.st_uid);
  const ::group* group = ::getgrgid(status.st_gid);
  return fmt::format("mode {:04o}, owner {}, group {}", status.st_mode & 07777,
                     owner != nullptr ? owner->pw_name : std::to_string(status.st_uid),
                     group != nullptr ? group->gr_name : std::to_string(status.st_gid));
}

bool Machine::opens_to_group(const std::string& path, const std::string& group) const {
  struct stat status {};
  if (::stat((root / path).c_str(), &status) != 0) return false;
  const ::group* owners = ::getgrgid(status.st_gid);
  constexpr mode_t kReadWrite = S_IRGRP | S_IWGRP;
  return owners != nullptr && group == owners->gr_name && (status.st_mode & kReadWrite) == kReadWrite;
}

std::optional<std::string> Machine::cpuinfo(const std::string& name) const {
  std::ifstream file(root / "proc/cpuinfo");
  for (std::string line; std::getline(file, line);) {
    const std::size_t colon = line.find(':');
    if (colon == std::string::npos || line.substr(0, line.find_last_not_of(" \t", colon - 1) + 1) != name) continue;
    const std::size_t value = line.find_first_not_of(' ', colon + 1);
    return value == std::string::npos ? "" : line.substr(value);
  }
  return std::nullopt;
}

Machine this_machine() {
  Machine machine;
  machine.cpuid = run_cpuid;
  rlimit limit{};
  if (::getrlimit(RLIMIT_MEMLOCK, &limit) == 0) {
    machine.memlock = limit.rlim_cur == RLIM_INFINITY ? UINT64_MAX : limit.rlim_cur;
  }
  machine.may_lock_memory = has_capability(CAP_IPC_LOCK);
  machine.user = user_name();
  return machine;
}

}  // namespace sevisor::doctor
