#include "emulator/cpu/exec/host_stubs.hpp"

#include <cerrno>
#include <cstring>
#include <sys/mman.h>
#include <unistd.h>
#include <utility>

#include "base/bytes.hpp"
#include "base/error.hpp"

namespace sevisor::emulator {

namespace {
constexpr std::size_t kChunk = 256U << 10;
constexpr std::size_t kAlignment = 32;
// Of an entry of by_code_, the string aside: hash, links, string and pointer.
constexpr std::size_t kEntry = 96;

Mapping map_chunk(int fd, int protection) {
  void* address = ::mmap(nullptr, kChunk, protection, MAP_SHARED, fd, 0);
  if (address == MAP_FAILED) {
    throw Error(ExitCode::kCrash, "map memory for host code", errno_text(errno),
                "The emulated CPU needs executable memory; check the system's security policy");
  }
  return {address, kChunk};
}
}  // namespace

void HostStubs::grow() {
  Chunk chunk;
  chunk.fd = UniqueFd(::memfd_create("sevisor-host-stubs", MFD_CLOEXEC));
  if (!chunk.fd || ::ftruncate(chunk.fd.get(), kChunk) != 0) {
    throw Error(ExitCode::kCrash, "make memory for host code", errno_text(errno));
  }
  chunk.writable = map_chunk(chunk.fd.get(), PROT_READ | PROT_WRITE);
  chunk.executable = map_chunk(chunk.fd.get(), PROT_READ | PROT_EXEC);
  chunks_.push_back(std::move(chunk));
}

HostStub HostStubs::intern(std::span<const std::uint8_t> code) {
  std::string content(reinterpret_cast<const char*>(code.data()), code.size());
  if (const auto found = by_code_.find(content); found != by_code_.end()) return found->second;
  if (chunks_.empty() || chunks_.back().used + code.size() > kChunk) grow();
  Chunk& chunk = chunks_.back();
  std::memcpy(chunk.writable.data() + chunk.used, code.data(), code.size());
  HostStub stub;
  const std::byte* entry = chunk.executable.data() + chunk.used;
  static_assert(sizeof stub == sizeof entry);
  std::memcpy(&stub, &entry, sizeof stub);
  chunk.used = align_up(chunk.used + code.size(), kAlignment);
  bytes_ += align_up(code.size(), kAlignment) + code.size() + kEntry;
  by_code_.emplace(std::move(content), stub);
  return stub;
}

}  // namespace sevisor::emulator
