// Decoded blocks of all vCPUs of a VM, found by the host address of their private page, and dropped when it is written.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <unordered_map>
#include <vector>

#include "emulator/cpu/code/op.hpp"

namespace sevisor::emulator {

struct Core;
class HostStubs;

struct Block {
  const std::byte* page = nullptr;  // private host page
  std::uint16_t offset = 0;         // of the first byte in the page
  std::uint16_t size = 0;           // bytes
  unsigned mode = 0;                // Core::mode_bits()
  std::uint8_t* page_flags = nullptr;
  std::vector<Op> ops;  // ops[0] is op_enter
};

class CodeCache {
 public:
  // Instructions in a block at most: bounds the overshoot of a run's budget.
  static constexpr unsigned kMaxInstructions = 64;

  CodeCache();
  ~CodeCache();
  CodeCache(const CodeCache&) = delete;
  CodeCache& operator=(const CodeCache&) = delete;

  void attach(Core* core) { cores_.push_back(core); }
  void detach(Core* core) { std::erase(cores_, core); }

  // The first operation of the block at `page` + `offset`, or nullptr.
  [[nodiscard]] const Op* find(const std::byte* page, unsigned offset, unsigned mode) const;
  // Keeps a freshly decoded block; marks the page as code and takes write access to it from all TLBs.
  const Op* add(std::unique_ptr<Block> block);

  // [offset, offset + size) of the page is about to be written: every block that overlaps it leaves at its next
  // operation.
  void invalidate(const std::byte* page, unsigned offset, std::size_t size);
  // Nothing of the page is valid any more.
  void invalidate_page(const std::byte* page) { invalidate(page, 0, 4096); }
  void invalidate_all();

  // Called between blocks: gives back the memory of invalidated blocks, and everything when the cache has grown too
  // large, so that no guest makes the VMM grow without end by writing ever new code.
  void collect();
  // Most of the memory in use, in bytes: operations, also invalidated ones, and host code.
  [[nodiscard]] std::size_t bytes() const noexcept;
  // What it stays below, but for the block that is being decoded.
  static constexpr std::size_t kMaxBytes = 136U << 20;
  [[nodiscard]] HostStubs& stubs() noexcept { return *stubs_; }
  // A number that no jump_key of any core of this VM has had.
  [[nodiscard]] std::uint64_t next_key() noexcept { return ++last_key_; }

 private:
  struct Page {
    std::vector<std::unique_ptr<Block>> blocks;
  };
  static void poison(Block& block);
  void forget_everything();

  std::unordered_map<std::uint64_t, const Block*> by_start_;  // page + offset | mode << 48 ...: see key()
  std::unordered_map<const std::byte*, Page> pages_;
  std::vector<std::unique_ptr<Block>> poisoned_;
  std::vector<Core*> cores_;
  std::unique_ptr<HostStubs> stubs_;
  std::uint64_t last_key_ = 0;
  std::size_t operations_ = 0;  // in all blocks, also invalidated ones
};

}  // namespace sevisor::emulator
