// Where processors of another maker do something else than AMD's. The engine is an AMD processor and is held to one in
// everything; on another host these details, and nothing else of the instructions that have them, are not compared.
#pragma once

#include <span>
#include <string>
#include <string_view>

#include "tests/cpu_diff/encodings.hpp"

namespace sevisor::cpu_diff {

enum class Vendor : std::uint8_t { kAmd, kIntel, kOther };

// From the twelve characters of CPUID leaf 0: "AuthenticAMD".
[[nodiscard]] Vendor vendor_of(std::string_view name);
// The processor that this program runs on: those characters, and whose they are.
[[nodiscard]] const std::string& host_vendor_name();
[[nodiscard]] Vendor host_vendor();

// What was run, and the state from which.
struct Ran {
  Mode mode;
  const Encoding& e;
  const Machine& before;
};

struct VendorDetail {
  std::string_view what;  // is not compared
  std::string_view why;   // what AMD's processors do, and what others do
  // Makes `engine` agree with `native` in this detail if `ran` has it.
  void (*forgive)(const Ran& ran, const Machine& native, Machine& engine);
};

// All of them, in the order in which they are forgiven.
[[nodiscard]] std::span<const VendorDetail> vendor_details();

// Takes out of the comparison what a processor of `vendor` does otherwise than AMD's do. Nothing for AMD.
void forgive_vendor(Vendor vendor, const Ran& ran, const Machine& native, Machine& engine);

// For a program's output: the host's vendor, and what is not compared on it with the reasons.
[[nodiscard]] std::string describe_vendor(Vendor vendor, std::string_view name);

}  // namespace sevisor::cpu_diff
