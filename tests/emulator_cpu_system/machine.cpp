#include "machine.hpp"

#include <catch2/catch.hpp>
#include <sys/mman.h>

#include "emulator/cpu/code/code_cache.hpp"
#include "emulator/cpu/state/registers.hpp"

namespace sevisor::emulator::test {

namespace {

constexpr std::uint64_t kPte = 0x7;  // present, writable, user
constexpr unsigned kVectors = 32;
constexpr unsigned kLastVector = 0x80;

}  // namespace

std::uint64_t descriptor(std::uint32_t base, std::uint32_t limit, std::uint16_t attributes) {
  return (limit & 0xffff) | std::uint64_t{base & 0xffffff} << 16 | std::uint64_t{attributes & 0xffU} << 40 |
         std::uint64_t{limit >> 16 & 0xf} << 48 | std::uint64_t{attributes & 0xf00U} << 44 |
         std::uint64_t{base >> 24} << 56;
}

Machine::Machine()
    : ram(Mapping::anonymous(kRamSize, PROT_READ | PROT_WRITE)),
      code_cache(make_code_cache()),
      cpu(config, memory, *code_cache, clock) {
  std::array<std::byte, 16> key{};
  std::array<std::byte, 16> tweak{};
  for (unsigned i = 0; i < key.size(); ++i) {
    key[i] = static_cast<std::byte>(0x10 + i);
    tweak[i] = static_cast<std::byte>(0xa0 + i);
  }
  memory.set_key(key, tweak);
  REQUIRE(memory.set_slot(0, 0, Gpa(0), kRamSize, ram.data()) == 0);
  controls.instruction_limit = 100000;
}

void Machine::store_private(std::uint64_t gpa, std::span<const std::byte> bytes) {
  memory.store_private(ram.data() + gpa, bytes);
  // As CLFLUSH: drops what was decoded from the pages.
  for (std::uint64_t page = gpa & ~0xfffULL; page < gpa + bytes.size(); page += 4096) memory.write_back(Gpa(page));
}
void Machine::load_private(std::uint64_t gpa, std::span<std::byte> bytes) {
  memory.decrypt_host(ram.data() + gpa, bytes);
}
void Machine::poke(std::uint64_t gpa, const Bytes& bytes) { store_private(gpa, std::as_bytes(std::span(bytes))); }

void Machine::code(const Bytes& bytes) {
  Bytes all = bytes;
  all.insert(all.end(), kVmgexit.begin(), kVmgexit.end());
  poke(kCode, all);
}

void Machine::set_gate(unsigned vector, unsigned type, unsigned dpl, unsigned ist, bool present) {
  const std::uint64_t offset = kHandlers + vector * 8;
  const bool is_long = mode == Mode::kLong64 || mode == Mode::kCompat32;
  const bool is_16bit = (type & 8) == 0;
  const std::uint16_t selector = is_long ? kCode64 : is_16bit ? kCode16 : kCode32;
  // 16-bit gates reach 64 KiB: kCode16 begins at kCode.
  const std::uint64_t target = is_16bit ? offset - kCode : offset;
  const std::uint64_t low = (target & 0xffff) | std::uint64_t{selector} << 16 | std::uint64_t{ist} << 32 |
                            std::uint64_t{type} << 40 | std::uint64_t{dpl} << 45 | std::uint64_t{present} << 47 |
                            (target & 0xffff'0000) << 32;
  if (is_long) {
    put(kIdt + vector * 16, low);
    put(kIdt + vector * 16 + 8, std::uint64_t{0});
  } else {
    put(kIdt + vector * 8, low);
  }
}

void Machine::enter(Mode new_mode, unsigned cpl) {
  mode = new_mode;
  vmsa = Vmsa{};
  controls.event_injection = 0;
  controls.interrupt_window = false;
  frame_width = mode == Mode::kReal ? 2 : mode == Mode::kProtected16 || mode == Mode::kProtected32 ? 4 : 8;
  const bool is_long = mode == Mode::kLong64 || mode == Mode::kCompat32;

  put(kGdt, std::uint64_t{0});
  set_descriptor(kCode64, descriptor(0, 0xfffff, kAttrCode64));
  set_descriptor(kData0, descriptor(0, 0xfffff, kAttrData));
  set_descriptor(kCode32, descriptor(0, 0xfffff, kAttrCode32));
  set_descriptor(kUserCode32, descriptor(0, 0xfffff, kAttrCode32 | kAttrUser));
  set_descriptor(kUserData, descriptor(0, 0xfffff, kAttrData | kAttrUser));
  set_descriptor(kUserCode64, descriptor(0, 0xfffff, kAttrCode64 | kAttrUser));
  set_descriptor(kCode16, descriptor(kCode, 0xffff, kAttrCode16));
  set_descriptor(kTssSelector, descriptor(kTss, 0x1ff, 0x8b));
  put(kGdt + kTssSelector + 8, std::uint64_t{0});

  // Page tables: the first 2 MiB, identity, 4 KiB pages, all private.
  for (const std::uint64_t top : {kPml4, kPae}) {
    const std::uint64_t next = top == kPml4 ? kPdp : kPd;
    put(top, next | (top == kPae ? 1 : kPte) | kCBit);
  }
  put(kPae, kPd | 1);
  put(kPdp, kPd | kPte | kCBit);
  put(kPd, kPt | kPte | kCBit);
  for (std::uint64_t page = 0; page < 512; ++page) put(kPt + page * 8, page * 4096 | kPte | kCBit);

  // TSS.
  std::array<std::byte, 0x200> zero{};
  store_private(kTss, zero);
  if (is_long) {
    put(kTss + 4, kRing0Stack);
    put(kTss + 36, kIstStack);
  } else {
    put(kTss + 4, static_cast<std::uint32_t>(kRing0Stack));
    put(kTss + 8, kData0);
  }
  put(kTss + 102, std::uint16_t{0x200});  // no I/O bitmap

  // Handlers: VMGEXIT; IRET.
  for (unsigned v = 0; v <= kLastVector; ++v) {
    Bytes stub = kVmgexit;
    if (is_long) stub.push_back(0x48);
    stub.push_back(0xcf);
    poke(kHandlers + v * 8, stub);
  }
  if (mode == Mode::kReal) {
    // The IVT at kIdt: CS 0x1000, so that offsets fit.
    for (unsigned v = 0; v < kVectors; ++v) {
      put(kIdt + v * 4, static_cast<std::uint32_t>(0x1000'0000 | (kHandlers - 0x10000 + v * 8)));
    }
  } else {
    for (unsigned v = 0; v < kVectors; ++v) set_gate(v);
  }

  const std::uint16_t rpl = static_cast<std::uint16_t>(cpl);
  const std::uint16_t dpl = static_cast<std::uint16_t>(cpl << 5);
  const sev::VmsaSegment data = {static_cast<std::uint16_t>((cpl == 3 ? kUserData : kData0) | rpl),
                                 static_cast<std::uint16_t>(kAttrData | dpl), 0xffff'ffff, 0};
  vmsa.es = vmsa.ss = vmsa.ds = vmsa.fs = vmsa.gs = data;
  vmsa.rip = kCode;
  vmsa.rsp = cpl == 3 ? kUserStack : kStack;
  vmsa.cpl = static_cast<std::uint8_t>(cpl);
  vmsa.rflags = 2;
  vmsa.gdtr = {0, 0, kGdtSize - 1, kGdt};
  vmsa.idtr = {0, 0, 0xfff, kIdt};
  vmsa.tr = {kTssSelector, 0x8b, 0x1ff, kTss};
  vmsa.efer = kEferSvme;
  vmsa.cr4 = kCr4Mce;
  vmsa.cr0 = kCr0Et | kCr0Pe;
  vmsa.dr6 = 0xffff0ff0;
  vmsa.dr7 = 0x400;
  vmsa.g_pat = 0x0007040600070406;
  vmsa.xcr0 = 1;
  vmsa.mxcsr = 0x1f80;
  vmsa.x87_fcw = 0x37f;
  switch (mode) {
    case Mode::kReal:
      vmsa.cr0 = kCr0Et;
      vmsa.es = vmsa.ss = vmsa.ds = vmsa.fs = vmsa.gs = {0, 0x93, 0xffff, 0};
      vmsa.cs = {0x1000, 0x9b, 0xffff, 0x10000};
      vmsa.rip = 0;
      vmsa.rsp = 0x8000;
      break;
    case Mode::kProtected16:
      vmsa.cs = {kCode16, kAttrCode16, 0xffff, kCode};
      vmsa.rip = 0;
      break;
    case Mode::kProtected32:
      vmsa.cs = {static_cast<std::uint16_t>((cpl == 3 ? kUserCode32 : kCode32) | rpl),
                 static_cast<std::uint16_t>(kAttrCode32 | dpl), 0xffff'ffff, 0};
      break;
    case Mode::kCompat32:
    case Mode::kLong64: {
      const bool is_64 = mode == Mode::kLong64;
      vmsa.cr0 |= kCr0Pg | kCr0Wp;
      vmsa.cr4 |= kCr4Pae;
      vmsa.cr3 = kPml4;
      vmsa.efer |= kEferLme | kEferLma | kEferNxe | kEferSce;
      const std::uint16_t user = is_64 ? kUserCode64 : kUserCode32;
      const std::uint16_t kernel = is_64 ? kCode64 : kCode32;
      vmsa.cs = {static_cast<std::uint16_t>((cpl == 3 ? user : kernel) | rpl),
                 static_cast<std::uint16_t>((is_64 ? kAttrCode64 : kAttrCode32) | dpl), 0xffff'ffff, 0};
      break;
    }
  }
}

CpuExit Machine::run() {
  REQUIRE(cpu.load(vmsa));
  CpuExit exit = cpu.run(controls);
  INFO(cpu.describe());
  CHECK(exit.unimplemented.empty());
  cpu.save(vmsa);
  return exit;
}

CpuExit Machine::run_through_traps() {
  CpuExit exit;
  do {
    exit = run();
  } while (exit.code >= ghcb::kExitEferWriteTrap && exit.code < ghcb::kExitCr0WriteTrap + 16);
  return exit;
}

int Machine::vector() const {
  const std::uint64_t at = vmsa.cs.base + vmsa.rip - 4;
  if (at < kHandlers || at >= kHandlers + 256 * 8 || (at & 7) != 0) return -1;
  return static_cast<int>((at - kHandlers) / 8);
}

std::uint64_t Machine::stacked(unsigned n) {
  const std::uint64_t at = vmsa.ss.base + vmsa.rsp + n * frame_width;
  switch (frame_width) {
    case 2:
      return get<std::uint16_t>(at);
    case 4:
      return get<std::uint32_t>(at);
    default:
      return get<std::uint64_t>(at);
  }
}

}  // namespace sevisor::emulator::test
