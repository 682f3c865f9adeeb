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
  kPekGen = 0x05,
  kPekCsr = 0x06,
  kPekCertImport = 0x07,
  kPdhCertExport = 0x08,
  kPdhGen = 0x09,
  kDfFlush = 0x0a,
  kGetId = 0x0c,
  kDecommission = 0x20,
  kActivate = 0x21,
  kDeactivate = 0x22,
  kGuestStatus = 0x23,
  kCopy = 0x24,
  kLaunchStart = 0x30,
  kLaunchUpdateData = 0x31,
  kLaunchUpdateVmsa = 0x32,
  kLaunchMeasure = 0x33,
  kLaunchSecret = 0x34,
  kLaunchFinish = 0x35,
  kAttestation = 0x36,
  kSendStart = 0x40,
  kSendUpdateData = 0x41,
  kSendUpdateVmsa = 0x42,
  kSendFinish = 0x43,
  kSendCancel = 0x44,
  kReceiveStart = 0x50,
  kReceiveUpdateData = 0x51,
  kReceiveUpdateVmsa = 0x52,
  kReceiveFinish = 0x53,
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
  std::uint32_t flags;  // kStatusOwned, kStatusEs
  std::uint8_t build;
  std::uint32_t guest_count;
};
static_assert(sizeof(PlatformStatus) == 12);
inline constexpr std::uint32_t kStatusOwned = 0x001;  // from outside, by PEK_CERT_IMPORT
inline constexpr std::uint32_t kStatusEs = 0x100;

struct PdhCertExport {  // lengths in and out
  std::uint64_t pdh_address;
  std::uint32_t pdh_length;
  std::uint32_t reserved;
  std::uint64_t chain_address;
  std::uint32_t chain_length;
};
static_assert(sizeof(PdhCertExport) == 28);

struct OneBuffer {  // PEK_CSR, GET_ID; length in and out
  std::uint64_t address;
  std::uint32_t length;
};
static_assert(sizeof(OneBuffer) == 12);

struct PekCertImport {
  std::uint64_t pek_address;
  std::uint32_t pek_length;
  std::uint32_t reserved;
  std::uint64_t oca_address;
  std::uint32_t oca_length;
};
static_assert(sizeof(PekCertImport) == 28);

// DECOMMISSION, DEACTIVATE, LAUNCH_FINISH, SEND_FINISH, SEND_CANCEL, RECEIVE_FINISH
struct HandleOnly {
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

struct Copy {  // within one guest's memory
  std::uint32_t handle;
  std::uint32_t length;
  std::uint64_t source;
  std::uint64_t destination;
};
static_assert(sizeof(Copy) == 24);

struct LaunchStart {     // RECEIVE_START too
  std::uint32_t handle;  // in: 0, or the guest whose key is to be shared; out: the new guest
  std::uint32_t policy;
  // Certificate of the guest owner's key, or the sending platform's PDH. 0: no session; the transport keys are then
  // known to nobody, and nothing can be received.
  std::uint64_t dh_address;
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

// A packet: ciphertext under the transport keys, with its header. LAUNCH_SECRET, RECEIVE_UPDATE_*: into guest memory;
// SEND_UPDATE_*: out of it, with the header's length in and out. Linux's struct for SEND_UPDATE_VMSA lacks the first
// reserved word, which sev-tool's sevapi.h has; the kernel never sends it.
struct Packet {
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
static_assert(sizeof(Packet) == 52);

struct Attestation {
  std::uint32_t handle;
  std::uint32_t reserved;
  std::uint64_t address;
  std::uint8_t mnonce[16];
  std::uint32_t length;  // in and out
};
static_assert(sizeof(Attestation) == 36);

struct SendStart {
  std::uint32_t handle;
  std::uint32_t policy;       // out
  std::uint64_t pdh_address;  // the receiving platform's
  std::uint32_t pdh_length;
  std::uint32_t reserved1;
  std::uint64_t platform_certificates_address;  // its PEK, OCA, CEK
  std::uint32_t platform_certificates_length;
  std::uint32_t reserved2;
  std::uint64_t amd_certificates_address;  // ASK, ARK: looked at when the policy has SEV
  std::uint32_t amd_certificates_length;
  std::uint32_t reserved3;
  std::uint64_t session_address;
  std::uint32_t session_length;  // in and out
};
static_assert(sizeof(SendStart) == 68);

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
enum class GuestState : std::uint8_t {
  kUninit = 0,
  kLaunchUpdate = 1,
  kLaunchSecret = 2,
  kRunning = 3,
  kSendUpdate = 4,
  kReceiveUpdate = 5,
  kSent = 6,
};

}  // namespace sevisor::emulator::psp
