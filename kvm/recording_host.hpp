// Hosts around a host: one writes down every call, one makes a call fail. Either can be put around any host.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "kvm/host.hpp"

namespace sevisor::kvm {

// Takes one call as a JSON object, without a line's end: "n" from 1, "call" (name as call_name() has it, or "open",
// "mmap", "munmap", "close"), "fd", "request", "answer", "result", "errno" where there are any. Called by one thread at
// a time, in the order in which the calls ended.
using RecordSink = std::function<void(std::string_view line)>;

[[nodiscard]] std::unique_ptr<Host> make_recording_host(std::unique_ptr<Host> inner, RecordSink sink);

struct Fault {
  std::string call;          // as "call" of a record; "open /dev/sev" names the device too
  std::uint64_t number = 1;  // the how manieth call of that name fails, from 1
  int error_number = 0;      // with which it fails
  // What a SEV command reports besides; 0: the firmware was not reached.
  std::uint32_t firmware_status = 0;
};

// How often the call came; fault.number of them, and it failed.
using CallCount = std::shared_ptr<std::atomic<std::uint64_t>>;

// The call fails without having reached `inner`. Releases (munmap, close) reach it all the same, so that what fails is
// the report and not the release. `count`, if not null, is raised by each call of that name.
[[nodiscard]] std::unique_ptr<Host> make_failing_host(std::unique_ptr<Host> inner, Fault fault,
                                                      CallCount count = nullptr);

// "LAUNCH_START", "KVM_CREATE_VCPU:2", "KVM_CREATE_VCPU:2:ENOMEM", "LAUNCH_START:1:EIO:7". Throws Error (kBadUsage);
// for a call that there is not, with the names of those that there are.
[[nodiscard]] Fault parse_fault(std::string_view text);

}  // namespace sevisor::kvm
