// Programs that break one rule of the GHCB each, and check that the refusal is KVM's.
#include "ghcb/exit_code.hpp"
#include "ghcb/ioio.hpp"
#include "tests/nae/guest/guest.hpp"

namespace sevisor::nae {

namespace {

using ghcb::Field;

constexpr std::uint64_t kByteOut = NAE_PORT << 16 | 1 << 4;
constexpr std::uint64_t kByteIn = kByteOut | 1;
constexpr std::uint64_t kStringIn = kByteIn | 1 << 2;

// Linux arch/x86/include/asm/sev-common.h, GHCB_ERR_*.
constexpr std::uint64_t kRefused = 2;
constexpr std::uint64_t kUsageError = 2;
constexpr std::uint64_t kScratchError = 3;
constexpr std::uint64_t kMissingError = 4;
constexpr std::uint64_t kValueError = 5;
constexpr std::uint64_t kEventError = 6;

std::uint64_t buffer() { return page_address() + ghcb::kSharedBufferOffset; }

void rule_usage() {
  for (const std::uint32_t usage : {1U, 0x80000000U}) {
    ask({.code = ghcb::kExitWbinvd, .usage = usage}, {});
    CHECK_ANSWER(kRefused, kUsageError);
  }
  // Before anything else is looked at.
  ask({.code = 0x12345, .usage = 1}, {}, {Field::kExitCode});
  CHECK_ANSWER(kRefused, kUsageError);
}

void rule_missing_always() {
  for (const auto field : {Field::kExitCode, Field::kExitInfo1, Field::kExitInfo2}) {
    ask({.code = ghcb::kExitWbinvd}, {}, {field});
    CHECK_ANSWER(kRefused, kMissingError);
  }
  ask({.code = ghcb::kExitWbinvd}, {});
  CHECK_ANSWER(0, 0);
}

// Linux sev_es_validate_vmgexit(): each field left out by itself.
void rule_missing_fields() {
  struct Event {
    std::uint64_t code, info_1, rax;
    Field fields[3];
    unsigned count;
  };
  static constexpr Event kEvents[] = {
      {ghcb::kExitWriteDr7, 0, 0, {Field::kRax}, 1},
      {ghcb::kExitRdpmc, 0, 0, {Field::kRcx}, 1},
      {ghcb::kExitCpuid, 0, 0, {Field::kRax, Field::kRcx}, 2},
      {ghcb::kExitCpuid, 0, 0xd, {Field::kRax, Field::kRcx, Field::kXcr0}, 3},
      {ghcb::kExitIoio, kByteOut, 0, {Field::kRax}, 1},
      {ghcb::kExitIoio, kStringIn, 0, {Field::kScratch}, 1},
      {ghcb::kExitIoio, kStringIn & ~std::uint64_t{1}, 0, {Field::kScratch}, 1},
      {ghcb::kExitMsr, 0, 0, {Field::kRcx}, 1},
      {ghcb::kExitMsr, 1, 0, {Field::kRcx, Field::kRax, Field::kRdx}, 3},
      {ghcb::kExitMsr, 2, 0, {Field::kRcx, Field::kRax, Field::kRdx}, 3},  // anything but 0 is a write
      {ghcb::kExitVmmcall, 0, 0, {Field::kRax, Field::kCpl}, 2},
      {ghcb::kExitMonitor, 0, 0, {Field::kRax, Field::kRcx, Field::kRdx}, 3},
      {ghcb::kExitMwait, 0, 0, {Field::kRax, Field::kRcx}, 2},
      {ghcb::kExitMmioRead, NAE_MMIO, 0, {Field::kScratch}, 1},
      {ghcb::kExitMmioWrite, NAE_MMIO, 0, {Field::kScratch}, 1},
  };
  for (const Event& e : kEvents) {
    const auto with_all_but = [&e](Field left_out) {
      const Raw raw{.code = e.code, .info_1 = e.info_1, .info_2 = 1, .rax = e.rax, .rcx = 0x1b, .scratch = buffer()};
      switch (e.count) {
        case 1:
          return ask(raw, {e.fields[0]}, {left_out});
        case 2:
          return ask(raw, {e.fields[0], e.fields[1]}, {left_out});
        default:
          return ask(raw, {e.fields[0], e.fields[1], e.fields[2]}, {left_out});
      }
    };
    for (unsigned i = 0; i < e.count; ++i) {
      // Without RAX the leaf reads as 0, which needs no XCR0: then it is RAX that is missing all the same.
      with_all_but(e.fields[i]);
      CHECK_ANSWER(kRefused, kMissingError);
    }
  }
  // An IN needs no RAX.
  ask({.code = ghcb::kExitIoio, .info_1 = kByteIn}, {});
  CHECK_ANSWER(0, 0);
}

void rule_unknown_events() {
  // Codes that the hardware gives but no GHCB may ask with, and numbers that nobody defines.
  for (const std::uint64_t code : {0x0ULL, 0x41ULL, 0x51ULL, 0x60ULL, 0x78ULL, 0x7fULL, 0x80ULL, 0x8fULL, 0x400ULL,
                                   0x403ULL, 0x80000000ULL, 0x80000006ULL, 0x8000fffcULL, 0x80010000ULL, ~0ULL}) {
    ask({.code = code}, {});
    CHECK_ANSWER(kRefused, kEventError);
  }
  // Those of SEV-SNP, as the newest kernel has it.
  for (const std::uint64_t code : {0x80000010ULL, 0x80000011ULL, 0x80000012ULL, 0x80000013ULL}) {
    ask({.code = code, .scratch = buffer()}, {Field::kScratch, Field::kRax});
    CHECK_ANSWER(kRefused, kEventError);
  }
}

void rule_scratch() {
  const std::uint64_t page = page_address();
  struct Area {
    std::uint64_t begin, size;
    bool good;
  };
  const Area areas[] = {
      {0, 8, false},                      // none
      {page + 0x7ff, 1, false},           // in front of the shared buffer
      {page, 8, false},                   // the save area
      {page + 0x800, 2032, true},         // all of it
      {page + 0x800, 2033, false},        // a byte too much
      {page + 0xfef, 1, true},            // its last byte
      {page + 0xff0, 1, false},           // behind it
      {page + 0xfff, 2, false},           // straddles the page's end
      {~std::uint64_t{0} - 3, 8, false},  // wraps around
      {NAE_SCRATCH, 0x10000, true},       // 64 KiB of shared memory, KVM's limit
      {NAE_SCRATCH, 0x10001, false},      // and a byte more
      {page - 4, 8, true},                // begins elsewhere, ends in the GHCB
  };
  for (const Area& area : areas) {
    // An access to the local APIC's page reads as it likes; what counts is whether it is done.
    ask({.code = ghcb::kExitIoio, .info_1 = kStringIn, .info_2 = area.size, .scratch = area.begin}, {Field::kScratch});
    if (area.good) {
      CHECK_EQUAL(page_address(), page);
      CHECK_EQUAL(nae::page().exit_info_1, 0);
    } else {
      CHECK_ANSWER(kRefused, kScratchError);
    }
  }
}

// Shared memory elsewhere serves as scratch area in version 1.
void rule_scratch_outside(bool allowed) {
  auto* area = reinterpret_cast<volatile std::uint8_t*>(NAE_SCRATCH);
  for (unsigned i = 0; i < 8; ++i) area[i] = 0;
  ask({.code = ghcb::kExitIoio, .info_1 = kStringIn, .info_2 = 8, .scratch = NAE_SCRATCH}, {Field::kScratch});
  if (!allowed) {
    CHECK_ANSWER(kRefused, kScratchError);
    CHECK_EQUAL(area[0], 0);
    return;
  }
  CHECK_ANSWER(0, 0);
  for (unsigned i = 0; i < 8; ++i) CHECK_EQUAL(area[i], i + 1);
}

void rule_mmio_length(bool limited) {
  ask({.code = ghcb::kExitMmioRead, .info_1 = NAE_MMIO, .info_2 = 9, .scratch = buffer()}, {Field::kScratch});
  if (limited) {
    CHECK_ANSWER(kRefused, kValueError);
  } else {
    CHECK_ANSWER(0, 0);
  }
  ask({.code = ghcb::kExitMmioRead, .info_1 = NAE_MMIO, .info_2 = 8, .scratch = buffer()}, {Field::kScratch});
  CHECK_ANSWER(0, 0);
  // No bytes: done before the scratch area is looked at.
  ask({.code = ghcb::kExitMmioRead, .info_1 = NAE_MMIO, .info_2 = 0, .scratch = 0}, {Field::kScratch});
  CHECK_ANSWER(0, 0);
}

// A GHCB that the guest writes with C=1: the hypervisor sees ciphertext, and the guest does not see its answer.
void rule_private_ghcb() {
  constexpr std::uint64_t kAt = NAE_SHARED + 0x8000;
  auto& hidden = *reinterpret_cast<ghcb::Page*>(NAE_PRIVATE_ALIAS + (kAt - NAE_SHARED));
  __builtin_memset(&hidden, 0, sizeof hidden);
  hidden.exit_code = ghcb::kExitCpuid;
  hidden.rax = 0;
  for (const auto field : {Field::kExitCode, Field::kExitInfo1, Field::kExitInfo2, Field::kRax, Field::kRcx}) {
    hidden.valid.set(field);
  }
  (void)ask_msr(kAt);
  const bool answered = hidden.exit_info_1 == 0 && hidden.valid.has(Field::kExitInfo1) &&
                        hidden.exit_code == ghcb::kExitCpuid && hidden.rbx == 0x68747541;
  CHECK_EQUAL(answered, 0);
  // Its ciphertext is no request; the refusal stands in clear in the raw page, where nobody looks.
  const auto& raw = *reinterpret_cast<const volatile ghcb::Page*>(kAt);
  CHECK_EQUAL(raw.exit_info_1, kRefused);
  CHECK_EQUAL(raw.exit_info_2, kUsageError);
}

// KVM lets the guest run on, with nothing done.
void rule_ghcb_nowhere() {
  page().exit_info_1 = 0x5555;
  CHECK_EQUAL(ask_msr(0), 0);
  CHECK_EQUAL(ask_msr(0x40000000), 0x40000000);
  CHECK_EQUAL(ask_msr(0x000ffffffffff000), 0x000ffffffffff000);
  CHECK_EQUAL(page().exit_info_1, 0x5555);
}

// An address that is not a page's cannot be told from a request of the MSR protocol: no GHCB straddles pages.
void rule_ghcb_unaligned() {
  page().exit_code = ghcb::kExitWbinvd;
  page().exit_info_1 = 0x5555;
  CHECK_EQUAL(ask_msr(page_address() + 0x800), page_address() + 0x800);
  CHECK_EQUAL(ask_msr(page_address() + 0xff8), page_address() + 0xff8);
  CHECK_EQUAL(page().exit_info_1, 0x5555);
}

void rule_msr_unknown_request() {
  for (const std::uint64_t request : {0x001ULL, 0x003ULL, 0x005ULL, 0x008ULL, 0x016ULL, 0x081ULL, 0x101ULL, 0xfffULL}) {
    CHECK_EQUAL(ask_msr(0x1234000 | request), 0x1234000 | request);
  }
}

// parameters: the greatest version that this host speaks.
void rule_negotiation() {
  CHECK_EQUAL(ask_msr(0x002), parameters()[0] << 48 | std::uint64_t{1} << 32 | 51ULL << 24 | 1);
  // The version that stands in the page is not looked at (Linux: nor does KVM).
  for (const std::uint16_t version : {std::uint16_t{0}, std::uint16_t{1}, std::uint16_t{2}, std::uint16_t{0xffff}}) {
    ask({.code = ghcb::kExitWbinvd, .version = version}, {});
    CHECK_ANSWER(0, 0);
  }
}

// The bitmap comes back with just what KVM writes, whatever it was.
void rule_answer_bitmap() {
  ask({.code = ghcb::kExitWbinvd, .scratch = 1},
      {Field::kCpl, Field::kXss, Field::kDr7, Field::kR8, Field::kR15, Field::kScratch, Field::kXcr0, Field::kRsi});
  ghcb::ValidBitmap wanted{};
  for (const auto field : {Field::kRax, Field::kRbx, Field::kRcx, Field::kRdx, Field::kExitInfo1, Field::kExitInfo2}) {
    wanted.set(field);
  }
  CHECK_EQUAL(page().valid.word[0], wanted.word[0]);
  CHECK_EQUAL(page().valid.word[1], wanted.word[1]);
  // A register that was not given reads as 0 and comes back so, whatever stands in its place.
  page().rbx = 0x4444;
  ask({.code = ghcb::kExitWbinvd, .rax = 0x1111}, {});
  CHECK_EQUAL(page().rax, 0);
  CHECK_EQUAL(page().rbx, 0);
}

void exit_from_user() { asm volatile(".byte 0xf3, 0x0f, 0x01, 0xd9; int %0" : : "i"(NAE_USER_DONE)); }

// VMGEXIT is allowed at CPL 3: what protects the kernel is that no field is valid while its GHCB rests.
void rule_user_vmgexit() {
  page().valid.clear();
  page().exit_code = ghcb::kExitTerminate;
  page().usage = 0;
  write_msr(kGhcbMsr, page_address());
  run_user(exit_from_user, 2);
  CHECK_ANSWER(kRefused, kMissingError);
}

// An access with C=1 reaches no device: #VC all the same, and a handler that is careful refuses it.
void rule_private_mmio() {
  std::uint32_t value = 0x77;
  asm volatile("leaq 1f(%%rip), %%rax; movq %%rax, %1; movl (%2), %0; 1:"
               : "+r"(value), "=m"(fixup)
               : "r"(std::uint64_t{NAE_PRIVATE_MMIO})
               : "rax");
  CHECK_EQUAL(seen.vc_code, ghcb::kExitNpf);
  CHECK_EQUAL(seen.vector, 29);
  CHECK_EQUAL(value, 0x77);
}

// What `--check` is there to find, one of each that a guest can do by itself.
void rule_unclean() {
  ghcb::Page& p = page();
  // register-exposed: RBX is nobody's business, nor is the upper half of RCX.
  p.rbx = 0x1111;
  ask({.code = ghcb::kExitCpuid, .rcx = 0x2222'0000'0000}, {Field::kRax, Field::kRcx});
  // reply-unchecked: without a look at exit_info_1; reply-unmarked: no answer holds RSI.
  const auto* fields = reinterpret_cast<const volatile std::uint64_t*>(page_address());
  (void)fields[static_cast<unsigned>(Field::kRax)];
  (void)fields[static_cast<unsigned>(Field::kRsi)];
  // mmio-private
  rule_private_mmio();
  // c-bit-mismatch
  *reinterpret_cast<volatile std::uint64_t*>(NAE_SCRATCH) = 1;
  (void)*reinterpret_cast<volatile std::uint64_t*>(NAE_PRIVATE_ALIAS + (NAE_SCRATCH - NAE_SHARED));
  // ghcb-nested: a #VC while the handler of another one is about to exit.
  nest_once = true;
  std::uint32_t a = 0, b = 0, c = 0, d = 0;
  asm volatile("leaq 1f(%%rip), %%r11; movq %%r11, %4; cpuid; 1:"
               : "+a"(a), "=b"(b), "+c"(c), "=d"(d), "=m"(fixup)
               :
               : "r11");
}

}  // namespace

void run_rule_program(Program program) {
  switch (program) {
    case Program::kUsage:
      return rule_usage();
    case Program::kMissingAlways:
      return rule_missing_always();
    case Program::kMissingFields:
      return rule_missing_fields();
    case Program::kUnknownEvents:
      return rule_unknown_events();
    case Program::kScratchRules:
      return rule_scratch();
    case Program::kScratchOutside:
      return rule_scratch_outside(true);
    case Program::kScratchOutsideVersion2:
      return rule_scratch_outside(false);
    case Program::kScratchNoMemory:
      ask({.code = ghcb::kExitIoio, .info_1 = kStringIn, .info_2 = 8, .scratch = 0x40000000}, {Field::kScratch});
      return;
    case Program::kStringTooLong:
      ask({.code = ghcb::kExitIoio, .info_1 = kStringIn, .info_2 = parameters()[0], .scratch = buffer()},
          {Field::kScratch});
      return;
    case Program::kMmioLength:
      return rule_mmio_length(false);
    case Program::kMmioLengthVersion2:
      return rule_mmio_length(true);
    case Program::kJumpTableOperation:
      ask({.code = ghcb::kExitApJumpTable, .info_1 = 2}, {});
      CHECK_ANSWER(kRefused, kValueError);
      return;
    case Program::kPrivateGhcb:
      return rule_private_ghcb();
    case Program::kGhcbNowhere:
      return rule_ghcb_nowhere();
    case Program::kGhcbUnaligned:
      return rule_ghcb_unaligned();
    case Program::kMsrUnknownRequest:
      return rule_msr_unknown_request();
    case Program::kMsrSnpRequest:
      (void)ask_msr(parameters()[0]);
      return;
    case Program::kNegotiation:
      return rule_negotiation();
    case Program::kAnswerBitmap:
      return rule_answer_bitmap();
    case Program::kUserVmgexit:
      return rule_user_vmgexit();
    case Program::kPrivateMmio:
      return rule_private_mmio();
    case Program::kUnclean:
      return rule_unclean();
    default:
      CHECK_EQUAL(program, 0);
  }
}

}  // namespace sevisor::nae
