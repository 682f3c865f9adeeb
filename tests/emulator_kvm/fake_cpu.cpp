#include "tests/emulator_kvm/fake_cpu.hpp"

#include <map>

#include "ghcb/exit_code.hpp"

namespace sevisor {

namespace test {
namespace {
std::map<unsigned, GuestCode>& codes() {
  static std::map<unsigned, GuestCode> all;
  return all;
}
}  // namespace
void set_guest_code(unsigned vcpu_id, GuestCode code) { codes()[vcpu_id] = std::move(code); }
}  // namespace test

namespace emulator {

namespace {
constexpr std::uint64_t Vmsa::*kGeneral[] = {&Vmsa::rax, &Vmsa::rcx, &Vmsa::rdx, &Vmsa::rbx, &Vmsa::rsp, &Vmsa::rbp,
                                             &Vmsa::rsi, &Vmsa::rdi, &Vmsa::r8,  &Vmsa::r9,  &Vmsa::r10, &Vmsa::r11,
                                             &Vmsa::r12, &Vmsa::r13, &Vmsa::r14, &Vmsa::r15};
}

class CodeCache {};
std::unique_ptr<CodeCache, void (*)(CodeCache*)> make_code_cache() {
  return {new CodeCache, [](CodeCache* cache) { delete cache; }};
}

struct Cpu::Impl {
  test::Guest guest;
  test::GuestCode code;
};

Cpu::Cpu(const CpuConfig& config, GuestMemory& memory, CodeCache&, VirtualClock& clock)
    : impl_(new Impl{.guest = {.memory = memory, .clock = clock, .tsc_per_instruction = config.tsc_per_instruction},
                     .code = test::codes()[static_cast<unsigned>(config.random_seed % 64)]}) {}
Cpu::~Cpu() = default;
bool Cpu::load(const Vmsa& vmsa) {
  impl_->guest.state = vmsa;
  return true;
}
void Cpu::save(Vmsa& vmsa) const { vmsa = impl_->guest.state; }
CpuExit Cpu::run(const RunControls& controls) {
  CpuExit exit;
  if (impl_->code) return impl_->code(impl_->guest, controls);
  exit.code = ghcb::kExitShutdown;
  return exit;
}
bool Cpu::interrupts_enabled() const noexcept { return impl_->guest.interrupts; }
bool Cpu::interrupt_shadow() const noexcept { return impl_->guest.shadow; }
void Cpu::set_interrupt_shadow(bool on) noexcept { impl_->guest.shadow = on; }
Emulated Cpu::emulate(DeviceBus&, CpuExit& exit) {
  exit.code = ghcb::kExitShutdown;
  return Emulated::kExited;
}
std::uint64_t Cpu::general(unsigned number) const noexcept { return impl_->guest.state.*kGeneral[number]; }
void Cpu::set_general(unsigned number, std::uint64_t value) noexcept { impl_->guest.state.*kGeneral[number] = value; }
std::uint64_t Cpu::linear_rip() const noexcept { return impl_->guest.state.rip; }
unsigned Cpu::cpl() const noexcept { return impl_->guest.state.cpl; }
unsigned Cpu::code_bits() const noexcept { return 64; }
bool Cpu::complete_instruction(std::uint64_t rip) noexcept {
  impl_->guest.state.rip = rip;
  return false;
}
void Cpu::forget_translations() noexcept {}
std::uint64_t Cpu::ghcb_msr() const noexcept { return impl_->guest.ghcb_msr; }
void Cpu::set_ghcb_msr(std::uint64_t value) noexcept { impl_->guest.ghcb_msr = value; }
unsigned Cpu::cr8() const noexcept { return impl_->guest.cr8; }
void Cpu::set_cr8(unsigned value) noexcept { impl_->guest.cr8 = value; }
std::uint64_t Cpu::rip() const noexcept { return impl_->guest.state.rip; }
std::uint64_t Cpu::retired() const noexcept { return impl_->guest.retired; }
std::string Cpu::describe() const { return "a fake"; }

}  // namespace emulator
}  // namespace sevisor
