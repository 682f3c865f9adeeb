// Turns a failed call into the Error that a user can act on.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "base/error.hpp"

namespace sevisor::kvm {

// "Input/output error (EIO); the Secure Processor says POLICY_FAILURE (7): ...". `firmware_status`: the `error` field
// of the command; left out when it is 0, as it then says nothing.
[[nodiscard]] std::string failure_text(int error_number, std::uint32_t firmware_status = 0);

// What to do when memory cannot be pinned: with this process's limit, and `wanted` bytes.
[[nodiscard]] std::string pinning_advice(std::uint64_t wanted);

// Throws Error (kHostCannot) with failure_text() and advice that fits, or `advice` if that is not empty.
[[noreturn]] void throw_failure(std::string tried, int error_number, std::uint32_t firmware_status = 0,
                                std::string advice = {});

}  // namespace sevisor::kvm
