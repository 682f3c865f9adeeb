#pragma once

#include <array>
#include <map>
#include <vector>

#include "emulator/psp/secure_processor.hpp"

namespace sevisor::test {

// "Encrypts" by turning all bits of memory over, so that what reached memory can be told.
struct FlippingMemory : emulator::MemoryController {
  std::map<std::uint32_t, emulator::Key128> keys;

  void install_key(std::uint32_t asid, const emulator::Key128& key, const emulator::Key128&) override {
    keys[asid] = key;
  }
  void remove_key(std::uint32_t asid) override { keys.erase(asid); }
  void encrypt_in_place(std::uint32_t, std::span<std::byte> memory) override {
    for (std::byte& b : memory) b = ~b;
  }
  void decrypt(std::uint32_t, std::span<const std::byte> memory, std::span<std::byte> plain) override {
    for (std::size_t i = 0; i < plain.size(); ++i) plain[i] = ~memory[i];
  }
  void store(std::uint32_t, std::span<std::byte> memory, std::span<const std::byte> plain) override {
    for (std::size_t i = 0; i < plain.size(); ++i) memory[i] = ~plain[i];
  }
};

inline std::uint64_t address_of(const void* pointer) { return reinterpret_cast<std::uintptr_t>(pointer); }

struct PspFixture {
  using Status = sev::FirmwareStatus;
  using Command = emulator::psp::Command;

  FlippingMemory memory;
  emulator::SecureProcessor psp{7, {.max_asid = 4, .min_plain_sev_asid = 3}, memory};
  alignas(4096) std::array<std::byte, 8192> ram{};

  Status init() {
    emulator::psp::Init command{.options = 1, .reserved = 0, .tmr_address = 1 << 20, .tmr_length = 1 << 20};
    return psp.run(Command::kInit, command);
  }
  // A guest's handle, not activated. 0: refused with `status`.
  std::uint32_t start(std::uint32_t policy = 5) {
    emulator::psp::LaunchStart command{};
    command.policy = policy;
    status = psp.run(Command::kLaunchStart, command);
    return status == Status::kSuccess ? command.handle : 0;
  }
  Status activate(std::uint32_t handle, std::uint32_t asid) {
    emulator::psp::Activate command{.handle = handle, .asid = asid};
    return psp.run(Command::kActivate, command);
  }
  Status on_handle(Command command, std::uint32_t handle) {
    emulator::psp::HandleOnly only{handle};
    return psp.run(command, only);
  }
  Status region(Command command, std::uint32_t handle, std::uint64_t address, std::uint32_t length) {
    emulator::psp::LaunchRegion buffer{.handle = handle, .reserved = 0, .address = address, .length = length};
    const Status result = psp.run(command, buffer);
    returned_length = buffer.length;
    return result;
  }
  Status status{};
  std::uint32_t returned_length = 0;
};

}  // namespace sevisor::test
