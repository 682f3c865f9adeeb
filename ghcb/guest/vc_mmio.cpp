// MMIO: a nested page fault on a page that the hypervisor keeps for devices. It sees address, size and data, no more.
#include "base/bytes.hpp"
#include "ghcb/guest/vc_handler.hpp"

namespace sevisor::ghcb::guest {

namespace {
std::uint64_t sign_extend(std::uint64_t value, unsigned size) noexcept {
  const unsigned shift = 64 - 8 * size;
  return static_cast<std::uint64_t>(static_cast<std::int64_t>(value << shift) >> shift);
}
}  // namespace

// Only memory that the guest itself has made shared: a private page that "faults" is the hypervisor's attack.
VcResult VcHandler::mmio_read(std::uint64_t linear, unsigned size, std::uint64_t& value) noexcept {
  const Translation where = platform_.translate(linear);
  const bool crosses = (linear & (kPageSize - 1)) + size > kPageSize;
  if (!where.mapped || !where.shared || crosses) return VcResult::refused();
  Exchange exchange(platform_, version_);
  exchange.use_shared_buffer();
  const Reply reply = exchange.call(kExitMmioRead, where.gpa, size);
  if (reply.status == Reply::Status::kException) return VcResult::exception(reply.event);
  if (reply.status == Reply::Status::kMalformed) return VcResult::refused();
  if (reply.status != Reply::Status::kSuccess) return VcResult::violation();
  std::uint64_t bytes = 0;
  __builtin_memcpy(&bytes, platform_.page().shared_buffer, size);
  value = bytes;
  return VcResult::resume();
}

VcResult VcHandler::mmio_write(std::uint64_t linear, unsigned size, std::uint64_t value) noexcept {
  const Translation where = platform_.translate(linear);
  const bool crosses = (linear & (kPageSize - 1)) + size > kPageSize;
  if (!where.mapped || !where.shared || crosses) return VcResult::refused();
  Exchange exchange(platform_, version_);
  __builtin_memcpy(platform_.page().shared_buffer, &value, size);
  exchange.use_shared_buffer();
  const Reply reply = exchange.call(kExitMmioWrite, where.gpa, size);
  if (reply.status == Reply::Status::kException) return VcResult::exception(reply.event);
  if (reply.status == Reply::Status::kMalformed) return VcResult::refused();
  if (reply.status != Reply::Status::kSuccess) return VcResult::violation();
  return VcResult::resume();
}

VcResult VcHandler::mmio(const Instruction& instruction, Registers& registers) noexcept {
  const std::uint16_t opcode = instruction.opcode;
  if (opcode == 0xaa || opcode == 0xab) return mmio_store_string(instruction, registers);
  if (opcode == 0xa4 || opcode == 0xa5) return mmio_move_string(instruction, registers);
  if (instruction.has_modrm && instruction.mod() == 3) return VcResult::refused();

  const bool rex = instruction.rex != 0;
  const unsigned operand = instruction.operand_size();
  const std::uint64_t linear = platform_.segment_base(instruction.segment) + effective_address(instruction, registers);
  std::uint64_t value = 0;
  VcResult result;
  switch (opcode) {
    case 0x88:
      result = mmio_write(linear, 1, read_register(registers, instruction.reg(), 1, rex));
      break;
    case 0x89:
      result = mmio_write(linear, operand, read_register(registers, instruction.reg(), operand, rex));
      break;
    case 0xa2:
      result = mmio_write(linear, 1, read_register(registers, kRax, 1, rex));
      break;
    case 0xa3:
      result = mmio_write(linear, operand, read_register(registers, kRax, operand, rex));
      break;
    case 0xc6:
      result = mmio_write(linear, 1, instruction.immediate);
      break;
    case 0xc7:
      result = mmio_write(linear, operand, instruction.immediate);
      break;
    case 0x8a:
    case 0x8b:
    case 0xa0:
    case 0xa1: {
      const unsigned size = (opcode & 1) == 0 ? 1 : operand;
      result = mmio_read(linear, size, value);
      if (result.outcome == VcResult::Outcome::kResume) {
        write_register(registers, opcode < 0xa0 ? instruction.reg() : unsigned{kRax}, size, rex, value);
      }
      break;
    }
    case 0x0fb6:
    case 0x0fb7:
    case 0x0fbe:
    case 0x0fbf: {
      const unsigned size = (opcode & 1) == 0 ? 1 : 2;
      result = mmio_read(linear, size, value);
      if (opcode >= 0x0fbe) value = sign_extend(value, size);
      if (result.outcome == VcResult::Outcome::kResume) {
        write_register(registers, instruction.reg(), operand, rex, value);
      }
      break;
    }
    default:
      return VcResult::refused();
  }
  registers.rip += instruction.length;
  return result;
}

// One element a #VC; the instruction is executed again until RCX is 0.
VcResult VcHandler::mmio_store_string(const Instruction& instruction, Registers& registers) noexcept {
  const unsigned size = instruction.opcode == 0xaa ? 1 : instruction.operand_size();
  const unsigned address_size = instruction.address_size();
  const std::uint64_t left = instruction.repeats() ? read_register(registers, kRcx, address_size, true) : 1;
  if (left != 0) {
    const std::uint64_t offset = read_register(registers, kRdi, address_size, true);
    const VcResult result = mmio_write(offset, size, read_register(registers, kRax, size, true));
    if (result.outcome != VcResult::Outcome::kResume) return result;
    const bool backwards = (registers.rflags & kFlagDirection) != 0;
    write_register(registers, kRdi, address_size, true, backwards ? offset - size : offset + size);
    if (instruction.repeats()) write_register(registers, kRcx, address_size, true, left - 1);
  }
  if (left <= 1) registers.rip += instruction.length;
  return VcResult::resume();
}

// Between a device and private memory. Which side is the device is told by the C-bit; two shared sides are refused,
// since one of them may be shared RAM.
VcResult VcHandler::mmio_move_string(const Instruction& instruction, Registers& registers) noexcept {
  const unsigned size = instruction.opcode == 0xa4 ? 1 : instruction.operand_size();
  const unsigned address_size = instruction.address_size();
  const std::uint64_t left = instruction.repeats() ? read_register(registers, kRcx, address_size, true) : 1;
  if (left != 0) {
    const std::uint64_t from = read_register(registers, kRsi, address_size, true);
    const std::uint64_t to = read_register(registers, kRdi, address_size, true);
    const std::uint64_t source = platform_.segment_base(instruction.segment) + from;
    const bool source_shared = platform_.translate(source).shared;
    if (source_shared == platform_.translate(to).shared) return VcResult::refused();
    std::uint64_t value = 0;
    VcResult result = VcResult::resume();
    std::uint8_t bytes[8] = {};
    if (source_shared) {
      result = mmio_read(source, size, value);
      if (result.outcome != VcResult::Outcome::kResume) return result;
      store(bytes, value);
      if (!platform_.write(to, {bytes, size})) return VcResult::refused();
    } else {
      if (!platform_.read(source, {bytes, size})) return VcResult::refused();
      result = mmio_write(to, size, load<std::uint64_t>(bytes));
      if (result.outcome != VcResult::Outcome::kResume) return result;
    }
    const bool backwards = (registers.rflags & kFlagDirection) != 0;
    write_register(registers, kRsi, address_size, true, backwards ? from - size : from + size);
    write_register(registers, kRdi, address_size, true, backwards ? to - size : to + size);
    if (instruction.repeats()) write_register(registers, kRcx, address_size, true, left - 1);
  }
  if (left <= 1) registers.rip += instruction.length;
  return VcResult::resume();
}

}  // namespace sevisor::ghcb::guest
