#include "emulator/cpu/code/code_cache.hpp"

#include <algorithm>
#include <utility>

#include "emulator/cpu/code/decoder.hpp"
#include "emulator/cpu/code/straddler.hpp"
#include "emulator/cpu/core.hpp"
#include "emulator/cpu/exec/host_stubs.hpp"

namespace sevisor::emulator {

namespace {

// Several times what a booting Linux needs at once.
constexpr std::size_t kMaxOperations = 2U << 20;
constexpr std::size_t kMaxHostCode = 8U << 20;
static_assert(kMaxOperations * sizeof(Op) + kMaxHostCode == CodeCache::kMaxBytes);
constexpr std::size_t kMaxPoisoned = 4096;

// Host addresses of user space have 47 bits; the mode fits above them.
std::uint64_t key(const std::byte* page, unsigned offset, unsigned mode) {
  return (reinterpret_cast<std::uintptr_t>(page) + offset) | std::uint64_t{mode} << 48;
}

}  // namespace

CodeCache::CodeCache() : stubs_(std::make_unique<HostStubs>()) {}
CodeCache::~CodeCache() = default;

const Op* CodeCache::find(const std::byte* page, unsigned offset, unsigned mode) const {
  const auto found = by_start_.find(key(page, offset, mode));
  return found == by_start_.end() ? nullptr : found->second->ops.data();
}

const Op* CodeCache::add(std::unique_ptr<Block> block) {
  if ((*block->page_flags & kPageHasCode) == 0) {
    *block->page_flags |= kPageHasCode;
    for (Core* core : cores_) {
      if (!core->host_pages.test(Core::host_page_bit(block->page))) continue;
      for (Tlb& t : core->tlbs) t.deny_writes(block->page);
    }
  }
  operations_ += block->ops.size();
  const Op* first = block->ops.data();
  by_start_[key(block->page, block->offset, block->mode)] = block.get();
  pages_[block->page].blocks.push_back(std::move(block));
  return first;
}

void CodeCache::poison(Block& block) {
  // The block may be running: its operations stay where they are and leave when they are reached.
  for (Op& op : block.ops) op.fn = op_poisoned;
}

void CodeCache::invalidate(const std::byte* page, unsigned offset, std::size_t size) {
  const auto found = pages_.find(page);
  if (found == pages_.end()) return;
  auto& blocks = found->second.blocks;
  std::uint8_t* page_flags = blocks.front()->page_flags;
  for (std::size_t i = 0; i < blocks.size();) {
    Block& block = *blocks[i];
    if (block.offset < offset + size && offset < static_cast<unsigned>(block.offset) + block.size) {
      poison(block);
      by_start_.erase(key(block.page, block.offset, block.mode));
      poisoned_.push_back(std::move(blocks[i]));
      blocks[i] = std::move(blocks.back());
      blocks.pop_back();
    } else {
      ++i;
    }
  }
  if (blocks.empty()) {
    pages_.erase(found);
    *page_flags &= static_cast<std::uint8_t>(~kPageHasCode);
  }
}

void CodeCache::invalidate_all() {
  for (auto& [address, page] : pages_) {
    for (auto& block : page.blocks) {
      poison(*block);
      *block->page_flags &= static_cast<std::uint8_t>(~kPageHasCode);
      poisoned_.push_back(std::move(block));
    }
  }
  pages_.clear();
  by_start_.clear();
}

std::size_t CodeCache::bytes() const noexcept { return operations_ * sizeof(Op) + stubs_->bytes(); }

void CodeCache::forget_everything() {
  invalidate_all();
  for (Core* core : cores_) {
    core->forget_jumps();
    core->straddlers.clear();
  }
  poisoned_.clear();
  operations_ = 0;
  stubs_ = std::make_unique<HostStubs>();
}

void CodeCache::collect() {
  if (operations_ > kMaxOperations || stubs_->bytes() > kMaxHostCode) {
    forget_everything();
  } else if (poisoned_.size() > kMaxPoisoned) {
    // Links and jump cache entries may still name these blocks: a new key makes them all stale first.
    for (Core* core : cores_) core->forget_jumps();
    for (const auto& block : poisoned_) operations_ -= block->ops.size();
    poisoned_.clear();
  }
}

}  // namespace sevisor::emulator
