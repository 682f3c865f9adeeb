#include "tests/cpu_diff/differences.hpp"

#include <algorithm>
#include <array>
#include <fmt/format.h>

#include "tests/cpu_diff/difference_rows.hpp"

namespace sevisor::cpu_diff {

namespace {

bool is_amd(const Processor& host) { return host.vendor() == Vendor::kAmd; }
bool is_not_amd(const Processor& host) { return !is_amd(host); }
// PPR for family 19h model 11h, CPUID Fn8000_0021_EAX: FSRC. Hypervisors hide it; so does KVM.
bool has_fast_cmpsb(const Processor& host) { return is_amd(host) && (host.has(kFastCmpsb) || is_zen4_or_later(host)); }
bool has_57_bits(const Processor& host) { return host.has(kLa57) || is_zen4_or_later(host); }

constexpr std::string_view kNotAmd = "not AMD's";
constexpr std::string_view kAmd = "AMD's";

// What Intel's processors do is what the SDM says of each instruction and what runs on them showed.
constexpr std::array kDifferences = std::to_array<Difference>({
    {.what = "whether 0F 0D with a register is undefined",
     .why = "PREFETCHW of a register is #UD on AMD's and nothing on Intel's",
     .where = kNotAmd,
     .applies = is_not_amd,
     .forgive = prefetch_of_register},
    {.what = "where LOOPE and LOOPNE behind F2 or F3 go",
     .why = "the prefix is the condition on AMD's and ignored on Intel's",
     .where = kNotAmd,
     .applies = is_not_amd,
     .forgive = repeated_loop},
    {.what = "near branches with an operand size prefix",
     .why = "16 bits of the address remain on AMD's, in 64-bit code the prefix is ignored on Intel's",
     .where = kNotAmd,
     .applies = is_not_amd,
     .leaves_out = short_near_branch},
    {.what = "what CALL to an address that is not canonical has pushed",
     .why = "AMD's check the target before they push, Intel's behind it",
     .where = kNotAmd,
     .applies = is_not_amd,
     .forgive = call_to_nowhere},
    {.what = "BOUND below the lower bound whose upper one cannot be read",
     .why = "AMD's read both before they compare, Intel's compare first",
     .where = kNotAmd,
     .applies = is_not_amd,
     .forgive = bound_order},
    {.what = "whether MOVSXD to 16 bits reads more than two bytes",
     .why = "AMD's read four, Intel's two",
     .where = kNotAmd,
     .applies = is_not_amd,
     .forgive = short_movsxd},
    {.what = "upper halves of RCX, RSI and RDI behind strings with 32-bit addresses that repeat not once",
     .why = "AMD's leave them, Intel's clear them",
     .where = kNotAmd,
     .applies = is_not_amd,
     .forgive = short_strings},
    {.what = "which of REPE CMPSB's two operands faults if neither can be read",
     .why = "with fast short REPE CMPSB the one at [rSI] is read first, before that the one at [rDI]",
     .where = "AMD's with CPUID Fn8000_0021_EAX[11] (FSRC), or Zen 4 and later by family and model",
     .applies = has_fast_cmpsb,
     .forgive = fast_cmpsb},
    {.what = "SHA instructions with a misaligned operand",
     .why = "not checked on AMD's, #GP on Intel's",
     .where = kNotAmd,
     .applies = is_not_amd,
     .forgive = misaligned_sha},
    // Measured on Zen 4.
    {.what = "#GP or #SS for XSAVE's and XRSTOR's area on the stack that is neither aligned nor canonical",
     .why = "AMD's look at the alignment first (#GP), Intel's and the engine at the address (#SS)",
     .where = kAmd,
     .applies = is_amd,
     .forgive = misaligned_stack_area},
    {.what = "VPEXTRD and VPINSRD with VEX.W in 32-bit code",
     .why = "#UD on AMD's, W ignored on Intel's",
     .where = kNotAmd,
     .applies = is_not_amd,
     .forgive = wide_element_in_32_bits},
    {.what = "VPERMQ and VPERMPD without VEX.W",
     .why = "W is set in the manuals and #UD without, on Intel's and here; AMD's ignore it",
     .where = kAmd,
     .applies = is_amd,
     .leaves_out = permutes_without_w},
    {.what = "VCVTPS2PH whose page cannot be written: #PF or #XF, and MXCSR",
     .why = "AMD's look at the page first, Intel's at the numbers",
     .where = kNotAmd,
     .applies = is_not_amd,
     .forgive = half_precision_store},
    {.what = "an x87 store that raises an unmasked exception and whose page cannot be written",
     .why = "AMD's look at the page first, Intel's at the number",
     .where = kNotAmd,
     .applies = is_not_amd,
     .forgive = x87_store},
    {.what = "what a fault leaves in a gather's mask but for signs, and beyond the vectors' length",
     .why = "AMD's change only elements that were loaded, Intel's make the mask all ones or zero",
     .where = kNotAmd,
     .applies = is_not_amd,
     .forgive = broken_gather},
    {.what = "x87's FOP and data pointer, and without a pending exception its instruction pointer",
     .why = "AMD's show them only with an exception pending, Intel's always or deprecate them",
     .where = kNotAmd,
     .applies = is_not_amd,
     .forgive = x87_pointers},
    {.what = "the same in what FNSTENV, FNSAVE, FXSAVE and XSAVE store",
     .why = "as above",
     .where = kNotAmd,
     .applies = is_not_amd,
     .forgive = stored_x87_pointers},
    {.what = "bits 63:48 of x87's pointers that FXRSTOR64 and XRSTOR64 have loaded",
     .why = "they repeat bit 56 where linear addresses have 57 bits, and bit 47 where they have 48",
     .where = "CPUID 7.0:ECX[16] (LA57), or AMD's from Zen 4 on by family and model",
     .applies = has_57_bits,
     .forgive = loaded_x87_pointers},
    {.what = "bit 17 of MXCSR_MASK",
     .why = "only AMD's have misaligned SSE (MXCSR.MM)",
     .where = kNotAmd,
     .applies = is_not_amd,
     .forgive = mxcsr_mask},
});

}  // namespace

std::span<const Difference> differences() { return kDifferences; }

void forgive_host(const Processor& host, const Ran& ran, const Machine& native, Machine& engine) {
  for (const Difference& row : kDifferences) {
    if (row.forgive != nullptr && row.applies(host)) row.forgive(ran, native, engine);
  }
}

bool left_out(const Processor& host, const Encoding& encoding) {
  return std::any_of(kDifferences.begin(), kDifferences.end(), [&](const Difference& row) {
    return row.leaves_out != nullptr && row.leaves_out(encoding) && row.applies(host);
  });
}

std::string describe_differences(const Processor& host) {
  std::string text = fmt::format("host: {}; what it does otherwise than family 25 model 1 and is not compared:\n",
                                 describe_processor(host));
  for (const Difference& row : kDifferences) {
    if (row.applies(host)) text += fmt::format("  {}: {} ({})\n", row.what, row.why, row.where);
  }
  return text;
}

}  // namespace sevisor::cpu_diff
