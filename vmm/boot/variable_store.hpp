// The flash in which a UEFI firmware keeps its variables: content, and the file that keeps it. Not encrypted and not
// measured, as with QEMU: the guest reads it through shared mappings.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>

#include "base/mapping.hpp"
#include "base/unique_fd.hpp"

namespace sevisor::vmm {

inline constexpr std::uint64_t kVariablesMaxSize = 8 << 20;  // bytes; firmware and variables are 16 MiB at most

class VariableStore {
 public:
  // What the guest writes goes to the file at `path`, which no other run uses meanwhile. Throws Error (kBadUsage) when
  // it cannot be read, written and locked, or is no multiple of the page size up to kVariablesMaxSize.
  static VariableStore keep(const std::string& path);
  // Starts as the file at `path`; what the guest writes is forgotten at the end. Throws as keep().
  static VariableStore forget(const std::string& path);

  // Whole pages; they stay where they are when the store is moved.
  [[nodiscard]] std::span<std::byte> content() const noexcept { return memory_.bytes(); }
  [[nodiscard]] const std::string& path() const noexcept { return path_; }
  // Writes [offset, offset + size) of the content to the file. If that fails, says so the first time.
  void save(std::size_t offset, std::size_t size);

 private:
  VariableStore(UniqueFd file, std::string path, Mapping memory)
      : file_(std::move(file)), path_(std::move(path)), memory_(std::move(memory)) {}

  UniqueFd file_;  // empty: nothing is kept
  std::string path_;
  Mapping memory_;
  bool complained_ = false;
};

// The variables that belong to a firmware file by its name: "OVMF_VARS.fd" beside "OVMF_CODE.fd", and
// "OVMF_VARS_4M.fd" beside "OVMF_CODE_4M.secboot.fd", as edk2's packages name them. nullopt: no such file.
[[nodiscard]] std::optional<std::string> find_variables_of(const std::string& firmware_path);

}  // namespace sevisor::vmm
