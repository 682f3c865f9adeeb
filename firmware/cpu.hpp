// Instructions that C++ has no words for (APM vol. 3). Firmware only: 64-bit mode, CPL 0.
#pragma once

#include <cstddef>
#include <cstdint>

namespace sevisor::firmware {

inline void out8(std::uint16_t port, std::uint8_t value) noexcept {
  asm volatile("outb %0, %1" : : "a"(value), "Nd"(port) : "memory");
}
inline void out16(std::uint16_t port, std::uint16_t value) noexcept {
  asm volatile("outw %0, %1" : : "a"(value), "Nd"(port) : "memory");
}
inline void out32(std::uint16_t port, std::uint32_t value) noexcept {
  asm volatile("outl %0, %1" : : "a"(value), "Nd"(port) : "memory");
}
[[nodiscard]] inline std::uint8_t in8(std::uint16_t port) noexcept {
  std::uint8_t value;
  asm volatile("inb %1, %0" : "=a"(value) : "Nd"(port) : "memory");
  return value;
}
[[nodiscard]] inline std::uint32_t in32(std::uint16_t port) noexcept {
  std::uint32_t value;
  asm volatile("inl %1, %0" : "=a"(value) : "Nd"(port) : "memory");
  return value;
}
inline void in8_string(std::uint16_t port, void* to, std::size_t count) noexcept {
  asm volatile("rep insb" : "+D"(to), "+c"(count) : "d"(port) : "memory");
}

inline void out8_string(std::uint16_t port, const void* from, std::size_t count) noexcept {
  asm volatile("rep outsb" : "+S"(from), "+c"(count) : "d"(port) : "memory");
}

[[nodiscard]] inline std::uint64_t read_msr(std::uint32_t msr) noexcept {
  std::uint32_t low, high;
  asm volatile("rdmsr" : "=a"(low), "=d"(high) : "c"(msr) : "memory");
  return std::uint64_t{high} << 32 | low;
}
inline void write_msr(std::uint32_t msr, std::uint64_t value) noexcept {
  const auto low = static_cast<std::uint32_t>(value);
  const auto high = static_cast<std::uint32_t>(value >> 32);
  asm volatile("wrmsr" : : "c"(msr), "a"(low), "d"(high) : "memory");
}
// False when the instruction raises an exception (entry.S).
extern "C" [[nodiscard]] bool read_msr_or_fault(std::uint32_t msr, std::uint64_t* value) noexcept;
extern "C" [[nodiscard]] bool write_msr_or_fault(std::uint32_t msr, std::uint64_t value) noexcept;

struct CpuidResult {
  std::uint32_t eax, ebx, ecx, edx;
};
[[nodiscard]] inline CpuidResult cpuid(std::uint32_t leaf, std::uint32_t sub_leaf = 0) noexcept {
  CpuidResult result;
  asm volatile("cpuid"
               : "=a"(result.eax), "=b"(result.ebx), "=c"(result.ecx), "=d"(result.edx)
               : "a"(leaf), "c"(sub_leaf));
  return result;
}

// VMGEXIT (APM vol. 2 section 15.35.6); outside SEV-ES the same bytes are VMMCALL.
inline void vmgexit() noexcept { asm volatile("rep; vmmcall" : : : "memory"); }

[[nodiscard]] inline std::uint64_t read_tsc() noexcept {
  std::uint32_t low, high;
  asm volatile("rdtsc" : "=a"(low), "=d"(high));
  return std::uint64_t{high} << 32 | low;
}
inline void pause() noexcept { asm volatile("pause" : : : "memory"); }
inline void invalidate_page(std::uint64_t address) noexcept { asm volatile("invlpg (%0)" : : "r"(address) : "memory"); }
inline void flush_tlb() noexcept {
  std::uint64_t cr3;
  asm volatile("mov %%cr3, %0\n\tmov %0, %%cr3" : "=r"(cr3) : : "memory");
}
[[nodiscard]] inline std::uint64_t read_cr2() noexcept {
  std::uint64_t value;
  asm volatile("mov %%cr2, %0" : "=r"(value));
  return value;
}
[[nodiscard]] inline std::uint64_t read_cr4() noexcept {
  std::uint64_t value;
  asm volatile("mov %%cr4, %0" : "=r"(value));
  return value;
}
inline void write_cr4(std::uint64_t value) noexcept { asm volatile("mov %0, %%cr4" : : "r"(value) : "memory"); }
[[noreturn]] inline void halt_forever() noexcept {
  for (;;) asm volatile("cli; hlt" : : : "memory");
}

// Device memory: always one MOV of the size given, a form that every #VC handler knows.
inline void mmio_write32(std::uint64_t address, std::uint32_t value) noexcept {
  asm volatile("movl %0, (%1)" : : "r"(value), "r"(address) : "memory");
}
[[nodiscard]] inline std::uint32_t mmio_read32(std::uint64_t address) noexcept {
  std::uint32_t value;
  asm volatile("movl (%1), %0" : "=r"(value) : "r"(address) : "memory");
  return value;
}

}  // namespace sevisor::firmware
