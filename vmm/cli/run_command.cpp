#include "vmm/cli/run_command.hpp"

#include <charconv>
#include <chrono>
#include <cstdint>
#include <exception>
#include <filesystem>
#include <fmt/format.h>
#include <memory>
#include <optional>
#include <span>
#include <spdlog/spdlog.h>
#include <string_view>
#include <utility>
#include <vector>

#include "base/error.hpp"
#include "sev/cpu_type.hpp"
#include "sev/encoding.hpp"
#include "sev/policy.hpp"
#include "vmm/boot/file_kind.hpp"
#include "vmm/boot/initrd.hpp"
#include "vmm/boot/input_file.hpp"
#include "vmm/boot/variable_store.hpp"
#include "vmm/cli/distinct_files.hpp"
#include "vmm/cli/guest_description.hpp"
#include "vmm/cli/host_choice.hpp"
#include "vmm/cli/log.hpp"
#include "vmm/launch/launch.hpp"
#include "vmm/machine/memory_map.hpp"
#include "vmm/run/guest_run.hpp"
#include "vmm/run/json_report.hpp"
#include "vmm/run/report_file.hpp"
#include "vmm/run/vcpu_threads.hpp"
#include "vmm/text/seconds_text.hpp"
#include "vmm/text/size_text.hpp"
#include "vmm/trace/guest_checker.hpp"
#include "vmm/trace/recent_events.hpp"
#include "vmm/trace/trace_writer.hpp"

namespace sevisor::cli {

namespace {

using vmm::FileBytes;

constexpr std::uint64_t kMaxKernelSize = std::uint64_t{1} << 30;  // bytes
constexpr std::uint64_t kMaxInitrdSize = 0x7fffffff;              // bytes; the boot protocol's address limit
constexpr unsigned kMaxVcpus = 255;                               // xAPIC IDs from 0 on, 0xff being the broadcast
constexpr std::chrono::seconds kMaxTimeout{10'000'000};
constexpr std::int64_t kMaxRtcTime = 253402300799;  // the last second of the year 9999
// When a guest's clock starts on a host whose time is virtual: 2026-01-01T00:00:00Z.
constexpr std::int64_t kVirtualRtcTime = 1767225600;

constexpr const char* kFooter =
    "Exit codes: 0 powered off or --expect matched, 32 reset asked, 33 crash (or --expect never matched),\n"
    "  34 guest panic reported, 35 bad arguments or files, 36 timed out, 37 SEV termination asked by the guest,\n"
    "  38 this machine cannot run SEV-ES guests, 128+N ended by signal N.\n"
    "On a terminal: Ctrl-a x leaves, Ctrl-a h lists the keys.\n"
    "\n"
    "Examples:\n"
    "  sevisor run --kernel vmlinuz --initrd initrd.img --append console=ttyS0\n"
    "  sevisor run --host emulated --cpus 2 --memory 2G --kernel vmlinuz --append 'console=ttyS0 quiet'\n"
    "  sevisor run --kernel vmlinuz --initrd initrd.img --append console=ttyS0 --timeout 300 \\\n"
    "      --expect 'login:' --json report.json\n";

[[noreturn]] void refuse(std::string_view option, std::string_view value, std::string came_back, std::string advice) {
  throw Error(ExitCode::kBadUsage, fmt::format("read {} '{}'", option, value), std::move(came_back), std::move(advice));
}

template <class T>
T parse_number(std::string_view option, std::string_view text, T least, T most) {
  T value{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc{} || end != text.data() + text.size() || value < least || value > most) {
    refuse(option, text, fmt::format("not a number from {} to {}", least, most), {});
  }
  return value;
}

std::chrono::milliseconds parse_timeout(std::string_view option, std::string_view text) {
  const std::optional<std::chrono::milliseconds> time = vmm::parse_seconds(text, kMaxTimeout);
  if (!time) {
    refuse(option, text, fmt::format("not a number of seconds above 0 and up to {}", kMaxTimeout.count()),
           "Give whole or fractional seconds, such as 300 or 0.5.");
  }
  return *time;
}

// nullopt: the host's default.
std::optional<std::int64_t> parse_rtc(std::string_view text) {
  if (text.empty()) return std::nullopt;
  if (text == "now") {
    const auto now = std::chrono::system_clock::now().time_since_epoch();
    return std::chrono::duration_cast<std::chrono::seconds>(now).count();
  }
  return parse_number<std::int64_t>("--rtc", text, 0, kMaxRtcTime);
}

// How long SIGTERM gives the guest to power off; nullopt: it ends the run.
std::optional<std::chrono::milliseconds> parse_power_off_time(const CLI::App& command, const RunOptions& options) {
  const std::chrono::milliseconds time = parse_timeout("--stop-timeout", options.stop_timeout);
  if (options.on_term == "poweroff") return time;
  if (options.on_term != "end") {
    refuse("--on-term", options.on_term, "no such choice", "Choose poweroff or end.");
  }
  if (command.count("--stop-timeout") != 0) {
    throw Error(ExitCode::kBadUsage, "use --stop-timeout", "SIGTERM ends the run at once",
                "Give --on-term poweroff with it.");
  }
  return std::nullopt;
}

vmm::HugePages parse_huge_pages(std::string_view text) {
  if (text == "off") return vmm::HugePages::kOff;
  if (text == "transparent") return vmm::HugePages::kTransparent;
  if (text == "2M") return vmm::HugePages::k2M;
  if (text == "1G") return vmm::HugePages::k1G;
  refuse("--hugepages", text, "no such kind", "Choose one of off, transparent, 2M, 1G.");
}

vmm::Confidential parse_confidential(const CLI::App& command, const RunOptions& options) {
  if (options.confidential == "sev-es") return vmm::Confidential::kSevEs;
  if (options.confidential != "none") {
    refuse("--confidential", options.confidential, "no such kind of guest", "Choose sev-es or none.");
  }
  for (const char* option : {"--policy", "--init-api", "--kernel-hashes", "--dh-cert", "--session", "--secret",
                             "--secret-header", "--secret-payload", "--launch-report", "--check"}) {
    if (command.count(option) != 0) {
      throw Error(ExitCode::kBadUsage, fmt::format("use {} with --confidential none", option),
                  "a plain guest is neither encrypted nor measured", "Leave out one of them.");
    }
  }
  return vmm::Confidential::kNone;
}

// Whether hashes of the kernel are measured. Unasked, if somebody can verify the measurement: who has a session.
bool wants_kernel_hashes(const RunOptions& options, const sev::FirmwareImage& firmware) {
  const char* unasked = options.owner.has_session() ? "auto" : "off";
  const std::string choice = options.kernel_hashes.empty() ? unasked : options.kernel_hashes;
  if (choice == "off") return false;
  if (choice == "auto") return firmware.facts().table && firmware.facts().table->hashes_area();
  if (choice == "on") return true;
  refuse("--kernel-hashes", choice, "no such choice", "Choose one of on, off, auto.");
}

vmm::InitApi parse_init_api(std::string_view text) {
  if (text == "es-init") return vmm::InitApi::kEsInit;
  if (text == "init2") return vmm::InitApi::kInit2;
  if (text == "auto") return vmm::InitApi::kAuto;
  refuse("--init-api", text, "no such call", "Choose one of es-init, init2, auto.");
}

vmm::IrqchipKind parse_irqchip(std::string_view text) {
  if (text == "kernel") return vmm::IrqchipKind::kKernel;
  if (text == "split") return vmm::IrqchipKind::kSplit;
  refuse("--irqchip", text, "no such place", "Choose kernel or split.");
}

// Those of the firmware, if it has any.
std::optional<vmm::VariableStore> open_variables(const CLI::App& command, const RunOptions& options) {
  if (command.count("--vars") != 0) {
    if (command.count("--firmware") == 0) {
      throw Error(ExitCode::kBadUsage, "use --vars", "sevisor's own firmware has no variables",
                  "Give the firmware that they belong to with --firmware.");
    }
    return vmm::VariableStore::keep(options.vars);
  }
  if (command.count("--firmware") == 0) return std::nullopt;
  const std::optional<std::string> beside = vmm::find_variables_of(options.firmware);
  if (!beside) return std::nullopt;
  return vmm::VariableStore::forget(*beside);
}

// What edk2's builds say nothing about, and wait for ever.
void warn_of_silent_firmware(const RunOptions& options, const vmm::RunConfig& config) {
  if (config.booted_by == vmm::BootedBy::kOwnFirmware) return;
  const bool code_alone =
      std::filesystem::path(options.firmware).filename().string().find("_CODE") != std::string::npos;
  if (code_alone && config.variables == nullptr) {
    spdlog::warn(
        "'{}' is named as code without variables, and there are none beside it: such firmware stops without a "
        "word. Give them with --vars",
        options.firmware);
  }
  const auto& table = config.firmware.facts().table;
  if (config.kernel != nullptr && !config.kernel_hashes && table && table->hashes_area()) {
    spdlog::warn(
        "'{}' names an area for kernel hashes, and none are measured: a build that looks there (OVMF's AmdSev) "
        "starts no kernel without --kernel-hashes on",
        options.firmware);
  }
}

void report_launch(const vmm::LaunchReport& report, std::uint32_t policy) {
  spdlog::info("launch digest {}", sev::to_hex(report.digest));
  spdlog::info("measurement {} (policy {:#x} {}, API {}.{} build {})", sev::to_base64(report.measurement), policy,
               sev::policy_text(policy), report.api.major, report.api.minor, report.api.build);
}

// `history`: what led to it, if that is known and of interest.
void report_end(const vmm::Outcome& outcome, const std::vector<std::string>& history) {
  const auto level = outcome.code == 0 ? spdlog::level::info : spdlog::level::err;
  spdlog::log(level, "{} (exit code {})", outcome.reason, outcome.code);
  if (!history.empty()) spdlog::log(level, "what vCPU {} did last:", *outcome.vcpu);
  for (const std::string& line : history) spdlog::log(level, "  {}", line);
}

void report_findings(const std::vector<vmm::Finding>& findings) {
  if (findings.empty()) spdlog::info("--check: nothing found");
  for (const vmm::Finding& f : findings) {
    spdlog::warn("--check: {} at rip {:#x}, page {:#x}, vCPU {}: {} ({} times)", f.rule, f.rip, f.page, f.vcpu,
                 f.detail, f.count);
  }
}

// Of Linux: where it prints is on its command line, and a unified image may have one of its own.
bool prints_nothing(const std::vector<std::byte>& kernel, std::string_view cmdline) {
  if (vmm::kind_of_no_kernel(kernel) || !vmm::is_pe(kernel)) return false;
  for (const std::string_view console : {"console=ttyS", "console=uart", "earlyprintk", "earlycon"}) {
    if (cmdline.find(console) != std::string_view::npos) return false;
  }
  return true;
}

void add_options(CLI::App* run, RunOptions& options) {
  run->footer(kFooter);
  run->add_option("--kernel", options.kernel, "kernel, a bzImage or ELF file; needed unless --firmware is given")
      ->type_name("FILE");
  run->add_option("--initrd", options.initrd, "initial RAM disk")->type_name("FILE");
  run->add_option("--append", options.append, "the kernel's command line")->type_name("TEXT");
  run->add_option("--kernel-hashes", options.kernel_hashes,
                  "measure hashes of kernel, initrd and command line, which the firmware then checks;\n"
                  "auto: if the firmware can (default: auto with --session, else off)")
      ->type_name("on|off|auto")
      ->expected(0, 1)
      ->default_str("on");  // what it is without a value
  run->add_option("--firmware", options.firmware, "firmware image that ends at 4 GiB (default: built in)")
      ->type_name("FILE");
  run->add_option("--vars", options.vars,
                  "the firmware's variables: flash below it, kept in this file; default: a copy of\n"
                  "the file beside --firmware that is named alike (OVMF_CODE.fd: OVMF_VARS.fd)")
      ->type_name("FILE");
  run->add_option("--cpus", options.cpus, "number of vCPUs")->type_name("N")->capture_default_str();
  options.cpu_type = sev::kDefaultCpuType;
  run->add_option("--cpu-type", options.cpu_type,
                  "CPU type that the guest sees, as far as the host has it: " + sev::cpu_type_names())
      ->type_name("NAME")
      ->capture_default_str();
  run->add_option("--memory", options.memory, "the guest's memory, with K, M, G or T (MiB without)")
      ->type_name("SIZE")
      ->capture_default_str();
  options.policy = fmt::format("{:#x}", sev::kDefaultPolicy);
  run->add_option("--policy", options.policy, "SEV policy; bit 2 asks for SEV-ES and must be set")
      ->type_name("NUMBER")
      ->capture_default_str();
  run->add_option("--host", options.host, "auto: the kernel's host if it has SEV-ES, else the emulated one")
      ->type_name("auto|kernel|emulated")
      ->capture_default_str();
  run->add_option("--kvm", options.kvm,
                  "emulated host: whose kernel's KVM it is, by the kernel's release (default: the newest)")
      ->type_name("6.1|6.12|7.2");
  run->add_option("--timeout", options.timeout, "end the run with 36 after this wall-clock time")->type_name("SECONDS");
  run->add_option("--on-term", options.on_term,
                  "what SIGTERM does: end the run at once, or press the guest's power button first")
      ->type_name("end|poweroff")
      ->capture_default_str();
  run->add_option("--stop-timeout", options.stop_timeout,
                  "with --on-term poweroff: how long the guest may take before the run is ended")
      ->type_name("SECONDS")
      ->capture_default_str();
  run->add_option("--expect", options.expect, "end the run with 0 as soon as a console line matches (RE2's syntax)")
      ->type_name("REGEX");
  run->add_option("--rtc", options.rtc,
                  "the guest's date at its start: now, or seconds since 1970\n"
                  "(default: now; on the emulated host, whose time is virtual, 2026-01-01)")
      ->type_name("TIME");
  run->add_option(
         "--hugepages", options.hugepages,
         "the guest's memory in huge pages: transparent asks the system for them, 2M and 1G take reserved ones")
      ->type_name("off|transparent|2M|1G")
      ->capture_default_str();
  run->add_option("--pin", options.pin, "CPUs of the host, as 0-3,8; vCPUs are bound to them in turn")
      ->type_name("CPUS");
  run->add_option("--seccomp", options.seccomp,
                  "take system calls that they do not need from the threads that serve the guest")
      ->type_name("on|off")
      ->capture_default_str();
  run->add_option("--confidential", options.confidential,
                  "none: a plain guest on the same machine, nothing encrypted or measured")
      ->type_name("sev-es|none")
      ->capture_default_str();
  run->add_option("--init-api", options.init_api,
                  "the KVM call that makes the guest; the launch digest depends on it.\n"
                  "auto: init2 if the kernel has it (Linux 6.10), else es-init")
      ->type_name("es-init|init2|auto")
      ->capture_default_str();
  run->add_option("--irqchip", options.irqchip,
                  "split: the host has the local APICs only; the IOAPIC is a device of this program,\n"
                  "and the machine has neither PICs nor a PIT")
      ->type_name("kernel|split")
      ->capture_default_str();
  add_owner_options(*run, options.owner);
  run->add_option("--log-level", options.log_level, std::string("least level of what is said here: ") + kLogLevels)
      ->type_name("LEVEL")
      ->capture_default_str();
  run->add_option("--json", options.json, "write a report about the run when it has ended")->type_name("FILE");
  add_host_wrapper_options(*run, options.wrappers);
  run->add_option("--check", options.check,
                  "look for what hardware lets pass and an auditor would not (docs/check.md); emulated host only.\n"
                  "fail: end with 33 if there is any (default: report)")
      ->type_name("report|fail")
      ->expected(0, 1)
      ->default_str("report");
  run->add_option("--trace", options.trace,
                  "write what passes between guest, host and Secure Processor; 'sevisor trace FILE' sums it up")
      ->type_name("FILE");
  run->add_option("--dump-memory", options.dump_memory,
                  "write the guest's RAM when the run has ended, encrypted as it is; zero pages become holes")
      ->type_name("FILE");
}

// `report_file`: of --json, if it is given. Returns the exit code; `reported` is set once the report is written.
int run_guest_of(const CLI::App& command, const RunOptions& options, const std::optional<vmm::ReportFile>& report_file,
                 bool& reported) {
  // Everything that can be wrong is looked at before a host or guest exists.
  vmm::RunConfig config;
  check_host_name(options.host);
  const emulator::Personality* personality = parse_personality(options.kvm);
  config.confidential = parse_confidential(command, options);
  const bool plain = config.confidential == vmm::Confidential::kNone;
  config.init_api = parse_init_api(options.init_api);
  config.irqchip = parse_irqchip(options.irqchip);
  if (options.seccomp != "on" && options.seccomp != "off") {
    refuse("--seccomp", options.seccomp, "no such choice", "Choose on or off.");
  }
  config.confine = options.seccomp == "on";
  config.huge_pages = parse_huge_pages(options.hugepages);
  if (command.count("--pin") != 0) config.pin = vmm::parse_cpu_list(options.pin);
  config.policy = sev::parse_policy(options.policy);
  sev::require_sev_es_policy(config.policy);
  config.vcpus = parse_number<unsigned>("--cpus", options.cpus, 1, kMaxVcpus);
  // A plain guest sees the host's own processor unless it is told otherwise.
  if (!plain || command.count("--cpu-type") != 0) {
    config.cpu_signature = sev::cpu_signature(sev::find_cpu_type(options.cpu_type));
    config.cpu_model = vmm::find_cpu_model(options.cpu_type);
  }
  config.memory = vmm::parse_size("--memory", options.memory);
  (void)vmm::make_memory_map(config.memory);
  if (command.count("--timeout") != 0) config.end.timeout = parse_timeout("--timeout", options.timeout);
  config.end.power_off_time = parse_power_off_time(command, options);
  if (command.count("--expect") != 0) config.expect = options.expect;
  const std::optional<std::int64_t> rtc_time = parse_rtc(options.rtc);
  if (config.expect) vmm::check_expect(*config.expect);
  vmm::RecentEvents recent;
  kvm::Observers observers;
  observers.add(recent);
  std::optional<vmm::TraceWriter> trace;
  std::optional<vmm::MemoryDump> memory_dump;
  if (command.count("--dump-memory") != 0) config.memory_dump = &memory_dump.emplace(options.dump_memory);

  std::optional<std::string> initrd_dropped;
  if (command.count("--kernel") == 0) {
    if (command.count("--firmware") == 0) {
      throw Error(ExitCode::kBadUsage, "start a guest", "no kernel is given", "Give a kernel with --kernel.");
    }
    if (command.count("--initrd") + command.count("--append") + command.count("--kernel-hashes") != 0) {
      throw Error(ExitCode::kBadUsage, "use --initrd, --append and --kernel-hashes",
                  "they go with a kernel, and none is given", "Give a kernel with --kernel.");
    }
  } else {
    config.kernel_name = options.kernel;
    config.kernel = vmm::read_input_file("kernel", options.kernel, kMaxKernelSize);
    config.cmdline = options.append;
    if (command.count("--initrd") != 0) {
      config.initrd = vmm::read_input_file("initrd", options.initrd, kMaxInitrdSize);
      const vmm::InitrdFindings found = vmm::look_at_initrd(*config.initrd);
      if (found.cut_off) {
        throw Error(ExitCode::kBadUsage, fmt::format("use the initrd '{}'", options.initrd),
                    *found.cut_off + ": it is truncated, or what follows stands where it cannot",
                    "Give a whole initrd with --initrd.");
      }
      initrd_dropped = found.dropped;
    }
  }
  config.firmware = command.count("--firmware") != 0 ? read_firmware(options.firmware) : built_in_firmware();
  if (!is_built_in(config.firmware)) config.booted_by = vmm::BootedBy::kOther;
  std::optional<vmm::VariableStore> variables = open_variables(command, options);
  if (variables) config.variables = &*variables;
  if (config.kernel != nullptr) config.kernel_hashes = wants_kernel_hashes(options, config.firmware);
  read_session(options.owner, config);
  std::optional<vmm::ReportFile> launch_file;
  if (command.count("--launch-report") != 0) launch_file.emplace(options.owner.launch_report, "--launch-report");

  vmm::ReportContents report{
      .host = {}, .policy = config.policy, .cpus = config.vcpus, .cpu_type = options.cpu_type, .launch = {}};
  bool told = false;
  // Once a launch: before the secret is waited for if there is to be one, else when the guest is launched.
  const auto launched = [&](const vmm::LaunchReport& launch) {
    if (std::exchange(told, true)) return;
    report.launch = launch;
    if (!plain) report_launch(launch, config.policy);
    if (launch_file) launch_file->write(vmm::json_launch_report(report));
    // Said once nothing can be refused any more.
    if (initrd_dropped) spdlog::warn("the initrd '{}': {}", options.initrd, *initrd_dropped);
    warn_of_silent_firmware(options, config);
    if (config.kernel != nullptr && prints_nothing(*config.kernel, config.cmdline)) {
      spdlog::warn("--append has no console=ttyS0: Linux will print nothing here");
    }
  };
  config.secret = make_secret_source(options.owner, config.end.timeout, launched);
  vmm::check_run_config(config);
  if (variables && command.count("--vars") == 0) {
    spdlog::info("the firmware's variables are a copy of '{}', forgotten at the end; --vars keeps them",
                 variables->path());
  }

  if (command.count("--trace") != 0) observers.add(trace.emplace(options.trace));
  std::optional<vmm::GuestChecker> checker;
  if (command.count("--check") != 0) {
    if (options.check != "report" && options.check != "fail") {
      refuse("--check", options.check, "no such choice", "Choose one of report, fail.");
    }
    observers.add(checker.emplace());
    config.checker = &*checker;
  }
  const HostWishes wishes{
      .known = options.owner.has_session(), .check = checker.has_value(), .personality = personality};
  const WrappedHost wrapped(
      plain ? plain_host(options.host, wishes, observers) : choose_host(options.host, wishes, observers),
      options.wrappers);
  kvm::Host& host = wrapped.host();
  report.host = host.name();
  if (trace) trace->describe_run(report.host, config.vcpus);
  config.rtc_time = rtc_time.value_or(host.name() == "emulated" ? kVirtualRtcTime : *parse_rtc("now"));

  vmm::Outcome outcome = vmm::run_guest(host, config, launched);
  std::vector<vmm::Finding> findings;
  if (checker) {
    findings = checker->findings();
    report_findings(findings);
    if (options.check == "fail" && !findings.empty() && outcome.code == 0) {
      outcome = {ExitCode::kCrash, fmt::format("{}, but --check found {} things", outcome.reason, findings.size())};
    }
  }
  const std::vector<std::string> history = outcome.vcpu ? recent.describe(*outcome.vcpu) : std::vector<std::string>{};
  report_end(outcome, history);
  // The report is written whatever else is lost, and says so.
  std::optional<Error> lost;
  const auto finish = [&](auto& output) {
    try {
      output.finish();
    } catch (const Error& error) {
      if (!lost) outcome = {error.exit_code(), fmt::format("{}, but: {}", outcome.reason, error.what())};
      lost = error;
    }
  };
  finish(wrapped);
  if (trace) finish(*trace);
  if (report_file) report_file->write(vmm::json_report(report, outcome, history, checker ? &findings : nullptr));
  reported = true;
  if (lost) throw *lost;
  return outcome.code;
}

// A report that an earlier run has left would be taken for this run's.
void report_failure(const vmm::ReportFile& file, const std::exception& error) {
  const auto* known = dynamic_cast<const Error*>(&error);
  const ExitCode code = known != nullptr ? known->exit_code() : ExitCode::kCrash;
  try {
    file.write(vmm::json_failure_report({code, error.what()}));
  } catch (const Error& second) {
    if (std::string_view(second.what()) != error.what()) spdlog::error("{}", second.what());
  }
}

int run_command(const CLI::App& command, const RunOptions& options) {
  set_up_log(options.log_level);
  require_distinct_files(
      command, {"--kernel", "--initrd", "--firmware", "--dh-cert", "--session", "--secret-header", "--secret-payload"},
      {"--vars", "--json", "--launch-report", "--record", "--trace", "--dump-memory"});
  std::optional<vmm::ReportFile> report_file;
  if (command.count("--json") != 0) report_file.emplace(options.json, "--json");
  bool reported = false;
  try {
    return run_guest_of(command, options, report_file, reported);
  } catch (const std::exception& error) {
    if (report_file && !reported) report_failure(*report_file, error);
    throw;
  }
}

}  // namespace

Command add_run_command(CLI::App& app) {
  const auto options = std::make_shared<RunOptions>();
  CLI::App* run = app.add_subcommand("run", "Start an SEV-ES guest and connect its serial console");
  add_options(run, *options);
  return {run, [run, options] { return run_command(*run, *options); }};
}

}  // namespace sevisor::cli
