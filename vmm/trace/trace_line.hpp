// One line of a trace: JSON, as docs/trace.md describes it.
#pragma once

#include <string>

#include "kvm/observer.hpp"

namespace sevisor::vmm {

// Version of the format, in the trace's first line.
inline constexpr int kTraceVersion = 1;

// What the checker alone is told is no part of a trace, and appends nothing.
[[nodiscard]] bool is_traced(const kvm::GuestEvent& event);
// Appends the line, with its line feed.
void append_trace_line(std::string& to, const kvm::Moment& moment, const kvm::GuestEvent& event);

// The same for people: "VMGEXIT IOIO out 0x3f8, 1 byte, 0x41".
[[nodiscard]] std::string describe(const kvm::GuestEvent& event);

}  // namespace sevisor::vmm
