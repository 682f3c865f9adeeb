// Secrets on the command line, and the two files of a packet.
#pragma once

#include <string>
#include <vector>

#include "sev/launch_secret.hpp"
#include "vmm/cli/key_files.hpp"

namespace sevisor::cli {

// Each "GUID:FILE" or "luks-key:FILE". Throws Error (kBadUsage).
[[nodiscard]] std::vector<sev::SecretEntry> read_secrets(const std::vector<std::string>& specifications);

enum class PacketForm : bool {
  kRaw,     // as sevctl writes it
  kBase64,  // as virt-qemu-sev-validate writes it, and QMP's sev-inject-launch-secret takes it
};
void write_packet(const sev::SecretPacket& packet, const std::string& header_file, const std::string& payload_file,
                  PacketForm form, Overwrite overwrite);

// In either form. Throws Error (kBadUsage).
[[nodiscard]] sev::SecretPacket read_packet(const std::string& header_file, const std::string& payload_file);

}  // namespace sevisor::cli
