// Programs that raise an event as any guest does, by an instruction or by the request that the specification gives it,
// and check what comes back.
#include "ghcb/exit_code.hpp"
#include "ghcb/ioio.hpp"
#include "tests/nae/guest/guest.hpp"

namespace sevisor::nae {

namespace {

using ghcb::Field;

constexpr std::uint64_t kFlagTrap = 1 << 8;
constexpr std::uint64_t kFlagInterrupt = 1 << 9;
constexpr std::uint64_t kFlagAlignment = 1 << 18;
constexpr std::uint64_t kFlags = 2;

constexpr std::uint64_t kApic = 0xfee00000;
constexpr std::uint64_t kApicSpurious = 0xf0;
constexpr std::uint64_t kApicIcrLow = 0x300;
constexpr std::uint64_t kApicIcrHigh = 0x310;
constexpr std::uint64_t kApicTimer = 0x320;
constexpr std::uint64_t kApicTimerCount = 0x380;
constexpr std::uint64_t kApicTimerDivide = 0x3e0;

volatile std::uint64_t ap_stage = 0;  // what the second vCPU has come to
volatile std::uint64_t ap_answer = 0;

template <class T>
volatile T& device(std::uint64_t address) {
  return *reinterpret_cast<volatile T*>(address);
}
// One MOV, whatever the compiler thinks of volatile.
void apic_write(std::uint64_t reg, std::uint32_t value) {
  asm volatile("movl %0, (%1)" : : "r"(value), "r"(kApic + reg) : "memory");
}
std::uint32_t apic_read(std::uint64_t reg) {
  std::uint32_t value;
  asm volatile("movl (%1), %0" : "=r"(value) : "r"(kApic + reg) : "memory");
  return value;
}

struct CpuidRegisters {
  std::uint32_t eax, ebx, ecx, edx;
};
CpuidRegisters cpuid(std::uint32_t leaf, std::uint32_t sub_leaf) {
  CpuidRegisters r{};
  asm volatile("cpuid" : "=a"(r.eax), "=b"(r.ebx), "=c"(r.ecx), "=d"(r.edx) : "a"(leaf), "c"(sub_leaf));
  return r;
}

// The #VC that an instruction raised, since `before`.
void check_vcs(unsigned count, std::uint64_t code, int line) {
  check(seen.vcs, count, line);
  if (count != 0) check(seen.vc_code, code, line);
}
#define CHECK_VCS(count, code) check_vcs(count, code, __LINE__)

// parameters: the four registers of leaf 0x8000001f and of leaf 0 that the test gave the vCPU.
void program_cpuid() {
  for (unsigned i = 0; i < 2; ++i) {
    const CpuidRegisters r = cpuid(i == 0 ? 0x8000001f : 0, 0);
    const volatile std::uint64_t* wanted = parameters() + 4 * i;
    CHECK_EQUAL(r.eax, wanted[0]);
    CHECK_EQUAL(r.ebx, wanted[1]);
    CHECK_EQUAL(r.ecx, wanted[2]);
    CHECK_EQUAL(r.edx, wanted[3]);
  }
  CHECK_VCS(2, ghcb::kExitCpuid);
}

// Leaf 0xd sub-leaf 0 EBX is the size for what XCR0 enables: 512 + 64 for x87 and SSE, 256 more at 576 for AVX (APM
// vol. 2 section 11.5.8). The guest tells XCR0 with its request.
void program_cpuid_xsave() {
  asm volatile("movq %%cr4, %%rax; orq $0x40000, %%rax; movq %%rax, %%cr4" : : : "rax");
  asm volatile("xsetbv" : : "a"(1), "d"(0), "c"(0));
  CHECK_EQUAL(cpuid(0xd, 0).ebx, 576);
  asm volatile("xsetbv" : : "a"(7), "d"(0), "c"(0));
  CHECK_EQUAL(cpuid(0xd, 0).ebx, 832);
  CHECK_VCS(2, ghcb::kExitCpuid);
  // OSXSAVE in leaf 1 ECX follows the CR4 that the write trap reported.
  CHECK_EQUAL(cpuid(1, 0).ecx >> 27 & 1, 1);
}

void program_dr7() {
  std::uint64_t value = 0;
  asm volatile("movq %%dr7, %0" : "=r"(value));
  CHECK_EQUAL(value, 0x400);
  CHECK_VCS(1, ghcb::kExitReadDr7);
  value = 0x401;
  asm volatile("movq %0, %%dr7" : : "r"(value));
  CHECK_VCS(2, ghcb::kExitWriteDr7);
  value = 0;
  asm volatile("movq %%dr7, %0" : "=r"(value));
  CHECK_EQUAL(value, 0x401);
  // By hand: KVM accepts both and has no say in either.
  ask({.code = ghcb::kExitWriteDr7, .rax = 0x400}, {Field::kRax});
  CHECK_ANSWER(0, 0);
  ask({.code = ghcb::kExitReadDr7}, {});
  CHECK_ANSWER(0, 0);
}

// KVM intercepts neither RDTSC nor RDTSCP of an SEV-ES guest.
void program_time_stamp() {
  std::uint32_t low, high, aux = 0;
  asm volatile("rdtsc" : "=a"(low), "=d"(high));
  const std::uint64_t first = std::uint64_t{high} << 32 | low;
  asm volatile("rdtscp" : "=a"(low), "=d"(high), "=c"(aux));
  CHECK_EQUAL((std::uint64_t{high} << 32 | low) > first, 1);
  CHECK_VCS(0, 0);
}

// #GP comes by EVENTINJ upon the handler itself, behind its VMGEXIT (Linux kvm_emulate_rdpmc()).
void program_rdpmc() {
  std::uint32_t low, high;
  asm volatile("rdpmc" : "=a"(low), "=d"(high) : "c"(0));
  CHECK_VCS(1, ghcb::kExitRdpmc);
  CHECK_EQUAL(seen.count, 1);
  CHECK_EQUAL(seen.vector, 13);
  CHECK_EQUAL(seen.error, 0);
  CHECK_EQUAL(*reinterpret_cast<const std::uint32_t*>(seen.rip - 4), 0xd9010ff3);
}

void program_invd() {
  asm volatile("invd");
  CHECK_VCS(1, ghcb::kExitInvd);
}

void program_wbinvd() {
  asm volatile("wbinvd");
  CHECK_VCS(1, ghcb::kExitWbinvd);
  CHECK_EQUAL(seen.count, 0);
}

// User space's device answers with bytes that count up, and remembers what it is given.
void program_ports() {
  std::uint64_t rax = 0x1122334455667788;
  asm volatile("inb %%dx, %%al" : "+a"(rax) : "d"(NAE_PORT));
  CHECK_EQUAL(rax, 0x1122334455667701);
  asm volatile("inw %%dx, %%ax" : "+a"(rax) : "d"(NAE_PORT));
  CHECK_EQUAL(rax, 0x1122334455660302);
  asm volatile("inl %%dx, %%eax" : "+a"(rax) : "d"(NAE_PORT));
  CHECK_EQUAL(rax, 0x07060504);
  rax = 0xaabbccddeeff0011;
  asm volatile("outb %%al, %%dx" : : "a"(rax), "d"(NAE_PORT));
  asm volatile("outw %%ax, %%dx" : : "a"(rax), "d"(NAE_PORT + 2));
  asm volatile("outl %%eax, %%dx" : : "a"(rax), "d"(NAE_PORT + 4));
  CHECK_VCS(6, ghcb::kExitIoio);
}

void program_port_strings() {
  static std::uint8_t buffer[3000];
  // REP INSB over the shared buffer's 2032 bytes: the handler makes several requests.
  void* to = buffer;
  std::uint64_t count = sizeof buffer;
  asm volatile("rep insb" : "+D"(to), "+c"(count) : "d"(NAE_PORT) : "memory");
  CHECK_EQUAL(count, 0);
  CHECK_EQUAL(reinterpret_cast<std::uint64_t>(to), reinterpret_cast<std::uint64_t>(buffer) + sizeof buffer);
  for (std::size_t i = 0; i < sizeof buffer; ++i) CHECK_EQUAL(buffer[i], (i + 1) & 0xff);
  to = buffer;
  asm volatile("insw" : "+D"(to) : "d"(NAE_PORT) : "memory");
  asm volatile("insl" : "+D"(to) : "d"(NAE_PORT) : "memory");
  CHECK_EQUAL(reinterpret_cast<std::uint64_t>(to), reinterpret_cast<std::uint64_t>(buffer) + 6);
  const std::uint8_t next = static_cast<std::uint8_t>(sizeof buffer + 1);
  for (unsigned i = 0; i < 6; ++i) CHECK_EQUAL(buffer[i], static_cast<std::uint8_t>(next + i));
  CHECK_EQUAL(seen.vc_code, ghcb::kExitIoio);

  for (unsigned i = 0; i < 12; ++i) buffer[i] = static_cast<std::uint8_t>(0xa0 + i);
  const void* from = buffer;
  asm volatile("outsb" : "+S"(from) : "d"(NAE_PORT) : "memory");
  count = 2;
  asm volatile("rep outsw" : "+S"(from), "+c"(count) : "d"(NAE_PORT) : "memory");
  asm volatile("outsl" : "+S"(from) : "d"(NAE_PORT) : "memory");
  CHECK_EQUAL(reinterpret_cast<std::uint64_t>(from), reinterpret_cast<std::uint64_t>(buffer) + 9);
  const unsigned before = seen.vcs;
  count = 0;
  asm volatile("rep outsb" : "+S"(from), "+c"(count) : "d"(NAE_PORT) : "memory");
  CHECK_EQUAL(seen.vcs, before + 1);  // intercepted all the same, but nothing is asked
}

void program_msr() {
  constexpr std::uint32_t kApicBase = 0x1b;
  constexpr std::uint32_t kMtrrDefaultType = 0x2ff;
  CHECK_EQUAL(read_msr(kApicBase), 0xfee00900);
  CHECK_VCS(1, ghcb::kExitMsr);
  write_msr(kMtrrDefaultType, 0xc06);
  CHECK_EQUAL(read_msr(kMtrrDefaultType), 0xc06);
  CHECK_VCS(3, ghcb::kExitMsr);
  // Those of the VMSA are the guest's own: no #VC.
  (void)read_msr(0xc0000080);
  write_msr(0xc0000102, 0x1234);
  CHECK_EQUAL(read_msr(0xc0000102), 0x1234);
  CHECK_EQUAL(read_msr(0xc0010131), 3);  // SEV_STATUS: SEV and SEV-ES
  CHECK_VCS(3, ghcb::kExitMsr);
}

void program_msr_unknown() {
  std::uint32_t low, high;
  asm volatile("leaq 1f(%%rip), %%rax; movq %%rax, %2; rdmsr; 1:"
               : "=&a"(low), "=&d"(high), "=m"(fixup)
               : "c"(0x12345678));
  CHECK_EQUAL(seen.vector, 13);
  CHECK_EQUAL(seen.error, 0);
  CHECK_EQUAL(page().exit_info_1, 1);
  CHECK_EQUAL(page().exit_info_2, 0x8000030d);  // without an error code, as KVM gives it
}

void program_vmmcall() {
  std::uint64_t rax = 99;
  asm volatile("vmmcall" : "+a"(rax) : "b"(0), "c"(0), "d"(0), "S"(0));
  CHECK_EQUAL(rax, -1000);  // KVM_ENOSYS
  CHECK_VCS(1, ghcb::kExitVmmcall);
}

void program_vmmcall_user() {
  ask({.code = ghcb::kExitVmmcall, .rax = 99, .cpl = 3}, {Field::kRax, Field::kCpl});
  CHECK_ANSWER(0, 0);
  CHECK_EQUAL(page().rax, -1);  // KVM_EPERM
}

void program_monitor() {
  static std::uint64_t watched;
  asm volatile("monitor" : : "a"(&watched), "c"(0), "d"(0));
  CHECK_VCS(1, ghcb::kExitMonitor);
  asm volatile("mwait" : : "a"(0), "c"(0));
  CHECK_VCS(2, ghcb::kExitMwait);
  asm volatile(".byte 0x0f, 0x01, 0xfa" : : "a"(&watched), "c"(0), "d"(0));  // MONITORX
  CHECK_VCS(3, ghcb::kExitMonitor);
  asm volatile(".byte 0x0f, 0x01, 0xfb" : : "a"(0), "b"(0), "c"(0));  // MWAITX
  CHECK_VCS(4, ghcb::kExitMwait);
  // A guest that asks nevertheless is told that it is done.
  ask({.code = ghcb::kExitMonitor, .rax = 0x1000}, {Field::kRax, Field::kRcx, Field::kRdx});
  CHECK_ANSWER(0, 0);
  ask({.code = ghcb::kExitMwait}, {Field::kRax, Field::kRcx});
  CHECK_ANSWER(0, 0);
}

void misaligned() {
  asm volatile("leaq 1f(%%rip), %%rax; movq %%rax, %0; leaq -24(%%rsp), %%rax; movl 1(%%rax), %%ecx; 1: int %1"
               : "=m"(fixup)
               : "i"(NAE_USER_DONE)
               : "rax", "rcx");
}

// The hypervisor intercepts #AC, so #VC comes in its place; the guest delivers #AC to itself.
void program_alignment_check() {
  asm volatile("movq %%cr0, %%rax; orq $0x40000, %%rax; movq %%rax, %%cr0" : : : "rax");  // AM
  run_user(misaligned, kFlags | kFlagAlignment);
  CHECK_VCS(1, ghcb::kExitExceptionAc);
  CHECK_EQUAL(seen.vector, 17);
  CHECK_EQUAL(seen.error, 0);
}

// A trap: it comes behind the instruction that follows POPF.
void program_single_step() {
  std::uint64_t after = 0;
  asm volatile("pushfq; orq %1, (%%rsp); popfq; movl $1, %%ecx; movq %%rcx, %0"
               : "=r"(after)
               : "i"(kFlagTrap)
               : "rcx", "memory", "cc");
  CHECK_EQUAL(after, 1);
  CHECK_VCS(1, ghcb::kExitExceptionDb);
  CHECK_EQUAL(seen.count, 1);
  CHECK_EQUAL(seen.vector, 1);
}

void enable_apic() { apic_write(kApicSpurious, 0x1ff); }

// A second NMI waits until the guest says that it is done with the first; IRET says nothing to the hypervisor.
void program_nmi() {
  enable_apic();
  const auto send = [] {
    apic_write(kApicIcrHigh, 0);
    apic_write(kApicIcrLow, 0x4400);  // to APIC 0, NMI
  };
  const auto wait = [] { linger(1000); };
  send();
  wait();
  CHECK_EQUAL(seen.nmis, 1);
  send();
  wait();
  CHECK_EQUAL(seen.nmis, 1);
  ask({.code = ghcb::kExitNmiComplete}, {});
  CHECK_ANSWER(0, 0);
  wait();
  CHECK_EQUAL(seen.nmis, 2);
}

// User space's device gives back what was written.
void program_mmio() {
  asm volatile("movb %0, (%1)" : : "r"(std::uint8_t{0x11}), "r"(std::uint64_t{NAE_MMIO}) : "memory");
  asm volatile("movw %0, 2(%1)" : : "r"(std::uint16_t{0x2233}), "r"(std::uint64_t{NAE_MMIO}) : "memory");
  asm volatile("movl %0, 4(%1)" : : "r"(0x44556677U), "r"(std::uint64_t{NAE_MMIO}) : "memory");
  asm volatile("movq %0, 8(%1)" : : "r"(std::uint64_t{0x8899aabbccddeeff}), "r"(std::uint64_t{NAE_MMIO}) : "memory");
  CHECK_VCS(4, ghcb::kExitNpf);
  std::uint64_t value = ~std::uint64_t{0};
  asm volatile("movb (%1), %b0" : "+q"(value) : "r"(std::uint64_t{NAE_MMIO}));
  CHECK_EQUAL(value, 0xffffffffffffff11);
  asm volatile("movw 2(%1), %w0" : "+r"(value) : "r"(std::uint64_t{NAE_MMIO}));
  CHECK_EQUAL(value, 0xffffffffffff2233);
  asm volatile("movl 4(%1), %k0" : "+r"(value) : "r"(std::uint64_t{NAE_MMIO}));
  CHECK_EQUAL(value, 0x44556677);
  asm volatile("movq 8(%1), %0" : "+r"(value) : "r"(std::uint64_t{NAE_MMIO}));
  CHECK_EQUAL(value, 0x8899aabbccddeeff);
  asm volatile("movzbl (%1), %k0" : "=r"(value) : "r"(std::uint64_t{NAE_MMIO}));
  CHECK_EQUAL(value, 0x11);
  CHECK_VCS(9, ghcb::kExitNpf);
  // By hand, more than eight bytes: version 1 allows it, in pieces.
  for (unsigned i = 0; i < 20; ++i) page().shared_buffer[i] = static_cast<std::uint8_t>(i + 1);
  ask({.code = ghcb::kExitMmioWrite, .info_1 = NAE_MMIO + 0x20, .info_2 = 20, .scratch = page_address() + 0x800},
      {Field::kScratch});
  CHECK_ANSWER(0, 0);
  for (unsigned i = 0; i < 20; ++i) page().shared_buffer[i] = 0;
  ask({.code = ghcb::kExitMmioRead, .info_1 = NAE_MMIO + 0x20, .info_2 = 20, .scratch = page_address() + 0x900},
      {Field::kScratch});
  CHECK_ANSWER(0, 0);
  for (unsigned i = 0; i < 20; ++i) CHECK_EQUAL(page().shared_buffer[0x100 + i], i + 1);
}

// The local APIC is the host's own: no exit to user space.
void program_mmio_apic() {
  CHECK_EQUAL(apic_read(0x20) >> 24, 0);
  CHECK_EQUAL((apic_read(0x30) & 0xff) >= 0x10, 1);
  apic_write(kApicSpurious, 0x1ff);
  CHECK_EQUAL(apic_read(kApicSpurious), 0x1ff);
}

void wait_for(std::uint64_t stage, int line) {
  for (unsigned i = 0; i < 100'000'000 && ap_stage != stage; ++i) asm volatile("pause");
  check(ap_stage, stage, line);
}

void start_ap(bool init) {
  apic_write(kApicIcrHigh, 1 << 24);
  if (init) apic_write(kApicIcrLow, 0x4500);
  apic_write(kApicIcrLow, 0x4608);
}

// The first SIPI starts vCPU 1 where its VMSA says; it holds, and only INIT and SIPI bring it back with a 1.
void program_ap_hold(std::uint64_t vcpu, bool by_page) {
  if (vcpu == 1) {
    ap_stage = 1;
    while (true) {
      if (by_page) {
        ask({.code = ghcb::kExitApResetHold}, {});
        ap_answer = page().exit_info_1 << 32 | page().exit_info_2;
      } else {
        ap_answer = ask_msr(0x006);
      }
      ap_stage = ap_stage + 1;
    }
  }
  enable_apic();
  start_ap(true);
  wait_for(1, __LINE__);
  linger(20000);
  CHECK_EQUAL(ap_stage, 1);  // held
  start_ap(false);           // without INIT: dropped
  linger(20000);
  CHECK_EQUAL(ap_stage, 1);
  start_ap(true);
  wait_for(2, __LINE__);
  CHECK_EQUAL(ap_answer, by_page ? 1 : 0x1007);
  // Any other wake-up, an NMI here, says 0.
  linger(20000);
  apic_write(kApicIcrHigh, 1 << 24);
  apic_write(kApicIcrLow, 0x4400);
  wait_for(3, __LINE__);
  CHECK_EQUAL(ap_answer, by_page ? 0 : 0x7);
}

void program_jump_table() {
  ask({.code = ghcb::kExitApJumpTable, .info_1 = 1}, {});
  CHECK_ANSWER(0, 0);  // none yet
  ask({.code = ghcb::kExitApJumpTable, .info_1 = 0, .info_2 = 0x9f000}, {});
  CHECK_ANSWER(0, 0);
  ask({.code = ghcb::kExitApJumpTable, .info_1 = 1}, {});
  CHECK_ANSWER(0, 0x9f000);
}

void program_features() {
  ask({.code = ghcb::kExitHypervisorFeatures}, {});
  CHECK_ANSWER(0, 3);
  CHECK_EQUAL(ask_msr(0x080), 0x3081);
}

// HLT leaves, and a timer's interrupt ends it: in virtual time at once.
void program_hlt() {
  enable_apic();
  apic_write(kApicTimerDivide, 0xb);
  apic_write(kApicTimer, 0x21);
  apic_write(kApicTimerCount, 2'000'000);
  asm volatile("sti; hlt; cli");
  CHECK_EQUAL(seen.interrupts, 1);
  CHECK_EQUAL(seen.count, 0);
}

void program_pause() {
  for (unsigned i = 0; i < 20000; ++i) asm volatile("pause");
  CHECK_VCS(0, 0);
}

// The writes take effect, and the trap comes behind them.
void program_write_traps() {
  std::uint64_t value = 0;
  asm volatile("movq %%cr4, %0; orq $4, %0; movq %0, %%cr4; movq %%cr4, %0" : "+r"(value));  // TSD
  CHECK_EQUAL(value >> 2 & 1, 1);
  asm volatile("movq %%cr0, %0; orq $8, %0; movq %0, %%cr0; movq %%cr0, %0" : "+r"(value));  // TS
  CHECK_EQUAL(value >> 3 & 1, 1);
  asm volatile("movq %1, %%cr8; movq %%cr8, %0" : "=r"(value) : "r"(std::uint64_t{5}));
  CHECK_EQUAL(value, 5);
  write_msr(0xc0000080, read_msr(0xc0000080) | 1);  // EFER.SCE
  CHECK_EQUAL(read_msr(0xc0000080) & 1, 1);
  write_msr(0xc0000080, read_msr(0xc0000080) | 1 << 12);  // SVME: ignored (APM vol. 2 section 15.35.10)
  CHECK_VCS(0, 0);
}

[[noreturn]] void shut_down() {
  struct [[gnu::packed]] {
    std::uint16_t limit = 0;
    std::uint64_t base = 0;
  } pointer;
  (void)cpuid(0x40000000, 0);  // something for the report
  asm volatile("lidt %0; ud2" : : "m"(pointer));
  while (true) {
  }
}

// What the trace's and the performance document's figures are of: from instruction to instruction.
void program_bench() {
  const auto stamp = [] {
    std::uint32_t low, high;
    asm volatile("rdtsc" : "=a"(low), "=d"(high));
    return std::uint64_t{high} << 32 | low;
  };
  const std::uint64_t rounds = parameters()[0];
  const std::uint64_t kind = parameters()[1];
  const std::uint64_t begin = stamp();
  for (std::uint64_t i = 0; i < rounds; ++i) {
    std::uint32_t a = 0, b, c = 0, d;
    switch (kind) {
      case 0:
        asm volatile("outb %%al, %%dx" : : "a"(0), "d"(NAE_PORT));
        break;
      case 1:
        asm volatile("cpuid" : "+a"(a), "=b"(b), "+c"(c), "=d"(d));
        break;
      case 2:
        asm volatile("movl (%1), %0" : "=r"(a) : "r"(std::uint64_t{NAE_MMIO}));
        break;
      default:
        asm volatile("movl (%1), %0" : "=r"(a) : "r"(kApic + 0x30));
        break;
    }
  }
  result().values[0] = stamp() - begin;
}

}  // namespace

void run_event_program(Program program, std::uint64_t vcpu) {
  switch (program) {
    case Program::kCpuid:
      return program_cpuid();
    case Program::kCpuidXsave:
      return program_cpuid_xsave();
    case Program::kDr7:
      return program_dr7();
    case Program::kTimeStamp:
      return program_time_stamp();
    case Program::kRdpmc:
      return program_rdpmc();
    case Program::kInvd:
      return program_invd();
    case Program::kWbinvd:
      return program_wbinvd();
    case Program::kPorts:
      return program_ports();
    case Program::kPortStrings:
      return program_port_strings();
    case Program::kMsr:
      return program_msr();
    case Program::kMsrUnknown:
      return program_msr_unknown();
    case Program::kVmmcall:
      return program_vmmcall();
    case Program::kVmmcallUser:
      return program_vmmcall_user();
    case Program::kMonitor:
      return program_monitor();
    case Program::kAlignmentCheck:
      return program_alignment_check();
    case Program::kSingleStep:
      return program_single_step();
    case Program::kNmi:
      return program_nmi();
    case Program::kMmio:
      return program_mmio();
    case Program::kMmioApic:
      return program_mmio_apic();
    case Program::kApHoldPage:
      return program_ap_hold(vcpu, true);
    case Program::kApHoldMsr:
      return program_ap_hold(vcpu, false);
    case Program::kJumpTable:
      return program_jump_table();
    case Program::kFeatures:
      return program_features();
    case Program::kHlt:
      return program_hlt();
    case Program::kPause:
      return program_pause();
    case Program::kWriteTraps:
      return program_write_traps();
    case Program::kShutdown:
      shut_down();
    case Program::kReadOnlyPage:
      // The second slot is read-only: reading goes, writing leaves with a nested page fault.
      CHECK_EQUAL(device<std::uint64_t>(NAE_READ_ONLY), 0);
      result().stage = 1;
      device<std::uint64_t>(NAE_READ_ONLY) = 1;
      return;
    case Program::kTerminateMsr:
      (void)ask_msr(parameters()[0]);
      return;
    case Program::kTerminatePage:
      ask({.code = ghcb::kExitTerminate, .info_1 = parameters()[0], .info_2 = 0x77}, {});
      return;
    case Program::kUnsupported:
      ask({.code = ghcb::kExitUnsupportedEvent, .info_1 = ghcb::kExitTaskSwitch}, {});
      return;
    case Program::kRdtscRequest:
      ask({.code = ghcb::kExitRdtsc}, {});
      return;
    case Program::kRdtscpRequest:
      ask({.code = ghcb::kExitRdtscp}, {});
      CHECK_ANSWER(0, 0);
      CHECK_EQUAL(seen.count, 1);
      CHECK_EQUAL(seen.vector, 6);  // #UD by EVENTINJ (Linux kvm_handle_invalid_op())
      return;
    case Program::kBench:
      return program_bench();
    default:
      CHECK_EQUAL(program, 0);  // not one of these
  }
}

}  // namespace sevisor::nae
