#include "vmm/machine/memory_dump.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>
#include <utility>

#include "base/error.hpp"
#include "base/output_file.hpp"

namespace sevisor::vmm {

namespace {

constexpr std::size_t kPage = 4096;

[[noreturn]] void refuse(const std::string& path, std::string came_back) {
  throw Error(ExitCode::kBadUsage, fmt::format("write the guest's memory to '{}'", path), std::move(came_back),
              "Give a path that can be written, with room for the guest's memory, with --dump-memory.");
}

}  // namespace

MemoryDump::MemoryDump(std::string path) : path_(std::move(path)) {
  constexpr mode_t kOwnerOnly = 0600;  // a guest's memory is nobody else's business
  fd_ = open_output(path_, O_TRUNC, kOwnerOnly);
  if (!fd_) refuse(path_, errno_text(errno));
}

void MemoryDump::write(const GuestRam& ram) const {
  static constexpr std::array<std::byte, kPage> kZeros{};
  std::uint64_t end = 0;
  for (const GuestRam::Region& region : ram.regions()) {
    const std::span<const std::byte> memory = region.memory.bytes();
    for (std::size_t at = 0; at < memory.size(); at += kPage) {
      if (std::memcmp(&memory[at], kZeros.data(), kPage) == 0) continue;
      const auto written = ::pwrite(fd_.get(), &memory[at], kPage, static_cast<off_t>(region.base.value + at));
      if (written < 0) refuse(path_, errno_text(errno));
      if (written != static_cast<ssize_t>(kPage)) refuse(path_, errno_text(ENOSPC));
    }
    end = std::max(end, region.base.value + memory.size());
  }
  if (::ftruncate(fd_.get(), static_cast<off_t>(end)) != 0) refuse(path_, errno_text(errno));
}

}  // namespace sevisor::vmm
