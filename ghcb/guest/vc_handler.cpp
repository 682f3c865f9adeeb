#include "ghcb/guest/vc_handler.hpp"

#include <algorithm>
#include <iterator>

#include "ghcb/exit_code.hpp"
#include "ghcb/ioio.hpp"

namespace sevisor::ghcb::guest {

namespace {
constexpr std::uint64_t kLow32 = 0xffffffff;
constexpr std::uint64_t kDr7Writable = 0xffff23ff;  // the others read as zero (APM vol. 2 section 13.1.1.4)
constexpr std::uint64_t kDr7AlwaysSet = 0x400;
constexpr std::uint64_t kMsrWrite = 1;

// Table 6 of the GHCB specification, less those that need no exit of their own. All others are reported as unsupported.
constexpr ExitCode kEvents[] = {kExitReadDr7, kExitWriteDr7, kExitRdtsc, kExitRdpmc,   kExitCpuid,
                                kExitInvd,    kExitIoio,     kExitMsr,   kExitVmmcall, kExitRdtscp,
                                kExitWbinvd,  kExitMonitor,  kExitMwait, kExitNpf};

// Whether the instruction at RIP can have raised the exit that the error code names. A hypervisor may inject #VC with
// any error code at any instruction; this keeps it from having another one "emulated".
bool belongs(const Instruction& instruction, ExitCode code) noexcept {
  const auto is_0f01 = [&](std::uint8_t modrm) { return instruction.opcode == 0x0f01 && instruction.modrm == modrm; };
  switch (code) {
    case kExitReadDr7:
      return instruction.opcode == 0x0f21 && instruction.reg() == 7;
    case kExitWriteDr7:
      return instruction.opcode == 0x0f23 && instruction.reg() == 7;
    case kExitRdtsc:
      return instruction.opcode == 0x0f31;
    case kExitRdpmc:
      return instruction.opcode == 0x0f33;
    case kExitCpuid:
      return instruction.opcode == 0x0fa2;
    case kExitInvd:
      return instruction.opcode == 0x0f08;
    case kExitMsr:
      return instruction.opcode == 0x0f30 || instruction.opcode == 0x0f32;
    case kExitVmmcall:
      return is_0f01(0xd9) && !instruction.repeats();  // with a prefix it is VMGEXIT
    case kExitRdtscp:
      return is_0f01(0xf9);
    case kExitWbinvd:
      return instruction.opcode == 0x0f09;
    case kExitMonitor:
      return is_0f01(0xc8) || is_0f01(0xfa);
    case kExitMwait:
      return is_0f01(0xc9) || is_0f01(0xfb);
    case kExitIoio:
      return (instruction.opcode >= 0x6c && instruction.opcode <= 0x6f) ||
             (instruction.opcode >= 0xe4 && instruction.opcode <= 0xe7) ||
             (instruction.opcode >= 0xec && instruction.opcode <= 0xef);
    case kExitNpf:
      switch (instruction.opcode) {
        case 0x88:
        case 0x89:
        case 0x8a:
        case 0x8b:
        case 0xa0:
        case 0xa1:
        case 0xa2:
        case 0xa3:
        case 0xa4:
        case 0xa5:
        case 0xaa:
        case 0xab:
        case 0xc6:
        case 0xc7:
        case 0x0fb6:
        case 0x0fb7:
        case 0x0fbe:
        case 0x0fbf:
          return true;
        default:
          return false;
      }
    default:
      return false;
  }
}

VcResult outcome_of(const Reply& reply) noexcept {
  switch (reply.status) {
    case Reply::Status::kSuccess:
      return VcResult::resume();
    case Reply::Status::kException:
      return VcResult::exception(reply.event);
    case Reply::Status::kMalformed:
      return VcResult::refused();
    case Reply::Status::kViolation:
      break;
  }
  return VcResult::violation();
}
}  // namespace

VcResult VcHandler::handle(Registers& registers, std::uint64_t error_code) noexcept {
  // Intercepted exceptions are the guest's own affair (APM vol. 2 section 15.35.5).
  if (error_code == kExitExceptionDb) return VcResult::exception({.vector = kVectorDb});
  if (error_code == kExitExceptionAc) return VcResult::exception({.vector = kVectorAc, .has_error_code = true});

  if (std::ranges::find(kEvents, error_code) == std::end(kEvents)) return unsupported(error_code);

  std::uint8_t code[kMaxInstructionBytes];
  const std::size_t fetched = platform_.fetch(registers.rip, code);
  const auto instruction = decode({code, fetched});
  if (!instruction || !belongs(*instruction, error_code)) return VcResult::refused();

  Registers next = registers;
  next.rip += instruction->length;
  VcResult result;
  switch (error_code) {
    case kExitReadDr7:
      result = read_dr7(*instruction, next);
      break;
    case kExitWriteDr7:
      result = write_dr7(*instruction, next);
      break;
    case kExitRdtsc:
    case kExitRdpmc:
    case kExitRdtscp:
      result = counter(error_code, next);
      break;
    case kExitCpuid:
      result = cpuid(next);
      break;
    case kExitMsr:
      result = msr(*instruction, next);
      break;
    case kExitVmmcall:
      result = vmmcall(next);
      break;
    case kExitInvd:
    case kExitWbinvd:
      result = plain(error_code);
      break;
    // Both may do nothing by their definition, and MONITOR would tell the hypervisor an address.
    case kExitMonitor:
    case kExitMwait:
      result = VcResult::resume();
      break;
    case kExitIoio:
      result = port(*instruction, next);
      break;
    case kExitNpf:
      next.rip = registers.rip;  // RIP-relative operands count from the instruction itself
      result = mmio(*instruction, next);
      break;
    default:
      break;
  }
  if (result.outcome == VcResult::Outcome::kResume) registers = next;
  return result;
}

VcResult VcHandler::cpuid(Registers& registers) noexcept {
  Exchange exchange(platform_, version_);
  exchange.set(Field::kRax, registers.general[kRax] & kLow32);
  exchange.set(Field::kRcx, registers.general[kRcx] & kLow32);
  exchange.set(Field::kXcr0, platform_.xcr0());
  const Reply reply = exchange.call(kExitCpuid, 0, 0);
  if (reply.status != Reply::Status::kSuccess) return outcome_of(reply);
  const auto rax = reply.get(Field::kRax);
  const auto rbx = reply.get(Field::kRbx);
  const auto rcx = reply.get(Field::kRcx);
  const auto rdx = reply.get(Field::kRdx);
  if (!rax || !rbx || !rcx || !rdx) return VcResult::violation();
  registers.general[kRax] = *rax & kLow32;
  registers.general[kRbx] = *rbx & kLow32;
  registers.general[kRcx] = *rcx & kLow32;
  registers.general[kRdx] = *rdx & kLow32;
  return VcResult::resume();
}

VcResult VcHandler::msr(const Instruction& instruction, Registers& registers) noexcept {
  const bool write = instruction.opcode == 0x0f30;
  Exchange exchange(platform_, version_);
  exchange.set(Field::kRcx, registers.general[kRcx] & kLow32);
  if (write) {
    exchange.set(Field::kRax, registers.general[kRax] & kLow32);
    exchange.set(Field::kRdx, registers.general[kRdx] & kLow32);
  }
  const Reply reply = exchange.call(kExitMsr, write ? kMsrWrite : 0, 0);
  if (reply.status != Reply::Status::kSuccess || write) return outcome_of(reply);
  const auto rax = reply.get(Field::kRax);
  const auto rdx = reply.get(Field::kRdx);
  if (!rax || !rdx) return VcResult::violation();
  registers.general[kRax] = *rax & kLow32;
  registers.general[kRdx] = *rdx & kLow32;
  return VcResult::resume();
}

VcResult VcHandler::counter(ExitCode code, Registers& registers) noexcept {
  Exchange exchange(platform_, version_);
  if (code == kExitRdpmc) exchange.set(Field::kRcx, registers.general[kRcx] & kLow32);
  const Reply reply = exchange.call(code, 0, 0);
  if (reply.status != Reply::Status::kSuccess) return outcome_of(reply);
  const auto rax = reply.get(Field::kRax);
  const auto rdx = reply.get(Field::kRdx);
  const auto rcx = reply.get(Field::kRcx);
  if (!rax || !rdx || (code == kExitRdtscp && !rcx)) return VcResult::violation();
  registers.general[kRax] = *rax & kLow32;
  registers.general[kRdx] = *rdx & kLow32;
  if (code == kExitRdtscp) registers.general[kRcx] = *rcx & kLow32;
  return VcResult::resume();
}

// A hypercall's parameters are the hypervisor's own convention; only RAX, which every convention has, and the CPL go
// out.
VcResult VcHandler::vmmcall(Registers& registers) noexcept {
  Exchange exchange(platform_, version_);
  exchange.set(Field::kRax, registers.general[kRax]);
  exchange.set(Field::kCpl, 0);
  const Reply reply = exchange.call(kExitVmmcall, 0, 0);
  if (reply.status != Reply::Status::kSuccess) return outcome_of(reply);
  const auto rax = reply.get(Field::kRax);
  if (!rax) return VcResult::violation();
  registers.general[kRax] = *rax;
  return VcResult::resume();
}

VcResult VcHandler::plain(ExitCode code) noexcept {
  Exchange exchange(platform_, version_);
  return outcome_of(exchange.call(code, 0, 0));
}

// The specification's way to say so: the hypervisor may log it, stop the guest, or have an exception raised.
VcResult VcHandler::unsupported(ExitCode code) noexcept {
  Exchange exchange(platform_, version_);
  const Reply reply = exchange.call(kExitUnsupportedEvent, code, 0);
  return reply.status == Reply::Status::kSuccess ? VcResult::refused() : outcome_of(reply);
}

VcResult VcHandler::read_dr7(const Instruction& instruction, Registers& registers) noexcept {
  registers.general[instruction.rm()] = dr7_;
  return VcResult::resume();
}

VcResult VcHandler::write_dr7(const Instruction& instruction, const Registers& registers) noexcept {
  const std::uint64_t wanted = registers.general[instruction.rm()];
  if ((wanted & ~kLow32) != 0) return VcResult::exception({.vector = kVectorGp, .has_error_code = true});
  const std::uint64_t value = (wanted & kDr7Writable) | kDr7AlwaysSet;
  Exchange exchange(platform_, version_);
  exchange.set(Field::kRax, value);
  const Reply reply = exchange.call(kExitWriteDr7, 0, 0);
  if (reply.status == Reply::Status::kSuccess) dr7_ = value;
  return outcome_of(reply);
}

VcResult VcHandler::port(const Instruction& instruction, Registers& registers) noexcept {
  const auto low = static_cast<std::uint8_t>(instruction.opcode);
  if (low >= 0x6c && low <= 0x6f) return string_port(instruction, registers);
  const bool wide = (low & 1) != 0;
  const unsigned size = !wide ? 1 : instruction.operand_16 ? 2 : 4;
  const bool from_dx = low >= 0xec;
  const IoAccess access{.port = static_cast<std::uint16_t>(from_dx ? registers.general[kRdx] : instruction.immediate),
                        .in = (low & 2) == 0,
                        .size = size,
                        .address_size = instruction.address_size()};
  Exchange exchange(platform_, version_);
  if (!access.in) exchange.set(Field::kRax, read_register(registers, kRax, size, true));
  const Reply reply = exchange.call(kExitIoio, encode(access), 0);
  if (reply.status != Reply::Status::kSuccess || !access.in) return outcome_of(reply);
  const auto rax = reply.get(Field::kRax);
  if (!rax) return VcResult::violation();
  write_register(registers, kRax, size, true, *rax);
  return VcResult::resume();
}

// One buffer's worth of elements; the instruction is executed again until RCX is 0, so interrupts get their chance.
VcResult VcHandler::string_port(const Instruction& instruction, Registers& registers) noexcept {
  const bool in = instruction.opcode <= 0x6d;
  const bool wide = (instruction.opcode & 1) != 0;
  const unsigned size = !wide ? 1 : instruction.operand_16 ? 2 : 4;
  const unsigned address_size = instruction.address_size();
  const unsigned index = in ? kRdi : kRsi;
  const SegmentOverride segment = in ? SegmentOverride::kNone : instruction.segment;
  const bool backwards = (registers.rflags & kFlagDirection) != 0;

  std::uint64_t left = 1;
  if (instruction.repeats()) left = read_register(registers, kRcx, address_size, true);
  if (left == 0) return VcResult::resume();
  const std::uint64_t room = kSharedBufferBytes / size;
  const std::uint64_t count = left < room ? left : room;

  const std::uint64_t base = platform_.segment_base(segment);
  std::uint64_t offset = read_register(registers, index, address_size, true);
  const auto step = [&] {
    offset = backwards ? offset - size : offset + size;
    if (address_size == 4) offset &= kLow32;
  };
  IoAccess access{.port = static_cast<std::uint16_t>(registers.general[kRdx]),
                  .in = in,
                  .string = true,
                  .rep = instruction.repeats(),
                  .size = size,
                  .address_size = address_size,
                  .segment = in ? IoSegment::kEs : IoSegment::kDs};
  if (segment == SegmentOverride::kFs) access.segment = IoSegment::kFs;
  if (segment == SegmentOverride::kGs) access.segment = IoSegment::kGs;

  Exchange exchange(platform_, version_);
  std::uint8_t* buffer = platform_.page().shared_buffer;
  const std::uint64_t start = offset;
  // Ascending runs of memory go in one piece; only DF or a 32-bit wrap makes it element by element.
  const bool one_piece = !backwards && (address_size == 8 || start + count * size <= kLow32);
  if (!in) {
    bool readable = true;
    if (one_piece) {
      readable = platform_.read(base + start, {buffer, static_cast<std::size_t>(count * size)});
      offset += count * size;
    } else {
      for (std::uint64_t i = 0; i < count && readable; ++i, step()) {
        readable = platform_.read(base + offset, {buffer + i * size, size});
      }
    }
    if (!readable) return VcResult::refused();
  }
  exchange.use_shared_buffer();
  const Reply reply = exchange.call(kExitIoio, encode(access), count);
  if (reply.status != Reply::Status::kSuccess) return outcome_of(reply);
  if (in) {
    bool writable = true;
    if (one_piece) {
      writable = platform_.write(base + start, {buffer, static_cast<std::size_t>(count * size)});
      offset += count * size;
    } else {
      for (std::uint64_t i = 0; i < count && writable; ++i, step()) {
        writable = platform_.write(base + offset, {buffer + i * size, size});
      }
    }
    if (!writable) return VcResult::refused();
  }
  write_register(registers, index, address_size, true, offset);
  if (instruction.repeats()) {
    write_register(registers, kRcx, address_size, true, left - count);
    if (left != count) registers.rip -= instruction.length;
  }
  return VcResult::resume();
}

}  // namespace sevisor::ghcb::guest
