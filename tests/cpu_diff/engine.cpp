#include "tests/cpu_diff/engine.hpp"

#include <algorithm>
#include <cstring>
#include <stdexcept>
#include <sys/mman.h>

#include "base/bytes.hpp"
#include "base/mapping.hpp"
#include "emulator/cpu/code/code_cache.hpp"
#include "emulator/cpu/code/decoder.hpp"
#include "emulator/cpu/core.hpp"
#include "emulator/cpu/state/host_unit.hpp"

namespace sevisor::cpu_diff {

using namespace emulator;

namespace {

// Guest-physical memory: page tables, then the data pages.
constexpr std::uint64_t kTables = 0x1000;
constexpr std::uint64_t kDataGpa = 0x10000;
constexpr std::size_t kMemory = 0x20000;
constexpr std::uint64_t kMapped = 7;  // present, writable, user
constexpr std::uint64_t kFlagsOfUser = kStatusFlags | kFlagDf;

// The attributes of Linux's flat user segments.
constexpr std::uint16_t kCode64 = 0xafb;
constexpr std::uint16_t kCode32 = 0xcfb;
constexpr std::uint16_t kData32 = 0xcf3;
// Their 16-bit brothers.
constexpr std::uint16_t kCode16 = 0x8fb;
constexpr std::uint16_t kData16 = 0x8f3;

}  // namespace

struct Engine::Impl {
  Mapping ram = Mapping::anonymous(kMemory, PROT_READ | PROT_WRITE);
  GuestMemory memory;
  CodeCache code;
  VirtualClock clock;
  CpuConfig config;
  std::unique_ptr<Core> core;

  Impl() {
    const auto put = [this](std::uint64_t table, std::uint64_t index, std::uint64_t entry) {
      store<std::uint64_t>(ram.data() + table + index * 8, entry | kMapped);
    };
    std::uint64_t table = kTables;
    for (unsigned shift = 39; shift > 12; shift -= 9) {
      put(table, (kData >> shift) & 511, table + kPageSize);
      table += kPageSize;
    }
    for (std::size_t n = 0; n < kDataPages; ++n) put(table, ((kData >> 12) & 511) + n, kDataGpa + n * kPageSize);
    if (memory.set_slot(0, 0, Gpa{0}, kMemory, ram.data()) != 0) throw std::runtime_error("no memory slot");
    core = std::make_unique<Core>(config, memory, code, clock);
    Core& c = *core;
    c.cr0 = kCr0Pe | kCr0Pg | kCr0Wp | kCr0Ne | kCr0Et | kCr0Mp;
    c.cr4 = kCr4Pae | kCr4Osfxsr | kCr4Osxmmexcpt | kCr4Osxsave;
    c.vec.xcr0 = host_has_ymm() ? 7 : 3;
    c.cr3 = kTables;
    c.efer = kEferLme | kEferLma | kEferNxe | kEferSce;
    c.cpl = 3;
    for (Segment& s : c.seg) s = Segment{.selector = 0x2b, .attributes = kData32, .limit = 0xffffffff};
  }

  void set_mode(Mode mode) {
    const bool small = mode == Mode::k16;
    for (const SegmentRegister r : {kEs, kSs, kDs}) {
      core->seg[r] = Segment{.selector = 0x2b, .attributes = small ? kData16 : kData32, .limit = 0xffffffff};
      core->segment_base(r) = small ? kData : 0;
    }
    core->seg[kCs] = Segment{.selector = static_cast<std::uint16_t>(mode == Mode::k64 ? 0x33 : 0x23),
                             .attributes = mode == Mode::k64 ? kCode64
                                           : small           ? kCode16
                                                             : kCode32,
                             .limit = 0xffffffff};
    core->segment_base(kCs) = small ? kCode & ~std::uint64_t{0xffff} : 0;
    core->update_mode();
  }

  void load_vector(const Registers& r) {
    core->vec.x87 = r.fx;
    core->vec.x87_cs = core->vec.x87_ds = 0;
    core->vec.mxcsr = load<std::uint32_t>(r.fx.data() + kFxMxcsr);
    for (std::size_t n = 0; n < 16; ++n) {
      std::memcpy(core->vec.ymm[n].data(), r.fx.data() + kFxXmm + n * 16, 16);
      std::memcpy(core->vec.ymm[n].data() + 16, r.ymm_high[n].data(), 16);
    }
  }
  void keep_vector(Registers& r) const {
    r.fx = core->vec.x87;
    const X87Pointers last = pointers_of_error(core->vec);
    store(r.fx.data() + kFxFop, last.opcode);
    store(r.fx.data() + kFxRip, last.instruction);
    store(r.fx.data() + kFxDp, last.data);
    store<std::uint32_t>(r.fx.data() + kFxMxcsr, core->vec.mxcsr);
    for (std::size_t n = 0; n < 16; ++n) {
      std::memcpy(r.fx.data() + kFxXmm + n * 16, core->vec.ymm[n].data(), 16);
      std::memcpy(r.ymm_high[n].data(), core->vec.ymm[n].data() + 16, 16);
    }
  }
};

Engine::Engine() : impl_(std::make_unique<Impl>()) {}
Engine::~Engine() = default;

Support Engine::support(std::span<const std::uint8_t> instruction, Mode mode) {
  Core& core = *impl_->core;
  impl_->set_mode(mode);
  const auto block = decode_block(std::as_bytes(instruction), core.mode_bits(), 1, core.code.stubs());
  if (block == nullptr) return Support::kUnimplemented;
  const auto has = [&block](auto handler) {
    return std::ranges::any_of(block->ops, [handler](const Op& op) { return op.fn == handler; });
  };
  if (has(op_unimplemented)) return Support::kUnimplemented;
  return has(op_undefined) ? Support::kUndefined : Support::kRuns;
}

void Engine::run(std::span<const std::uint8_t> instruction, Mode mode, Machine& machine) {
  Core& core = *impl_->core;
  impl_->set_mode(mode);
  std::copy(machine.regs.gpr.begin(), machine.regs.gpr.end(), core.gpr.begin());
  core.set_rflags((machine.regs.rflags & kFlagsOfUser) | kFlagIf);
  impl_->load_vector(machine.regs);
  std::byte* data = impl_->ram.data() + kDataGpa;
  std::memcpy(data, machine.data.data(), kDataSize);

  core.code.collect();
  const auto block =
      decode_block(std::as_bytes(instruction), core.mode_bits(), CodeCache::kMaxInstructions, core.code.stubs());
  if (block == nullptr) throw std::runtime_error("not a whole instruction");
  core.rip = mode == Mode::k16 ? kCode & 0xffff : kCode;
  core.exit = CpuExit{};
  machine.exception = kNoException;
  machine.error = 0;
  machine.cr2 = 0;
  constexpr std::int64_t kBudget = 16;  // so small that long strings are interrupted
  do {
    core.budget = kBudget;
    const Op* op = block->ops.data();
    for (const Op* next = op; next != nullptr; next = next->fn(core, next)) core.current = next;
    op = core.current;
    if (core.reason == Leave::kFault) {
      core.settle_fault(op);
      machine.exception = core.fault_info.vector;
      machine.error = core.fault_info.error;
      machine.cr2 = core.fault_info.cr2;
      core.rip = core.rip_of(op);
    }
  } while (core.reason == Leave::kRestart);
  if (!core.exit.unimplemented.empty()) throw std::runtime_error(core.exit.unimplemented);
  if (core.reason == Leave::kExit || core.reason == Leave::kExitFault) throw std::runtime_error("an exit");

  return_units(core.vec);
  machine.rip = core.rip;
  std::copy_n(core.gpr.begin(), machine.regs.gpr.size(), machine.regs.gpr.begin());
  machine.regs.rflags = core.rflags();
  impl_->keep_vector(machine.regs);
  std::memcpy(machine.data.data(), data, kDataSize);
}

}  // namespace sevisor::cpu_diff
