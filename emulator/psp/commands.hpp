// Commands of the Secure Processor and their command buffers. AMD SEV API (55766) chapters 5 and 6; Linux
// include/linux/psp-sev.h. An address names memory of this process, which is the emulated host's DRAM.
#pragma once

#include <cstdint>

namespace sevisor::emulator::psp {

enum class Command : std::uint16_t {
  kInit = 0x01,
  kShutdown = 0x02,
  kPlatformReset = 0x03,
  kPlatformStatus = 0x04,
  kPdhCertExport = 0x08,
  kDfFlush = 0x0a,
  kDecommission = 0x20,
  kActivate = 0x21,
  kDeactivate = 0x22,
  kGuestStatus = 0x23,
  kLaunchStart = 0x30,
  kLaunchUpdateData = 0x31,
  kLaunchUpdateVmsa = 0x32,
  kLaunchMeasure = 0x33,
  kLaunchSecret = 0x34,
  kLaunchFinish = 0x35,
  kDbgDecrypt = 0x60,
  kDbgEncrypt = 0x61,
};

#pragma pack(push, 1)
struct Init {
  std::uint32_t options;  // kInitEs
  std::uint32_t reserved;
  std::uint64_t tmr_address;
  std::uint32_t tmr_length;
};
static_assert(sizeof(Init) == 20);
inline constexpr std::uint32_t kInitEs = 1;

struct PlatformStatus {
  std::uint8_t api_major;
  std::uint8_t api_minor;
  std::uint8_t state;
  std::uint32_t flags;  // bit 0 owned from outside, kStatusEs
  std::uint8_t build;
  std::uint32_t guest_count;
};
static_assert(sizeof(PlatformStatus) == 12);
inline constexpr std::uint32_t kStatusEs = 0x100;

struct PdhCertExport {  // lengths in and out
  std::uint64_t pdh_address;
  std::uint32_t pdh_length;
  std::uint32_t reserved;
  std::uint64_t chain_address;
  std::uint32_t chain_length;
};
static_assert(sizeof(PdhCertExport) == 28);

struct HandleOnly {  // DECOMMISSION, DEACTIVATE, LAUNCH_FINISH
  std::uint32_t handle;
};
struct Activate {
  std::uint32_t handle;
  std::uint32_t asid;
};
struct GuestStatus {
  std::uint32_t handle;
  std::uint32_t policy;
  std::uint32_t asid;
  std::uint8_t state;
};
static_assert(sizeof(GuestStatus) == 13);

struct LaunchStart {
  std::uint32_t handle;  // in: 0, or the guest whose key is to be shared; out: the new guest
  std::uint32_t policy;
  std::uint64_t dh_address;  // 0: no session; the transport keys are then known to nobody
  std::uint32_t dh_length;
  std::uint32_t reserved;
  std::uint64_t session_address;
  std::uint32_t session_length;
};
static_assert(sizeof(LaunchStart) == 36);

struct LaunchRegion {  // LAUNCH_UPDATE_DATA, LAUNCH_UPDATE_VMSA, LAUNCH_MEASURE (length in and out)
  std::uint32_t handle;
  std::uint32_t reserved;
  std::uint64_t address;
  std::uint32_t length;
};
static_assert(sizeof(LaunchRegion) == 20);

struct LaunchSecret {
  std::uint32_t handle;
  std::uint32_t reserved1;
  std::uint64_t header_address;
  std::uint32_t header_length;
  std::uint32_t reserved2;
  std::uint64_t guest_address;
  std::uint32_t guest_length;
  std::uint32_t reserved3;
  std::uint64_t packet_address;
  std::uint32_t packet_length;
};
static_assert(sizeof(LaunchSecret) == 52);

struct Dbg {  // DBG_DECRYPT, DBG_ENCRYPT
  std::uint32_t handle;
  std::uint32_t reserved;
  std::uint64_t source;
  std::uint64_t destination;
  std::uint32_t length;
};
static_assert(sizeof(Dbg) == 28);
#pragma pack(pop)

enum class PlatformState : std::uint8_t { kUninit = 0, kInit = 1, kWorking = 2 };
// As GUEST_STATUS reports it.
enum class GuestState : std::uint8_t { kUninit = 0, kLaunchUpdate = 1, kLaunchSecret = 2, kRunning = 3 };

}  // namespace sevisor::emulator::psp
