#include "vmm/cli/run_owner.hpp"

#include <csignal>
#include <fmt/format.h>
#include <spdlog/spdlog.h>
#include <thread>
#include <unistd.h>
#include <utility>

#include "base/error.hpp"
#include "sev/certificate.hpp"
#include "sev/session.hpp"
#include "vmm/cli/key_files.hpp"
#include "vmm/cli/secret_files.hpp"

namespace sevisor::cli {

namespace {

constexpr int kSignalExitBase = 128;  // as shells report a death by signal
constexpr std::chrono::milliseconds kLook = std::chrono::milliseconds(20);

[[noreturn]] void refuse(std::string tried, std::string came_back, std::string advice) {
  throw Error(ExitCode::kBadUsage, std::move(tried), std::move(came_back), std::move(advice));
}

std::vector<std::byte> read_blob(std::string_view what, const std::string& path, std::size_t size) {
  const sev::SecretBytes bytes = read_blob_file(what, path, size);
  return {bytes.begin(), bytes.end()};
}

struct PacketFiles {
  std::string header;
  std::string payload;
};

// What `secret` writes for this NAME, in the form that is there; the raw form while neither is.
PacketFiles packet_files(const OwnerOptions& options) {
  if (options.secret.empty()) return {options.secret_header, options.secret_payload};
  const PacketFiles base64 = {options.secret + "_header.b64", options.secret + "_payload.b64"};
  if (::access(base64.header.c_str(), F_OK) == 0) return base64;
  return {options.secret + "_header.bin", options.secret + "_payload.bin"};
}

bool is_there(const PacketFiles& files) {
  return ::access(files.header.c_str(), F_OK) == 0 && ::access(files.payload.c_str(), F_OK) == 0;
}

// The run has blocked these, to take them from a descriptor later.
void end_on_signal() {
  sigset_t pending;
  ::sigemptyset(&pending);
  ::sigpending(&pending);
  for (const int signal : {SIGINT, SIGTERM, SIGHUP, SIGQUIT}) {
    if (::sigismember(&pending, signal) != 1) continue;
    throw Error(static_cast<ExitCode>(kSignalExitBase + signal), "wait for the guest's secret",
                fmt::format("ended by SIG{}", ::sigabbrev_np(signal)));
  }
}

PacketFiles wait_for_packet(const OwnerOptions& options, std::optional<std::chrono::milliseconds> timeout) {
  const auto begin = std::chrono::steady_clock::now();
  PacketFiles files = packet_files(options);
  if (!is_there(files)) spdlog::info("waiting for the secret: {} and {}", files.header, files.payload);
  while (!is_there(files)) {
    end_on_signal();
    if (timeout && std::chrono::steady_clock::now() - begin > *timeout) {
      throw Error(ExitCode::kTimedOut, "wait for the guest's secret", "it did not come in time",
                  "Raise --timeout, or look why it was not made.");
    }
    std::this_thread::sleep_for(kLook);
    files = packet_files(options);
  }
  return files;
}

}  // namespace

void add_owner_options(CLI::App& run, OwnerOptions& options) {
  run.add_option("--dh-cert", options.dh_cert, "the guest owner's certificate, of 'sevisor session' (base64 or raw)")
      ->type_name("FILE");
  run.add_option("--session", options.session, "the session that belongs to it")->type_name("FILE");
  run.add_option(
         "--secret", options.secret,
         "inject NAME_header and NAME_payload (.bin or .b64), of 'sevisor secret', once the guest is measured;\n"
         "waits for them as long as they are not there")
      ->type_name("NAME");
  run.add_option("--secret-header", options.secret_header, "the same by the files' names: the header")
      ->type_name("FILE");
  run.add_option("--secret-payload", options.secret_payload, "and the payload")->type_name("FILE");
  run.add_option("--launch-report", options.launch_report,
                 "write the report about the launch as soon as the guest is measured, before it runs")
      ->type_name("FILE");
}

void read_session(const OwnerOptions& options, vmm::RunConfig& config) {
  if (options.secret_header.empty() != options.secret_payload.empty()) {
    refuse("inject a secret", "--secret-header and --secret-payload go together", "Give both, or --secret NAME.");
  }
  if (!options.secret.empty() && !options.secret_header.empty()) {
    refuse("inject a secret", "--secret and --secret-header both name its files", "Leave out one of them.");
  }
  const bool secret = !options.secret.empty() || !options.secret_header.empty();
  if (!options.has_session()) {
    if (secret) {
      refuse("inject a secret", "without a session nobody has the guest's keys, so no secret can be made for it",
             "Give --dh-cert and --session.");
    }
    return;
  }
  if (options.dh_cert.empty() || options.session.empty()) {
    refuse("use a session", "--dh-cert and --session go together", "Give both, as 'sevisor session' made them.");
  }
  config.owner_certificate = read_blob("guest owner's certificate", options.dh_cert, sev::kCertificateSize);
  config.session = read_blob("session", options.session, sev::kSessionSize);
  const auto certificate = sev::Certificate::parse(config.owner_certificate, "guest owner");
  const auto damaged = [&](const char* why) {
    refuse(fmt::format("read the guest owner's certificate '{}'", options.dh_cert), why,
           "Give the file as it was made, by 'sevisor session' or another tool.");
  };
  if (certificate.usage() != sev::KeyUsage::kPdh) damaged("its key is not for Diffie-Hellman");
  // sevctl leaves both signatures out; one that is there must be right.
  const std::vector<sev::KeyUsage> signers = certificate.signers();
  if (!signers.empty() && !certificate.is_signed_by(sev::KeyUsage::kPek, certificate.key())) {
    damaged("it is damaged: its signature by itself is not right");
  }
}

vmm::SecretSource make_secret_source(const OwnerOptions& options, std::optional<std::chrono::milliseconds> timeout,
                                     std::function<void(const vmm::LaunchReport&)> launched) {
  if (options.secret.empty() && options.secret_header.empty()) return nullptr;
  return [options, timeout, launched = std::move(launched)](const vmm::LaunchReport& report) {
    launched(report);
    const PacketFiles files = wait_for_packet(options, timeout);
    return read_packet(files.header, files.payload);
  };
}

}  // namespace sevisor::cli
