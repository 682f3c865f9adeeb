// The GHCB page, format 0: one 4 KiB shared page a vCPU, in which guest and hypervisor exchange the state of one event.
// Layout: GHCB specification (AMD 56421) section 3; Linux arch/x86/include/asm/svm.h struct ghcb. Freestanding.
//
// The other side may write to the page at any time: copy a field once, check the copy, use the copy.
#pragma once

#include <cstddef>
#include <cstdint>

#include "ghcb/exit_code.hpp"

namespace sevisor::ghcb {

inline constexpr std::size_t kPageBytes = 4096;
inline constexpr std::size_t kSharedBufferOffset = 0x800;
inline constexpr std::size_t kSharedBufferBytes = 2032;  // to 0xfef
inline constexpr std::size_t kValidBitmapOffset = 0x3f0;
inline constexpr std::uint32_t kUsageStandard =
    0;  // GHCB_USAGE: any other value names a layout of the hypervisor's own
inline constexpr std::uint16_t kMinVersion = 1;
inline constexpr std::uint16_t kMaxVersion = 2;

// The valid bit of the quadword at `offset` bytes into the page.
constexpr unsigned valid_bit(std::size_t offset) noexcept { return static_cast<unsigned>(offset / 8); }

// Fields that have a valid bit, by the number of that bit; the field lies at 8 * bit, the CPL at 0xcb.
enum class Field : unsigned {
  kCpl = 25,
  kXss = 40,
  kDr7 = 44,
  kRip = 47,
  kRsp = 59,
  kRax = 63,
  kRcx = 97,
  kRdx = 98,
  kRbx = 99,
  kRbp = 101,
  kRsi = 102,
  kRdi = 103,
  kR8 = 104,
  kR9 = 105,
  kR10 = 106,
  kR11 = 107,
  kR12 = 108,
  kR13 = 109,
  kR14 = 110,
  kR15 = 111,
  kExitCode = 114,
  kExitInfo1 = 115,
  kExitInfo2 = 116,
  kScratch = 117,
  kXcr0 = 125,
};

// VALID_BITMAP: bit n stands for the quadword at offset 8 * n, below 0x3f0.
struct ValidBitmap {
  std::uint64_t word[2];

  [[nodiscard]] constexpr bool has(Field field) const noexcept {
    return (word[static_cast<unsigned>(field) / 64] >> (static_cast<unsigned>(field) % 64) & 1) != 0;
  }
  constexpr void set(Field field) noexcept {
    word[static_cast<unsigned>(field) / 64] |= std::uint64_t{1} << (static_cast<unsigned>(field) % 64);
  }
  constexpr void clear() noexcept { word[0] = word[1] = 0; }

  friend constexpr bool operator==(const ValidBitmap&, const ValidBitmap&) noexcept = default;
};

struct Page {
  std::uint8_t reserved_000[0xcb];
  std::uint8_t cpl;  // 0x0cb
  std::uint8_t reserved_0cc[0x140 - 0xcc];
  std::uint64_t xss;  // 0x140
  std::uint8_t reserved_148[0x160 - 0x148];
  std::uint64_t dr7;  // 0x160
  std::uint8_t reserved_168[0x178 - 0x168];
  std::uint64_t rip;  // 0x178
  std::uint8_t reserved_180[0x1d8 - 0x180];
  std::uint64_t rsp;  // 0x1d8
  std::uint8_t reserved_1e0[0x1f8 - 0x1e0];
  std::uint64_t rax;  // 0x1f8
  std::uint8_t reserved_200[0x308 - 0x200];
  std::uint64_t rcx, rdx, rbx;  // 0x308
  std::uint64_t reserved_320;
  std::uint64_t rbp, rsi, rdi;                         // 0x328
  std::uint64_t r8, r9, r10, r11, r12, r13, r14, r15;  // 0x340
  std::uint8_t reserved_380[16];
  std::uint64_t exit_code;    // 0x390 SW_EXITCODE
  std::uint64_t exit_info_1;  // 0x398 SW_EXITINFO1
  std::uint64_t exit_info_2;  // 0x3a0 SW_EXITINFO2
  std::uint64_t scratch;      // 0x3a8 SW_SCRATCH: guest-physical address of the data
  std::uint8_t reserved_3b0[0x3e8 - 0x3b0];
  std::uint64_t xcr0;           // 0x3e8
  ValidBitmap valid;            // 0x3f0
  std::uint64_t x87_state_gpa;  // 0x400
  std::uint8_t reserved_408[0x800 - 0x408];
  std::uint8_t shared_buffer[kSharedBufferBytes];  // 0x800
  std::uint8_t reserved_ff0[10];
  std::uint16_t version;  // 0xffa negotiated protocol version
  std::uint32_t usage;    // 0xffc
};
static_assert(sizeof(Page) == kPageBytes);
static_assert(offsetof(Page, cpl) == 0x0cb && offsetof(Page, xss) == 0x140 && offsetof(Page, dr7) == 0x160);
static_assert(offsetof(Page, rip) == 0x178 && offsetof(Page, rsp) == 0x1d8 && offsetof(Page, rax) == 0x1f8);
static_assert(offsetof(Page, rcx) == 0x308 && offsetof(Page, rbx) == 0x318 && offsetof(Page, rbp) == 0x328);
static_assert(offsetof(Page, r8) == 0x340 && offsetof(Page, r15) == 0x378 && offsetof(Page, exit_code) == 0x390);
static_assert(offsetof(Page, scratch) == 0x3a8 && offsetof(Page, xcr0) == 0x3e8);
static_assert(offsetof(Page, valid) == kValidBitmapOffset && offsetof(Page, x87_state_gpa) == 0x400);
static_assert(offsetof(Page, shared_buffer) == kSharedBufferOffset && offsetof(Page, version) == 0xffa);
static_assert(offsetof(Page, usage) == 0xffc);
static_assert(valid_bit(offsetof(Page, cpl)) == static_cast<unsigned>(Field::kCpl));
static_assert(valid_bit(offsetof(Page, xss)) == static_cast<unsigned>(Field::kXss));
static_assert(valid_bit(offsetof(Page, rax)) == static_cast<unsigned>(Field::kRax));
static_assert(valid_bit(offsetof(Page, rbx)) == static_cast<unsigned>(Field::kRbx));
static_assert(valid_bit(offsetof(Page, rdi)) == static_cast<unsigned>(Field::kRdi));
static_assert(valid_bit(offsetof(Page, r15)) == static_cast<unsigned>(Field::kR15));
static_assert(valid_bit(offsetof(Page, exit_code)) == static_cast<unsigned>(Field::kExitCode));
static_assert(valid_bit(offsetof(Page, scratch)) == static_cast<unsigned>(Field::kScratch));
static_assert(valid_bit(offsetof(Page, xcr0)) == static_cast<unsigned>(Field::kXcr0));

// Bytes of the page at which `field` lies.
constexpr std::size_t field_offset(Field field) noexcept {
  return field == Field::kCpl ? offsetof(Page, cpl) : std::size_t{8} * static_cast<unsigned>(field);
}

}  // namespace sevisor::ghcb
