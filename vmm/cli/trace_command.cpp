#include "vmm/cli/trace_command.hpp"

#include <cerrno>
#include <fmt/format.h>
#include <fstream>
#include <memory>
#include <optional>
#include <string>

#include "base/error.hpp"
#include "vmm/cli/distinct_files.hpp"
#include "vmm/run/report_file.hpp"
#include "vmm/trace/trace_summary.hpp"

namespace sevisor::cli {

namespace {

constexpr const char* kFooter =
    "Times are the guest's: virtual on the emulated host, where an instruction takes a nanosecond. docs/trace.md\n"
    "describes the lines of a trace.\n"
    "\n"
    "Example:\n"
    "  sevisor run --kernel vmlinuz --initrd initrd.img --append console=ttyS0 --trace boot.trace\n"
    "  sevisor trace boot.trace --html boot.html\n";

struct TraceOptions {
  std::string file;
  std::string html;
};

int run_trace(const CLI::App& command, const TraceOptions& options) {
  require_distinct_files(command, {"FILE"}, {"--html"});
  std::optional<vmm::ReportFile> page;
  if (!options.html.empty()) page.emplace(options.html, "--html");
  std::ifstream file(options.file == "-" ? "/dev/stdin" : options.file, std::ios::binary);
  // A folder can be opened, but not read.
  if (!file || (file.peek() == std::ifstream::traits_type::eof() && !file.eof())) {
    throw Error(ExitCode::kBadUsage, fmt::format("read the trace '{}'", options.file),
                errno != 0 ? errno_text(errno) : "it cannot be read", "Give a file that 'run --trace' has written.");
  }
  const vmm::TraceSummary summary = vmm::summarise_trace(file, options.file);
  fmt::print("{}", vmm::trace_text(summary));
  if (page) page->write(vmm::trace_html(summary, "Trace " + options.file));
  return 0;
}

}  // namespace

Command add_trace_command(CLI::App& app) {
  const auto options = std::make_shared<TraceOptions>();
  CLI::App* trace = app.add_subcommand("trace", "Sum up a trace of 'run --trace': what, how often, how long, when");
  trace->footer(kFooter);
  trace->add_option("FILE", options->file, "the trace; - is standard input")->required()->type_name("");
  trace->add_option("--html", options->html, "write one page with plots, which needs nothing else")->type_name("FILE");
  return {trace, [trace, options] { return run_trace(*trace, *options); }};
}

}  // namespace sevisor::cli
