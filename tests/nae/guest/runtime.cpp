// Exceptions, the platform of the #VC handler, and requests by hand.
#include <cstddef>
#include <new>

#include "ghcb/exit_code.hpp"
#include "ghcb/guest/vc_handler.hpp"
#include "tests/nae/guest/guest.hpp"

namespace sevisor::nae {

namespace {

using ghcb::guest::VcResult;

constexpr std::size_t kVectors = 64;
constexpr std::size_t kStubBytes = 16;
constexpr std::uint8_t kInterruptGate = 0x8e;
constexpr std::uint8_t kUserGate = 0xee;
constexpr unsigned kNmi = 2;
constexpr unsigned kVc = 29;
constexpr unsigned kTimer = 0x21;
constexpr std::uint64_t kMappedBytes = std::uint64_t{4} << 30;

struct Gate {
  std::uint16_t offset_low;
  std::uint16_t selector;
  std::uint8_t ist;
  std::uint8_t type;
  std::uint16_t offset_middle;
  std::uint32_t offset_high;
  std::uint32_t reserved;
};

struct Frame {
  std::uint64_t rax, rcx, rdx, rbx, rbp, rsi, rdi, r8, r9, r10, r11, r12, r13, r14, r15;
  std::uint64_t vector, error, rip, cs, rflags, rsp, ss;
};

class GuestPlatform final : public ghcb::guest::Platform {
 public:
  ghcb::Page& page() noexcept override { return nae::page(); }
  std::uint64_t page_address() const noexcept override { return nae::page_address(); }
  void vmgexit() noexcept override {
    if (nest_once) {
      nest_once = false;
      std::uint32_t a = 0, b, c = 0, d;
      asm volatile("cpuid" : "+a"(a), "=b"(b), "+c"(c), "=d"(d));
    }
    write_msr(kGhcbMsr, nae::page_address());
    nae::vmgexit();
  }
  std::size_t fetch(std::uint64_t linear, std::span<std::uint8_t> bytes) noexcept override {
    return read(linear, bytes) ? bytes.size() : 0;
  }
  bool read(std::uint64_t linear, std::span<std::uint8_t> bytes) noexcept override {
    if (linear >= NAE_RAM_BYTES) return false;
    __builtin_memcpy(bytes.data(), reinterpret_cast<const void*>(linear), bytes.size());
    return true;
  }
  bool write(std::uint64_t linear, std::span<const std::uint8_t> bytes) noexcept override {
    if (linear >= NAE_RAM_BYTES) return false;
    __builtin_memcpy(reinterpret_cast<void*>(linear), bytes.data(), bytes.size());
    return true;
  }
  ghcb::guest::Translation translate(std::uint64_t linear) noexcept override {
    const bool alias = linear >= NAE_PRIVATE_ALIAS && linear < NAE_PRIVATE_MMIO + 0x200000;
    return {.mapped = linear < kMappedBytes, .shared = linear >= NAE_SHARED && !alias, .gpa = linear};
  }
  std::uint64_t segment_base(ghcb::guest::SegmentOverride) noexcept override { return 0; }
  std::uint64_t xcr0() noexcept override {
    std::uint64_t cr4 = 0;
    asm volatile("movq %%cr4, %0" : "=r"(cr4));
    if ((cr4 & 1 << 18) == 0) return 1;
    std::uint32_t low, high;
    asm volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return std::uint64_t{high} << 32 | low;
  }
};

constinit GuestPlatform platform{};
constinit Gate idt[kVectors]{};
alignas(ghcb::guest::VcHandler) std::byte handler_storage[sizeof(ghcb::guest::VcHandler)];
ghcb::guest::VcHandler* handler = nullptr;

ghcb::guest::Registers registers_of(const Frame& f) {
  return {.general = {f.rax, f.rcx, f.rdx, f.rbx, f.rsp, f.rbp, f.rsi, f.rdi, f.r8, f.r9, f.r10, f.r11, f.r12, f.r13,
                      f.r14, f.r15},
          .rip = f.rip,
          .rflags = f.rflags};
}
void apply(const ghcb::guest::Registers& registers, Frame& f) {
  const auto& g = registers.general;
  f.rax = g[0], f.rcx = g[1], f.rdx = g[2], f.rbx = g[3], f.rsp = g[4], f.rbp = g[5], f.rsi = g[6], f.rdi = g[7];
  f.r8 = g[8], f.r9 = g[9], f.r10 = g[10], f.r11 = g[11], f.r12 = g[12], f.r13 = g[13], f.r14 = g[14], f.r15 = g[15];
  f.rip = registers.rip;
}

void note(const Frame& frame, unsigned vector, std::uint64_t error) {
  ++seen.count;
  seen.vector = vector;
  seen.error = error;
  seen.rip = frame.rip;
}

// True: the instruction was emulated.
bool handle_vc(Frame& frame) {
  ++seen.vcs;
  seen.vc_code = frame.error;
  ghcb::guest::Registers registers = registers_of(frame);
  const VcResult done = handler->handle(registers, frame.error);
  if (done.outcome == VcResult::Outcome::kResume) {
    apply(registers, frame);
    return true;
  }
  if (done.outcome == VcResult::Outcome::kException) {
    note(frame, done.event.vector, done.event.error_code);
  } else {
    note(frame, kVc, frame.error);
  }
  return false;
}

void end_of_interrupt() {
  // By hand: an MMIO instruction would nest.
  page().shared_buffer[0] = page().shared_buffer[1] = page().shared_buffer[2] = page().shared_buffer[3] = 0;
  ask({.code = ghcb::kExitMmioWrite,
       .info_1 = 0xfee000b0,
       .info_2 = 4,
       .scratch = page_address() + ghcb::kSharedBufferOffset},
      {ghcb::Field::kScratch});
}

}  // namespace

Seen seen{};
std::uint64_t fixup = 0;
bool nest_once = false;

extern "C" std::byte exception_stubs[];

extern "C" void on_exception(Frame* frame) {
  switch (frame->vector) {
    case kVc:
      if (handle_vc(*frame)) return;
      if (frame->error == ghcb::kExitExceptionDb) {
        frame->rflags &= ~std::uint64_t{0x100};  // TF: one step is enough
        return;
      }
      break;
    case NAE_USER_DONE:
      user_done();
    case kNmi:
      ++seen.nmis;
      return;
    case kTimer:
      ++seen.interrupts;
      end_of_interrupt();
      return;
    default:
      note(*frame, static_cast<unsigned>(frame->vector), frame->error);
      break;
  }
  if (fixup == 0) {
    // An exception behind a VMGEXIT has nothing to be repeated; any other would come again for ever.
    if (frame->rip >= 4 && *reinterpret_cast<const std::uint32_t*>(frame->rip - 4) == 0xd9010ff3) return;
    result().values[15] = frame->vector << 32 | frame->error;
    check(frame->rip, 0, __LINE__);
  }
  frame->rip = fixup;
  fixup = 0;
}

void set_up_exceptions() {
  handler = new (handler_storage) ghcb::guest::VcHandler(platform, 1);
  for (std::size_t i = 0; i < kVectors; ++i) {
    const auto at = reinterpret_cast<std::uint64_t>(exception_stubs + i * kStubBytes);
    idt[i] = {.offset_low = static_cast<std::uint16_t>(at),
              .selector = NAE_CODE,
              .ist = 0,
              .type = i == NAE_USER_DONE ? kUserGate : kInterruptGate,
              .offset_middle = static_cast<std::uint16_t>(at >> 16),
              .offset_high = static_cast<std::uint32_t>(at >> 32),
              .reserved = 0};
  }
  struct [[gnu::packed]] {
    std::uint16_t limit = sizeof idt - 1;
    std::uint64_t base = reinterpret_cast<std::uint64_t>(idt);
  } pointer;
  asm volatile("lidt %0" : : "m"(pointer));
}

namespace {
// Which vCPU this is: from the stack that it runs on.
std::uint64_t this_vcpu() {
  const auto at = reinterpret_cast<std::uint64_t>(__builtin_frame_address(0));
  return at > NAE_STACK_TOP ? 0 : (NAE_STACK_TOP - at) / NAE_STACK_BYTES;
}
}  // namespace

std::uint64_t page_address() { return NAE_GHCB + this_vcpu() * ghcb::kPageBytes; }
ghcb::Page& page() { return *reinterpret_cast<ghcb::Page*>(page_address()); }

void ask(const Raw& raw, std::initializer_list<ghcb::Field> fields, std::initializer_list<ghcb::Field> left_out) {
  ghcb::Page& p = page();
  p.valid.clear();
  p.exit_code = raw.code;
  p.exit_info_1 = raw.info_1;
  p.exit_info_2 = raw.info_2;
  p.rax = raw.rax;
  p.rcx = raw.rcx;
  p.rdx = raw.rdx;
  p.scratch = raw.scratch;
  p.xcr0 = raw.xcr0;
  p.cpl = raw.cpl;
  p.usage = raw.usage;
  p.version = raw.version;
  const auto among = [](std::initializer_list<ghcb::Field> list, ghcb::Field field) {
    for (const ghcb::Field f : list) {
      if (f == field) return true;
    }
    return false;
  };
  for (const auto field : {ghcb::Field::kExitCode, ghcb::Field::kExitInfo1, ghcb::Field::kExitInfo2}) {
    if (!among(left_out, field)) p.valid.set(field);
  }
  for (const auto field : fields) {
    if (!among(left_out, field)) p.valid.set(field);
  }
  write_msr(kGhcbMsr, page_address());
  vmgexit();
}

void check_answer(std::uint64_t info_1, std::uint64_t info_2, int line) {
  check(page().exit_info_1, info_1, line);
  check(page().exit_info_2, info_2, line);
  for (const auto field : {ghcb::Field::kExitInfo1, ghcb::Field::kExitInfo2, ghcb::Field::kRax, ghcb::Field::kRbx,
                           ghcb::Field::kRcx, ghcb::Field::kRdx}) {
    check(page().valid.has(field), 1, line);
  }
}

void check(std::uint64_t actual, std::uint64_t expected, int line) {
  if (actual == expected) return;
  result().actual = actual;
  result().expected = expected;
  result().line = static_cast<std::uint64_t>(line);
  finish(false);
}

void finish(bool passed) {
  const std::uint64_t reason = passed ? NAE_DONE_REASON : NAE_FAILED_REASON;
  write_msr(kGhcbMsr, 0x100 | NAE_DONE_SET << 12 | reason << 16);
  while (true) vmgexit();
}

extern "C" [[noreturn]] void guest_main(Program program, std::uint64_t vcpu) {
  set_up_exceptions();
  if (program >= Program::kUsage && program < Program::kBench) {
    run_rule_program(program);
  } else if (program == Program::kPages) {
    run_orders();
  } else {
    run_event_program(program, vcpu);
  }
  finish(true);
}

}  // namespace sevisor::nae
