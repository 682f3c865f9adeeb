// A trace from anybody, summed up: refused with a message, or shown without anything of it being taken for markup.
#include <sstream>
#include <string>

#include "base/error.hpp"
#include "check.hpp"
#include "vmm/trace/trace_summary.hpp"

using namespace sevisor;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  // With a first line that is right, most inputs get past it.
  std::string text = "{\"trace\":\"sevisor\",\"version\":1}\n";
  text.append(reinterpret_cast<const char*>(data), size);
  std::istringstream file(size > 0 && data[0] == '!' ? text.substr(text.find('\n') + 1) : text);
  try {
    const vmm::TraceSummary summary = vmm::summarise_trace(file, "input");
    FUZZ_CHECK(summary.slowest.size() <= 20 && summary.timeline.size() <= 120 && summary.rows.size() <= 600);
    const std::string shown = vmm::trace_text(summary);
    for (const char c : shown) FUZZ_CHECK(c == '\n' || (static_cast<unsigned char>(c) >= 0x20 && c != 0x7f));
    const std::string page = vmm::trace_html(summary, "input");
    FUZZ_CHECK(page.find("<script") == std::string::npos);
  } catch (const Error&) {
  }
  return 0;
}
