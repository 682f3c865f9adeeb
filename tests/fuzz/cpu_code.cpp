// Random bytes as guest code, in every mode and privilege, on a small machine whose page tables, descriptors and stacks
// the code can reach and ruin: the guest may end as it likes, the engine must always come back in time and in order.
//
// Input: a mode, control bits, pages with odd rights, registers, then code. Every exception handler lies somewhere in
// the same code, at CPL 0, so that a run goes on after a fault.
#include <array>
#include <sys/mman.h>

#include "base/bytes.hpp"
#include "base/mapping.hpp"
#include "check.hpp"
#include "emulator/cpu/cpu.hpp"
#include "emulator/cpu/state/registers.hpp"
#include "emulator/memory/guest_memory.hpp"
#include "ghcb/exit_code.hpp"
#include "input.hpp"

using namespace sevisor;
using namespace sevisor::emulator;

namespace {

enum class Mode : std::uint8_t { kReal, kProtected16, kProtected32, kPaged32, kPae, kCompat32, kLong64, kLong64Again };
constexpr std::size_t kModes = 8;

// Where things lie, linear and physical alike. All but the IDT and what comes before it is within reach of 16-bit code.
constexpr std::uint64_t kGdt = 0x1000;
constexpr std::uint64_t kIdt = 0x2000;
constexpr std::uint64_t kTss = 0x3000;
constexpr std::uint64_t kPml4 = 0x4000;
constexpr std::uint64_t kPdp = 0x5000;
constexpr std::uint64_t kPd = 0x6000;
constexpr std::uint64_t kPt = 0x7000;
constexpr std::uint64_t kPae = 0x8000;
constexpr std::uint64_t kPd32 = 0x9000;
constexpr std::uint64_t kPt32 = 0xa000;
constexpr std::uint64_t kStack = 0xc000;  // tops
constexpr std::uint64_t kRing0Stack = 0xd000;
constexpr std::uint64_t kIstStack = 0xe000;
constexpr std::uint64_t kCode = 0x10000;
constexpr std::uint64_t kCodeSize = 0x1000;
constexpr std::uint64_t kData = 0x12000;
constexpr std::uint64_t kRam = 0x20000;
constexpr std::uint64_t kReadOnly = 0x30000;  // a slot of one page
constexpr unsigned kMappedPages = 64;         // some of them have no slot

constexpr std::uint64_t kCBit = std::uint64_t{1} << 51;
constexpr std::uint64_t kPte = 7;  // present, writable, user

// Selectors.
constexpr std::uint16_t kCode64 = 0x08;
constexpr std::uint16_t kData0 = 0x10;
constexpr std::uint16_t kCode32 = 0x18;
constexpr std::uint16_t kUserCode32 = 0x20;
constexpr std::uint16_t kUserData = 0x28;
constexpr std::uint16_t kUserCode64 = 0x30;
constexpr std::uint16_t kCode16 = 0x38;
constexpr std::uint16_t kTssSelector = 0x40;
constexpr std::uint16_t kCallGate = 0x50;
constexpr std::uint16_t kGdtLimit = 0x7f;

constexpr std::uint64_t kFlagTf = 0x100;
constexpr std::uint64_t kFlagAc = 0x40000;
constexpr std::uint64_t kDebugSwap = 1U << 5;
// Bits of an input's first byte; the low three are the mode.
constexpr std::uint8_t kPlainGuest = 0x08;
constexpr std::uint8_t kLimitStacks = 0x10;
constexpr std::uint8_t kDebug = 0x20;
constexpr std::uint64_t kInstructions = 500;
constexpr unsigned kRuns = 8;
// One block, and what deliveries of nested faults cost.
constexpr std::uint64_t kOvershoot = 256;

std::uint64_t descriptor(std::uint32_t base, std::uint32_t limit, std::uint16_t attributes) {
  return (limit & 0xffff) | std::uint64_t{base & 0xffffff} << 16 | std::uint64_t{attributes & 0xffU} << 40 |
         std::uint64_t{limit >> 16 & 0xf} << 48 | std::uint64_t{attributes & 0xf00U} << 44 |
         std::uint64_t{base >> 24} << 56;
}

// The guest's memory; kept from one input to the next, as mapping it costs more than a run.
struct Memory {
  Mapping ram = Mapping::anonymous(kRam, PROT_READ | PROT_WRITE);
  Mapping rom = Mapping::anonymous(kPageSize, PROT_READ | PROT_WRITE);
};

struct Machine {
  Memory& backing;
  GuestMemory memory;
  VirtualClock clock;
  std::unique_ptr<CodeCache, void (*)(CodeCache*)> code = make_code_cache();
  CpuConfig config;
  Cpu cpu{config, memory, *code, clock};
  Vmsa vmsa{};

  Machine(Memory& m, bool sev_es)
      : backing(m), config{.protection = sev_es ? emulator::Protection::kSevEs : emulator::Protection::kNone} {
    std::memset(m.ram.data(), 0, kRam);
    constexpr std::uint32_t kReadOnlySlot = 2;  // KVM_MEM_READONLY
    FUZZ_CHECK(memory.set_slot(0, 0, Gpa(0), kRam, m.ram.data()) == 0);
    FUZZ_CHECK(memory.set_slot(1, kReadOnlySlot, Gpa(kReadOnly), kPageSize, m.rom.data()) == 0);
  }

  // No key is set yet: raw and private views are the same.
  template <class T>
  void put(std::uint64_t at, T value) {
    store<T>(backing.ram.data() + at, value);
  }

  void put_descriptors(bool is_long) {
    constexpr std::uint16_t kUser = 0x60;
    put(kGdt + kCode64, descriptor(0, 0xfffff, 0xa9b));
    put(kGdt + kData0, descriptor(0, 0xfffff, 0xc93));
    put(kGdt + kCode32, descriptor(0, 0xfffff, 0xc9b));
    put(kGdt + kUserCode32, descriptor(0, 0xfffff, 0xc9b | kUser));
    put(kGdt + kUserData, descriptor(0, 0xfffff, 0xc93 | kUser));
    put(kGdt + kUserCode64, descriptor(0, 0xfffff, 0xa9b | kUser));
    put(kGdt + kCode16, descriptor(kCode, 0xffff, 0x09b));
    put(kGdt + kTssSelector, descriptor(kTss, 0x1ff, 0x8b));
    const std::uint64_t target = is_long ? kCode64 : kCode32;
    put(kGdt + kCallGate, (kCode & 0xffff) | target << 16 | std::uint64_t{0xec} << 40 | (kCode >> 16) << 48);
    if (is_long) {
      put(kTss + 4, kRing0Stack);
      put(kTss + 36, kIstStack);
    } else {
      put(kTss + 4, static_cast<std::uint32_t>(kRing0Stack));
      put(kTss + 8, kData0);
    }
    put(kTss + 102, std::uint16_t{0x68});
  }

  void put_gates(Mode mode, bool is_long, fuzz::Input& input) {
    const auto spread = input.take<std::uint8_t>();
    const auto ist = input.take<std::uint32_t>();  // a bit for each vector
    for (std::uint64_t v = 0; v < 32; ++v) {
      const std::uint64_t target = kCode + v * spread % kCodeSize;
      if (mode == Mode::kReal) {
        put(kIdt + v * 4, static_cast<std::uint32_t>(kCode >> 4 << 16 | (target - kCode)));
        continue;
      }
      constexpr std::uint64_t kUserInterruptGate = 0xee;
      const std::uint64_t selector = is_long ? kCode64 : kCode32;
      const std::uint64_t gate = (target & 0xffff) | selector << 16 | kUserInterruptGate << 40 |
                                 (target & 0xffff'0000) << 32 | (is_long ? std::uint64_t{ist >> v & 1} << 32 : 0);
      put(kIdt + v * (is_long ? 16 : 8), gate);
    }
  }

  void put_page_tables(fuzz::Input& input) {
    put(kPml4, kPdp | kPte | kCBit);
    put(kPdp, kPd | kPte | kCBit);
    put(kPae, kPd | 1);
    put(kPd, kPt | kPte | kCBit);
    put(kPd32, static_cast<std::uint32_t>(kPt32 | kPte));
    for (std::uint64_t n = 0; n < kMappedPages; ++n) {
      put(kPt + n * 8, n * kPageSize | kPte | kCBit);
      put(kPt32 + n * 4, static_cast<std::uint32_t>(n * kPageSize | kPte));
    }
    // Other rights for a few: present, writable, user, large, global, C, NX.
    const unsigned changes = input.take<std::uint8_t>() & 7;
    for (unsigned n = 0; n < changes; ++n) {
      const std::uint64_t page = input.take<std::uint8_t>() % kMappedPages;
      const auto bits = input.take<std::uint16_t>();
      const std::uint64_t entry = (bits & 0x1ffU) | page * kPageSize | ((bits & 0x1000) != 0 ? kCBit : 0) |
                                  std::uint64_t{bits >> 15 & 1U} << 63 | std::uint64_t{bits >> 14 & 1U} << 50;
      put(kPt + page * 8, entry);
      put(kPt32 + page * 4, static_cast<std::uint32_t>(entry));
    }
    if ((changes & 1) != 0) put(kPd + 8, kPte | 0x80 | kCBit);  // 2 MiB at 2 MiB
  }

  void set_up(fuzz::Input& input) {
    const auto choice = input.take<std::uint8_t>();
    const auto controls = input.take<std::uint16_t>();
    const Mode mode{static_cast<std::uint8_t>(choice % kModes)};
    const bool is_long = mode >= Mode::kCompat32;
    const bool is_64 = mode >= Mode::kLong64;
    const bool user = (choice & 0x80) != 0 && mode != Mode::kReal && mode != Mode::kProtected16;
    put_descriptors(is_long);
    put_gates(mode, is_long, input);
    put_page_tables(input);

    const auto bit = [controls](unsigned n, std::uint64_t value) { return (controls >> n & 1) != 0 ? value : 0; };
    constexpr std::uint16_t kDpl3 = 0x60;
    const std::uint16_t rpl = user ? 3 : 0;
    const std::uint16_t dpl = user ? kDpl3 : 0;
    const auto with_rpl = [rpl](std::uint16_t selector) { return static_cast<std::uint16_t>(selector | rpl); };
    const auto with_dpl = [dpl](unsigned attributes) { return static_cast<std::uint16_t>(attributes | dpl); };
    vmsa.es = vmsa.ss = vmsa.ds = vmsa.fs =
        vmsa.gs = {with_rpl(user ? kUserData : kData0), with_dpl(0xc93), 0xffff'ffff, 0};
    if ((controls & 0x8000) != 0) vmsa.ds.limit = 0x12fff;  // so that limits are checked
    if ((choice & kLimitStacks) != 0) {
      vmsa.ss.limit = kStack - 1 - (controls & 0xf);
      vmsa.es.limit = kData + input.take<std::uint8_t>();
      if ((controls & 0x10) != 0) vmsa.es.attributes |= 4;  // expand-down
    }
    vmsa.cpl = static_cast<std::uint8_t>(rpl);
    vmsa.gdtr = {0, 0, kGdtLimit, kGdt};
    vmsa.idtr = {0, 0, 0x1ff, kIdt};
    vmsa.tr = {kTssSelector, 0x8b, 0x1ff, kTss};
    vmsa.cr0 = kCr0Et | kCr0Ne | bit(0, kCr0Am) | bit(1, kCr0Ts) | bit(2, kCr0Mp) | bit(3, kCr0Em);
    vmsa.cr4 = kCr4Mce | bit(4, kCr4Osfxsr | kCr4Osxmmexcpt) | bit(5, kCr4Umip) | bit(6, kCr4Fsgsbase) |
               bit(7, kCr4Osxsave) | bit(8, kCr4Smep) | bit(9, kCr4Smap) | bit(10, kCr4Pge) | bit(11, kCr4Pse);
    vmsa.efer = kEferSvme | kEferSce | bit(12, kEferNxe);
    vmsa.rflags = 2 | bit(13, kFlagTf) | bit(14, kFlagAc);
    vmsa.dr6 = 0xffff0ff0;
    vmsa.dr7 = 0x400;
    vmsa.g_pat = 0x0007040600070406;
    vmsa.xcr0 = 1;
    vmsa.mxcsr = 0x1f80;
    vmsa.x87_fcw = 0x37f;
    vmsa.star = std::uint64_t{kUserCode32} << 48 | std::uint64_t{kCode64} << 32;
    vmsa.lstar = vmsa.cstar = kCode;
    vmsa.rip = kCode;
    vmsa.rsp = kStack;
    if (mode != Mode::kReal) vmsa.cr0 |= kCr0Pe;
    if (mode >= Mode::kPaged32) {
      vmsa.cr0 |= kCr0Pg | bit(10, kCr0Wp);
      vmsa.cr3 = kPd32;
    }
    if (mode >= Mode::kPae) {
      vmsa.cr4 |= kCr4Pae;
      vmsa.cr3 = mode == Mode::kPae ? kPae : kPml4;
    }
    vmsa.cs = {with_rpl(user ? kUserCode32 : kCode32), with_dpl(0xc9b), 0xffff'ffff, 0};
    if (mode == Mode::kReal) {
      vmsa.es = vmsa.ss = vmsa.ds = vmsa.fs = vmsa.gs = {0, 0x93, 0xffff, 0};
      vmsa.cs = {kCode >> 4, 0x9b, 0xffff, kCode};
    }
    if (mode == Mode::kProtected16) vmsa.cs = {kCode16, 0x9b, 0xffff, kCode};
    if (mode == Mode::kReal || mode == Mode::kProtected16) vmsa.rip = 0;
    if (is_long) vmsa.efer |= kEferLme | kEferLma;
    if (is_64) vmsa.cs = {with_rpl(user ? kUserCode64 : kCode64), with_dpl(0xa9b), 0xffff'ffff, 0};
    put_registers(input);
    if ((choice & kDebug) != 0) put_breakpoints(input);

    const std::span<const std::byte> bytes = input.bytes(kCodeSize);
    std::memcpy(backing.ram.data() + kCode, bytes.data(), bytes.size());
    // What the guest wrote with C=1 so far lies there in clear; with a key it has to be ciphertext.
    constexpr std::array<std::byte, 16> kKey = {std::byte{1}};
    constexpr std::array<std::byte, 16> kTweak = {std::byte{2}};
    if ((choice & 0x40) != 0) {
      memory.set_key(kKey, kTweak);
      memory.encrypt_host(backing.ram.data(), kRam);
    }
  }

  void put_breakpoints(fuzz::Input& input) {
    vmsa.sev_features = kDebugSwap;
    vmsa.dr7 = 0x400 | (input.take<std::uint32_t>() & 0xffff23ff);
    for (auto& address : vmsa.dr) {
      const auto where = input.take<std::uint8_t>();
      address = ((where & 0x80) != 0 ? kCode : kData) + (where & 0x7f);
    }
  }

  void put_registers(fuzz::Input& input) {
    const std::array registers = {&vmsa.rax, &vmsa.rcx, &vmsa.rdx, &vmsa.rbx, &vmsa.rbp, &vmsa.rsi, &vmsa.rdi, &vmsa.r8,
                                  &vmsa.r9,  &vmsa.r10, &vmsa.r11, &vmsa.r12, &vmsa.r13, &vmsa.r14, &vmsa.r15};
    for (auto* r : registers) {
      const auto kind = input.take<std::uint8_t>();
      *r = kind < 0x80 ? kData + kind * 8U : kind < 0xc0 ? kind & 0x3fU : input.take<std::uint64_t>();
    }
  }
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static Memory backing;
  fuzz::Input input(data, size);
  Machine m(backing, size == 0 || (data[0] & kPlainGuest) == 0);
  m.set_up(input);
  if (!m.cpu.load(m.vmsa)) return 0;
  RunControls controls;
  for (unsigned n = 0; n < kRuns; ++n) {
    controls.instruction_limit = kInstructions;
    // Now and then an interrupt, or an exception as a hypervisor injects it.
    controls.event_injection = n % 4 == 3 ? 0x8000'0000U | (n * 37U & 0x7ffU) : 0;
    const std::uint64_t before = m.cpu.retired();
    const CpuExit exit = m.cpu.run(controls);
    FUZZ_CHECK(m.cpu.retired() - before <= kInstructions + kOvershoot);
    Vmsa after{};
    m.cpu.save(after);
    FUZZ_CHECK(after.cpl <= 3);
    if (!exit.unimplemented.empty() || exit.code == ghcb::kExitShutdown || exit.code == ghcb::kExitInvalid) break;
    if (n % 4 == 1) {  // another VMRUN: what #VMEXIT saves can be entered
      FUZZ_CHECK(m.cpu.load(after));
      m.memory.write_back(Gpa(kData));
    }
  }
  (void)m.cpu.describe();
  return 0;
}
