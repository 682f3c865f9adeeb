// Register offsets and bits of the local APIC (Intel SDM vol. 3, table "Local APIC Register Address Map"; AMD APM vol.
// 2, table 16-2). The x2APIC MSR of a register is 0x800 + offset / 16.
#pragma once

#include <cstdint>

namespace sevisor::emulator::apic {

inline constexpr std::uint32_t kId = 0x020;
inline constexpr std::uint32_t kVersion = 0x030;
inline constexpr std::uint32_t kTpr = 0x080;
inline constexpr std::uint32_t kApr = 0x090;  // arbitration priority; xAPIC only
inline constexpr std::uint32_t kPpr = 0x0a0;
inline constexpr std::uint32_t kEoi = 0x0b0;
inline constexpr std::uint32_t kRemoteRead = 0x0c0;  // xAPIC only
inline constexpr std::uint32_t kLdr = 0x0d0;
inline constexpr std::uint32_t kDfr = 0x0e0;  // xAPIC only
inline constexpr std::uint32_t kSvr = 0x0f0;
inline constexpr std::uint32_t kIsr = 0x100;  // eight registers each
inline constexpr std::uint32_t kTmr = 0x180;
inline constexpr std::uint32_t kIrr = 0x200;
inline constexpr std::uint32_t kEsr = 0x280;
inline constexpr std::uint32_t kIcrLow = 0x300;
inline constexpr std::uint32_t kIcrHigh = 0x310;  // xAPIC only
inline constexpr std::uint32_t kLvtFirst = 0x320;
inline constexpr std::uint32_t kLvtLast = 0x370;
inline constexpr std::uint32_t kInitialCount = 0x380;
inline constexpr std::uint32_t kCurrentCount = 0x390;
inline constexpr std::uint32_t kDivide = 0x3e0;
inline constexpr std::uint32_t kSelfIpi = 0x3f0;  // x2APIC only

// Version 0x14 with six LVT entries (highest number 5) and no EOI-broadcast suppression: what KVM shows when the IOAPIC
// is in the kernel too.
inline constexpr std::uint32_t kVersionValue = 0x0005'0014;

inline constexpr std::uint32_t kSvrEnable = 1 << 8;
inline constexpr std::uint32_t kSvrWritable = 0x3ff;
inline constexpr std::uint32_t kSvrReset = 0xff;

inline constexpr std::uint32_t kVectorMask = 0xff;
inline constexpr unsigned kModeShift = 8;
inline constexpr std::uint32_t kModeMask = 7 << kModeShift;
inline constexpr std::uint32_t kLogical = 1 << 11;         // ICR
inline constexpr std::uint32_t kDeliveryStatus = 1 << 12;  // always idle here
inline constexpr std::uint32_t kPolarity = 1 << 13;        // LVT
inline constexpr std::uint32_t kAssert = 1 << 14;          // ICR
inline constexpr std::uint32_t kLevelTriggered = 1 << 15;
inline constexpr std::uint32_t kMasked = 1 << 16;  // LVT
inline constexpr unsigned kTimerModeShift = 17;
inline constexpr std::uint32_t kTimerModeMask = 3 << kTimerModeShift;
inline constexpr unsigned kShorthandShift = 18;  // ICR

// Error status register.
inline constexpr std::uint32_t kErrorSendVector = 1 << 5;
inline constexpr std::uint32_t kErrorReceivedVector = 1 << 6;
inline constexpr std::uint32_t kErrorRegister = 1 << 7;

inline constexpr unsigned kFirstLegalVector = 16;

}  // namespace sevisor::emulator::apic
