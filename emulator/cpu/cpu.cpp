#include "emulator/cpu/cpu.hpp"

#include <array>
#include <fmt/format.h>

#include "emulator/cpu/code/code_cache.hpp"
#include "emulator/cpu/core.hpp"
#include "emulator/cpu/state/vmsa_state.hpp"
#include "emulator/cpu/system.hpp"

namespace sevisor::emulator {

std::unique_ptr<CodeCache, void (*)(CodeCache*)> make_code_cache() {
  return {new CodeCache(), [](CodeCache* code) { delete code; }};
}

struct Cpu::Impl {
  Impl(const CpuConfig& config, GuestMemory& memory, CodeCache& code, VirtualClock& clock)
      : core(config, memory, code, clock) {}
  Core core;
};

Cpu::Cpu(const CpuConfig& config, GuestMemory& memory, CodeCache& code, VirtualClock& clock)
    : impl_(std::make_unique<Impl>(config, memory, code, clock)) {}
Cpu::~Cpu() = default;

bool Cpu::load(const Vmsa& vmsa) {
  if (!vmsa_acceptable(impl_->core.config, vmsa)) return false;
  load_vmsa(impl_->core, vmsa);
  return true;
}

void Cpu::save(Vmsa& vmsa) const { save_vmsa(impl_->core, vmsa); }

CpuExit Cpu::run(const RunControls& controls) { return impl_->core.run(controls); }

Emulated Cpu::emulate(DeviceBus& bus, CpuExit& exit) { return impl_->core.emulate(bus, exit); }
std::uint64_t Cpu::general(unsigned number) const noexcept { return impl_->core.gpr[number & 0xf]; }
void Cpu::set_general(unsigned number, std::uint64_t value) noexcept { impl_->core.gpr[number & 0xf] = value; }
std::uint64_t Cpu::linear_rip() const noexcept {
  const Core& c = impl_->core;
  return c.code64 ? c.rip : (c.gpr[kRegSegmentBase + kCs] + c.rip) & 0xffff'ffff;
}
unsigned Cpu::cpl() const noexcept { return impl_->core.cpl; }
unsigned Cpu::code_bits() const noexcept {
  const Core& c = impl_->core;
  return c.code64 ? 64 : (c.seg[kCs].attributes & kSegDefault) != 0 ? 32 : 16;
}

bool Cpu::complete_instruction(std::uint64_t rip) noexcept {
  Core& c = impl_->core;
  c.rip = rip;
  c.interrupt_shadow_on = c.debug_shadow_on = false;
  if (c.breakpoints_armed) c.system_flags &= ~kFlagRf;
  if ((c.system_flags & kFlagTf) == 0) return false;
  c.dr6 |= kDr6SingleStep;
  return true;
}

bool Cpu::interrupts_enabled() const noexcept { return (impl_->core.system_flags & kFlagIf) != 0; }
bool Cpu::interrupt_shadow() const noexcept { return impl_->core.interrupt_shadow_on; }
void Cpu::set_interrupt_shadow(bool on) noexcept { impl_->core.interrupt_shadow_on = impl_->core.debug_shadow_on = on; }
void Cpu::forget_translations() noexcept { impl_->core.flush_tlb(false); }
std::uint64_t Cpu::ghcb_msr() const noexcept { return impl_->core.ghcb; }
void Cpu::set_ghcb_msr(std::uint64_t value) noexcept { impl_->core.ghcb = value; }
unsigned Cpu::cr8() const noexcept { return static_cast<unsigned>(impl_->core.cr8); }
void Cpu::set_cr8(unsigned value) noexcept { impl_->core.cr8 = value & 0xf; }
std::uint64_t Cpu::rip() const noexcept { return impl_->core.rip; }
std::uint64_t Cpu::retired() const noexcept { return impl_->core.retired_before_run; }

std::string Cpu::describe() const {
  constexpr std::array<const char*, 16> kNames = {"rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi",
                                                  "r8",  "r9",  "r10", "r11", "r12", "r13", "r14", "r15"};
  const Core& c = impl_->core;
  std::string text = fmt::format("rip {:016x} rflags {:08x} cpl {}\n", c.rip, c.rflags(), unsigned{c.cpl});
  for (unsigned i = 0; i < kNames.size(); ++i) {
    text += fmt::format("{:<3} {:016x}{}", kNames[i], c.gpr[i], i % 4 == 3 ? "\n" : " ");
  }
  constexpr std::array<const char*, kSegmentCount> kSegmentNames = {"es", "cs", "ss", "ds", "fs", "gs"};
  for (unsigned s = 0; s < kSegmentCount; ++s) {
    text += fmt::format("{} {:04x} base {:016x} limit {:08x} attributes {:04x}\n", kSegmentNames[s], c.seg[s].selector,
                        c.gpr[kRegSegmentBase + s], c.seg[s].limit, c.seg[s].attributes);
  }
  text += fmt::format("gdtr {:016x}/{:04x} idtr {:016x}/{:04x} tr {:04x} base {:016x}\n", c.gdtr.base, c.gdtr.limit,
                      c.idtr.base, c.idtr.limit, c.tr.selector, c.tr.base);
  text += fmt::format("cr0 {:08x} cr2 {:016x} cr3 {:016x} cr4 {:08x} cr8 {:x} efer {:x} ghcb {:016x}\n", c.cr0, c.cr2,
                      c.cr3, c.cr4, c.cr8, c.efer, c.ghcb);
  return text;
}

}  // namespace sevisor::emulator
