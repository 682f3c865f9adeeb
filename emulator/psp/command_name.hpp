// Names of the Secure Processor's commands, for people. AMD SEV API (55766) chapter 5; Linux include/linux/psp-sev.h.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>

namespace sevisor::emulator::psp {

struct CommandName {
  std::uint32_t id;
  std::string_view name;
};

inline constexpr std::array kCommandNames = {
    CommandName{0x01, "INIT"},
    CommandName{0x02, "SHUTDOWN"},
    CommandName{0x03, "PLATFORM_RESET"},
    CommandName{0x04, "PLATFORM_STATUS"},
    CommandName{0x05, "PEK_GEN"},
    CommandName{0x06, "PEK_CSR"},
    CommandName{0x07, "PEK_CERT_IMPORT"},
    CommandName{0x08, "PDH_CERT_EXPORT"},
    CommandName{0x09, "PDH_GEN"},
    CommandName{0x0a, "DF_FLUSH"},
    CommandName{0x0b, "DOWNLOAD_FIRMWARE"},
    CommandName{0x0c, "GET_ID"},
    CommandName{0x0d, "INIT_EX"},
    CommandName{0x20, "DECOMMISSION"},
    CommandName{0x21, "ACTIVATE"},
    CommandName{0x22, "DEACTIVATE"},
    CommandName{0x23, "GUEST_STATUS"},
    CommandName{0x24, "COPY"},
    CommandName{0x25, "ACTIVATE_EX"},
    CommandName{0x30, "LAUNCH_START"},
    CommandName{0x31, "LAUNCH_UPDATE_DATA"},
    CommandName{0x32, "LAUNCH_UPDATE_VMSA"},
    CommandName{0x33, "LAUNCH_MEASURE"},
    CommandName{0x34, "LAUNCH_SECRET"},
    CommandName{0x35, "LAUNCH_FINISH"},
    CommandName{0x36, "ATTESTATION"},
    CommandName{0x40, "SEND_START"},
    CommandName{0x41, "SEND_UPDATE_DATA"},
    CommandName{0x42, "SEND_UPDATE_VMSA"},
    CommandName{0x43, "SEND_FINISH"},
    CommandName{0x44, "SEND_CANCEL"},
    CommandName{0x50, "RECEIVE_START"},
    CommandName{0x51, "RECEIVE_UPDATE_DATA"},
    CommandName{0x52, "RECEIVE_UPDATE_VMSA"},
    CommandName{0x53, "RECEIVE_FINISH"},
    CommandName{0x60, "DBG_DECRYPT"},
    CommandName{0x61, "DBG_ENCRYPT"},
};

[[nodiscard]] constexpr std::string_view command_name(std::uint32_t id) noexcept {
  for (const CommandName& entry : kCommandNames) {
    if (entry.id == id) return entry.name;
  }
  return "unknown";
}

}  // namespace sevisor::emulator::psp
