// Text that a guest owner passes on: base64, hexadecimal, GUIDs, policies, numbers.
#include <algorithm>
#include <span>
#include <string_view>

#include "base/error.hpp"
#include "check.hpp"
#include "sev/encoding.hpp"
#include "sev/launch_secret.hpp"
#include "sev/policy.hpp"
#include "vmm/cli/option_values.hpp"

using namespace sevisor;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const std::span bytes(reinterpret_cast<const std::byte*>(data), size);
  // One way to write it: what is read is written the same.
  if (const auto decoded = sev::from_base64(text)) FUZZ_CHECK(sev::to_base64(*decoded) == text);
  FUZZ_CHECK(std::ranges::equal(sev::from_base64(sev::to_base64(bytes)).value(), bytes));
  FUZZ_CHECK(std::ranges::equal(sev::from_hex(sev::to_hex(bytes)).value(), bytes));
  if (const auto decoded = sev::from_hex(text)) FUZZ_CHECK(decoded->size() * 2 == size);
  if (const auto guid = sev::parse_secret_name(text)) FUZZ_CHECK(sev::parse_secret_name(guid->to_string()) == guid);
  try {
    (void)sev::policy_text(sev::parse_policy(text));
  } catch (const Error&) {
  }
  try {
    const std::uint64_t number = cli::parse_integer("--fuzz", text, 3, 4096);
    FUZZ_CHECK(number >= 3 && number <= 4096);
  } catch (const Error&) {
  }
  try {
    FUZZ_CHECK(cli::parse_base64("--fuzz", text, 48).size() == 48);
  } catch (const Error&) {
  }
  return 0;
}
