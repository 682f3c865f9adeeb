// Calls over the seam in words: names of ioctls and SEV commands, and the structs that they carry, field by field.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <vector>

namespace sevisor::kvm {

// "KVM_CREATE_VM", "LAUNCH_START" for a SEV command, "SEV_PLATFORM_STATUS" for one of /dev/sev; "ioctl 0x..." for a
// number that is not known. `argument`: as ioctl(2) has it.
[[nodiscard]] std::string call_name(unsigned long request, const void* argument);

// Whether a call may have this name in a record: one of call_name(), or of the host's other functions ("open /dev/kvm",
// "mmap", ...).
[[nodiscard]] bool is_call_name(std::string_view name);

// The names of all calls that are known, in the order of the tables.
[[nodiscard]] std::vector<std::string_view> known_call_names();

// The argument before the call: what the caller asks. Null if it asks nothing.
[[nodiscard]] nlohmann::ordered_json describe_request(unsigned long request, const void* argument);

// The argument after the call: what came back. Null if nothing does.
[[nodiscard]] nlohmann::ordered_json describe_answer(unsigned long request, const void* argument);

// Why KVM_RUN returned. `state`: the vCPU's run area.
[[nodiscard]] nlohmann::ordered_json describe_exit(const void* state);

}  // namespace sevisor::kvm
