#include "firmware/exceptions.hpp"

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>

#include "firmware/console.hpp"
#include "firmware/cpu.hpp"
#include "firmware/guest_state.hpp"
#include "firmware/paging.hpp"
#include "firmware/vc_platform.hpp"
#include "ghcb/event.hpp"
#include "ghcb/guest/vc_handler.hpp"
#include "ghcb/msr_protocol.hpp"

namespace sevisor::firmware {

namespace {
constexpr std::size_t kVectors = 32;
constexpr std::size_t kStubBytes = 16;            // entry.S
constexpr std::uint8_t kInterruptGate = 0x8e;     // present, DPL 0, 64-bit interrupt gate
constexpr std::uint64_t kMmioBegin = 0xc0000000;  // devices lie between 3 GiB and the firmware's 2 MiB below 4 GiB
constexpr std::uint64_t kMmioEnd = 0xffe00000;

struct Gate {
  std::uint16_t offset_low;
  std::uint16_t selector;
  std::uint8_t ist;
  std::uint8_t type;
  std::uint16_t offset_middle;
  std::uint32_t offset_high;
  std::uint32_t reserved;
};
static_assert(sizeof(Gate) == 16);

struct [[gnu::packed]] TablePointer {
  std::uint16_t limit;
  std::uint64_t base;
};

// As entry.S pushes it.
struct ExceptionFrame {
  std::uint64_t rax, rcx, rdx, rbx, rbp, rsi, rdi, r8, r9, r10, r11, r12, r13, r14, r15;
  std::uint64_t vector, error_code, rip, cs, rflags, rsp, ss;
};
static_assert(sizeof(ExceptionFrame) == 22 * 8);

// The one processor's exception state. Static because the processor finds the handler through its IDT, with no
// parameter.
struct State {
  Gate idt[kVectors];
  alignas(ghcb::guest::VcHandler) std::byte handler_storage[sizeof(ghcb::guest::VcHandler)];
  ghcb::guest::VcHandler* handler;
  unsigned version;
  unsigned depth;  // of #VC
  bool ending;     // an unexpected exception is being told
  alignas(16) std::byte ghcb_backup[ghcb::kPageBytes];
};
constinit State state{};
constinit VcPlatform platform{};

ghcb::guest::Registers registers_of(const ExceptionFrame& frame) noexcept {
  return {.general = {frame.rax, frame.rcx, frame.rdx, frame.rbx, frame.rsp, frame.rbp, frame.rsi, frame.rdi, frame.r8,
                      frame.r9, frame.r10, frame.r11, frame.r12, frame.r13, frame.r14, frame.r15},
          .rip = frame.rip,
          .rflags = frame.rflags};
}

void apply(const ghcb::guest::Registers& registers, ExceptionFrame& frame) noexcept {
  const auto& general = registers.general;
  frame.rax = general[0];
  frame.rcx = general[1];
  frame.rdx = general[2];
  frame.rbx = general[3];
  frame.rsp = general[4];
  frame.rbp = general[5];
  frame.rsi = general[6];
  frame.rdi = general[7];
  frame.r8 = general[8];
  frame.r9 = general[9];
  frame.r10 = general[10];
  frame.r11 = general[11];
  frame.r12 = general[12];
  frame.r13 = general[13];
  frame.r14 = general[14];
  frame.r15 = general[15];
  frame.rip = registers.rip;
}

extern "C" const std::byte exception_stubs[], rdmsr_may_fault[], wrmsr_may_fault[], msr_faulted[];

[[noreturn]] void unexpected(std::uint64_t vector, std::uint64_t error_code, const ExceptionFrame& frame) noexcept {
  // Printing takes #VCs, which may end here again.
  if (state.ending) terminate(Failure::kException);
  state.ending = true;
  print_line("exception ", vector, " at ", Hex{frame.rip}, ", error code ", Hex{error_code}, ", CR2 ", Hex{read_cr2()});
  give_up(Failure::kException);
}

void raise(std::uint64_t vector, std::uint64_t error_code, ExceptionFrame& frame) noexcept {
  const auto rip = reinterpret_cast<const std::byte*>(frame.rip);
  if (vector == ghcb::kVectorGp && (rip == rdmsr_may_fault || rip == wrmsr_may_fault)) {
    frame.rip = reinterpret_cast<std::uint64_t>(msr_faulted);
    return;
  }
  unexpected(vector, error_code, frame);
}

// A #VC while another one uses the GHCB, as when INS writes to a device: the page is put aside once, deeper it does not
// go.
void handle_vc(ExceptionFrame& frame) noexcept {
  if (state.handler == nullptr || state.depth > 1) terminate(Failure::kVcNested);
  const bool nested = state.depth++ == 1;
  if (nested) __builtin_memcpy(state.ghcb_backup, &platform.page(), ghcb::kPageBytes);
  auto registers = registers_of(frame);
  const auto result = state.handler->handle(registers, frame.error_code);
  if (nested) __builtin_memcpy(&platform.page(), state.ghcb_backup, ghcb::kPageBytes);
  --state.depth;

  using Outcome = ghcb::guest::VcResult::Outcome;
  switch (result.outcome) {
    case Outcome::kResume:
      apply(registers, frame);
      return;
    case Outcome::kException:
      raise(result.event.vector, result.event.error_code, frame);
      return;
    case Outcome::kRefused:
      terminate(Failure::kVcUnsupported);
    case Outcome::kViolation:
      terminate(Failure::kGhcbReply);
  }
  terminate(Failure::kGhcbReply);
}

std::uint64_t msr_call(std::uint64_t request) noexcept {
  write_msr(ghcb::msr::kGhcbMsr, request);
  vmgexit();
  return read_msr(ghcb::msr::kGhcbMsr);
}

std::uint16_t negotiate_version() noexcept {
  const auto info = ghcb::msr::decode_sev_info(msr_call(ghcb::msr::kSevInfoRequest));
  if (!info) terminate(Failure::kMsrReply);
  // The C-bit that CPUID named was tested; a hypervisor that now names another one is not to be trusted with more.
  if (info->c_bit > 63 || std::uint64_t{1} << info->c_bit != early_state().c_bit_mask) terminate(Failure::kCBit);
  if (info->min_version > ghcb::kMaxVersion || info->max_version < ghcb::kMinVersion ||
      info->max_version < info->min_version) {
    terminate(ghcb::msr::kReasonSetGhcb, ghcb::msr::kReasonProtocolRange);
  }
  return std::min(info->max_version, ghcb::kMaxVersion);
}

void open_ghcb() noexcept {
  const std::uint16_t version = negotiate_version();
  share_pages(FW_GHCB, FW_GHCB + ghcb::kPageBytes, early_state().c_bit_mask);
  __builtin_memset(&platform.page(), 0, ghcb::kPageBytes);
  state.version = version;
  state.handler = new (state.handler_storage) ghcb::guest::VcHandler(platform, version);
}
}  // namespace

extern "C" void handle_exception(ExceptionFrame& frame) noexcept {
  if (frame.vector == ghcb::kVectorVc && sev_es_active()) {
    handle_vc(frame);
  } else {
    raise(frame.vector, frame.error_code, frame);
  }
}

void exceptions_open() noexcept {
  for (std::size_t i = 0; i < kVectors; ++i) {
    const auto address = reinterpret_cast<std::uint64_t>(exception_stubs) + i * kStubBytes;
    state.idt[i] = {.offset_low = static_cast<std::uint16_t>(address),
                    .selector = FW_SELECTOR_CODE64,
                    .ist = 0,
                    .type = kInterruptGate,
                    .offset_middle = static_cast<std::uint16_t>(address >> 16),
                    .offset_high = static_cast<std::uint32_t>(address >> 32),
                    .reserved = 0};
  }
  const TablePointer pointer{.limit = sizeof state.idt - 1, .base = reinterpret_cast<std::uint64_t>(state.idt)};
  asm volatile("lidt %0" : : "m"(pointer));
  if (sev_es_active()) open_ghcb();
  if (sev_active()) share_pages(kMmioBegin, kMmioEnd, early_state().c_bit_mask);
}

unsigned protocol_version() noexcept { return state.version; }

ghcb::guest::Reply request(ghcb::ExitCode code, std::uint64_t info_1, std::uint64_t info_2) noexcept {
  ++state.depth;  // a #VC in between puts the page aside
  ghcb::guest::Exchange exchange(platform, static_cast<std::uint16_t>(state.version));
  const auto reply = exchange.call(code, info_1, info_2);
  --state.depth;
  return reply;
}

}  // namespace sevisor::firmware
