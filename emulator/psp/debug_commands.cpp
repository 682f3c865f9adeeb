// A hypervisor's way into a guest's memory. AMD SEV API (55766) DBG_DECRYPT, DBG_ENCRYPT, COPY.
#include <vector>

#include "emulator/psp/call.hpp"
#include "emulator/psp/secure_processor.hpp"
#include "sev/policy.hpp"

namespace sevisor::emulator {

using sev::FirmwareStatus;

FirmwareStatus SecureProcessor::check_debug(const Call& call, std::uint64_t guest_address, std::uint32_t length) {
  if (call.guest->policy & sev::kPolicyNoDebug) return FirmwareStatus::kPolicyFailure;
  if (call.guest->asid == 0) return FirmwareStatus::kInactive;
  return check_region(guest_address, length);
}

FirmwareStatus SecureProcessor::dbg_decrypt(Call& call) {
  const auto command = call.in<psp::Dbg>();
  if (const auto status = check_debug(call, command.source, command.length); status != FirmwareStatus::kSuccess) {
    return status;
  }
  if (command.destination == 0) return FirmwareStatus::kInvalidAddress;
  memory_.decrypt(call.guest->asid, memory_at(command.source, command.length),
                  memory_at(command.destination, command.length));
  return FirmwareStatus::kSuccess;
}

FirmwareStatus SecureProcessor::dbg_encrypt(Call& call) {
  const auto command = call.in<psp::Dbg>();
  if (const auto status = check_debug(call, command.destination, command.length); status != FirmwareStatus::kSuccess) {
    return status;
  }
  if (command.source == 0) return FirmwareStatus::kInvalidAddress;
  memory_.store(call.guest->asid, memory_at(command.destination, command.length),
                memory_at(command.source, command.length));
  return FirmwareStatus::kSuccess;
}

// Moves private memory to another system-physical address, where its ciphertext would mean nothing.
FirmwareStatus SecureProcessor::copy(Call& call) {
  const auto command = call.in<psp::Copy>();
  if (call.guest->asid == 0) return FirmwareStatus::kInactive;
  for (const std::uint64_t address : {command.source, command.destination}) {
    if (const auto status = check_region(address, command.length); status != FirmwareStatus::kSuccess) return status;
  }
  std::vector<std::byte> plain(command.length);
  memory_.decrypt(call.guest->asid, memory_at(command.source, command.length), plain);
  memory_.store(call.guest->asid, memory_at(command.destination, command.length), plain);
  return FirmwareStatus::kSuccess;
}

}  // namespace sevisor::emulator
