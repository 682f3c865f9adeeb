// Host machine code that runs one guest vector instruction on the host's own unit: written once, found again by
// content. The memory is mapped twice, writable and executable, so that no page is ever both.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include "base/mapping.hpp"
#include "base/unique_fd.hpp"

namespace sevisor::emulator {

struct VectorState;

// `state` and the scratch memory operand are the instruction's; `gpr` is Core::gpr. Returns the host's RFLAGS after it.
using HostStub = std::uint64_t (*)(VectorState* state, std::byte* memory, std::uint64_t* gpr);

class HostStubs {
 public:
  HostStubs() = default;

  // The callable copy of `code`, which is position-independent and ends in RET. Throws Error when memory is refused.
  [[nodiscard]] HostStub intern(std::span<const std::uint8_t> code);
  // Memory in use, in bytes: the code, and the copies that find it again.
  [[nodiscard]] std::size_t bytes() const noexcept { return bytes_; }

 private:
  struct Chunk {
    UniqueFd fd;
    Mapping writable;
    Mapping executable;
    std::size_t used = 0;
  };
  void grow();

  std::vector<Chunk> chunks_;
  std::unordered_map<std::string, HostStub> by_code_;
  std::size_t bytes_ = 0;
};

}  // namespace sevisor::emulator
