#include "emulator/kvm/instruction_emulator.hpp"

#include <algorithm>
#include <optional>
#include <utility>

#include "ghcb/event.hpp"
#include "ghcb/ioio.hpp"

namespace sevisor::emulator {

namespace {
constexpr std::size_t kMostMmioBytes = 8;  // of one KVM_EXIT_MMIO
constexpr unsigned kRax = 0;
// OUT to this port has RIP behind it when user space is asked (KVM_X86_QUIRK_OUT_7E_INC_RIP, on by default).
constexpr std::uint16_t kSkippedPort = 0x7e;
}  // namespace

void InstructionEmulator::forget() {
  waiting_ = Waiting::kNone;
  answers_.clear();
  writes_.clear();
}

ghcb::MmioAccess InstructionEmulator::mmio_access(Access& access) {
  return {.gpa = Gpa(access.address), .write = access.write, .data = access.data};
}

ghcb::PortAccess InstructionEmulator::port_access(Access& access) {
  return {.port = static_cast<std::uint16_t>(access.address),
          .in = !access.write,
          .size = access.size,
          .count = static_cast<std::uint32_t>(access.data.size() / access.size),
          .data = access.data};
}

bool InstructionEmulator::offer(Access& access) {
  if (!access.port) return client_.mmio(mmio_access(access));
  return client_.port(port_access(access));
}

InstructionEmulator::Outcome InstructionEmulator::ask(Access& access) {
  if (!access.port) return ghcb::MmioExit{mmio_access(access)};
  return ghcb::PortExit{port_access(access)};
}

// --- the bus ---------------------------------------------------------------------------------------------------------

bool InstructionEmulator::answer(const Access& wanted, std::span<std::byte> data) {
  if (used_answers_ < answers_.size()) {
    const Access& known = answers_[used_answers_];
    if (known.port == wanted.port && known.address == wanted.address && known.size == wanted.size &&
        known.data.size() == data.size()) {
      std::ranges::copy(known.data, data.begin());
      ++used_answers_;
      return true;
    }
    answers_.resize(used_answers_);  // it is another instruction than it was
  }
  pending_ = wanted;
  pending_.data.assign(data.size(), std::byte{0});
  if (!offer(pending_)) return false;
  std::ranges::copy(pending_.data, data.begin());
  answers_.push_back(pending_);
  ++used_answers_;
  return true;
}

bool InstructionEmulator::read(Gpa gpa, std::span<std::byte> data) {
  for (std::size_t at = 0; at < data.size(); at += kMostMmioBytes) {
    const auto part = data.subspan(at, std::min(kMostMmioBytes, data.size() - at));
    if (!answer({.address = gpa.value + at, .size = static_cast<unsigned>(part.size()), .data = {}}, part)) {
      return false;
    }
  }
  return true;
}

void InstructionEmulator::write(Gpa gpa, std::span<const std::byte> data) {
  for (std::size_t at = 0; at < data.size(); at += kMostMmioBytes) {
    const auto part = data.subspan(at, std::min(kMostMmioBytes, data.size() - at));
    writes_.push_back({.write = true,
                       .address = gpa.value + at,
                       .size = static_cast<unsigned>(part.size()),
                       .data = {part.begin(), part.end()}});
  }
}

bool InstructionEmulator::input(std::uint16_t port, unsigned size, std::span<std::byte> data) {
  return answer({.port = true, .address = port, .size = size, .data = {}}, data);
}

void InstructionEmulator::output(std::uint16_t port, unsigned size, std::span<const std::byte> data) {
  writes_.push_back({.port = true, .write = true, .address = port, .size = size, .data = {data.begin(), data.end()}});
}

// --- whole instructions ----------------------------------------------------------------------------------------------

InstructionEmulator::Outcome InstructionEmulator::perform_writes() {
  for (; next_write_ < writes_.size(); ++next_write_) {
    if (offer(writes_[next_write_])) continue;
    waiting_ = Waiting::kWrite;
    return ask(writes_[next_write_]);
  }
  forget();
  return ghcb::Resume{};
}

InstructionEmulator::Outcome InstructionEmulator::emulate(Cpu& cpu) {
  waiting_ = Waiting::kNone;
  used_answers_ = 0;
  writes_.clear();
  CpuExit exit;
  switch (cpu.emulate(*this, exit)) {
    case Emulated::kDone:
      answers_.clear();
      next_write_ = 0;
      return perform_writes();
    case Emulated::kWaiting:
      waiting_ = Waiting::kRead;
      return ask(pending_);
    case Emulated::kFaulted:
      forget();
      return ghcb::Resume{};
    case Emulated::kExited:
      break;
  }
  forget();
  return exit;
}

void InstructionEmulator::step_over(Cpu& cpu, std::uint64_t next_rip) {
  if (cpu.complete_instruction(next_rip)) client_.inject_exception(ghcb::kVectorDb, std::nullopt);
}

InstructionEmulator::Outcome InstructionEmulator::port(Cpu& cpu, const CpuExit& exit) {
  const auto access = ghcb::decode_ioio(exit.info1);
  if (!access) return exit;
  pending_ = {.port = true, .write = !access->in, .address = access->port, .size = access->size, .data = {}};
  pending_.data.resize(access->size);
  if (pending_.write) {
    const std::uint64_t rax = cpu.general(kRax);
    std::copy_n(reinterpret_cast<const std::byte*>(&rax), access->size, pending_.data.begin());
  }
  linear_rip_ = cpu.linear_rip();
  next_rip_ = exit.next_rip;
  if (offer(pending_)) {
    finish_port(cpu);
    return ghcb::Resume{};
  }
  if (pending_.write && access->port == kSkippedPort) {
    finish_port(cpu);
    return ask(pending_);
  }
  waiting_ = Waiting::kPort;
  return ask(pending_);
}

void InstructionEmulator::finish_port(Cpu& cpu) {
  if (!pending_.write) {
    std::uint64_t rax = pending_.size < 4 ? cpu.general(kRax) : 0;
    std::copy_n(pending_.data.begin(), pending_.size, reinterpret_cast<std::byte*>(&rax));
    cpu.set_general(kRax, rax);
  }
  if (cpu.linear_rip() == linear_rip_) step_over(cpu, next_rip_);
}

InstructionEmulator::Outcome InstructionEmulator::complete(Cpu& cpu) {
  switch (std::exchange(waiting_, Waiting::kNone)) {
    case Waiting::kNone:
      break;
    case Waiting::kPort:
      finish_port(cpu);
      break;
    case Waiting::kRead:
      answers_.push_back(pending_);
      return emulate(cpu);
    case Waiting::kWrite:
      ++next_write_;
      return perform_writes();
  }
  return ghcb::Resume{};
}

}  // namespace sevisor::emulator
