// The guest owner's part of a launch: session in, report out, secret in, all in the kernel's order.
#include <algorithm>
#include <catch2/catch.hpp>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "base/error.hpp"
#include "tests/vmm/scripted_host.hpp"
#include "vmm/launch/firmware_check.hpp"
#include "vmm/launch/launch.hpp"
#include "vmm/machine/memory_map.hpp"

using namespace sevisor;
using namespace sevisor::vmm;
using sevisor::test::ScriptedHost;

namespace {

constexpr std::uint64_t kMemory = 64 << 20;
constexpr std::uint32_t kSecretArea = 0x810000;  // synth-full.fd's, of 0xc00 bytes

std::vector<std::byte> firmware(const char* name) {
  std::ifstream file(std::string(SEVISOR_SOURCE_DIR) + "/tests/data/measurement/fw/" + name, std::ios::binary);
  const std::vector<char> chars{std::istreambuf_iterator<char>(file), {}};
  const auto view = std::as_bytes(std::span(chars));
  return {view.begin(), view.end()};
}

void answer_as_sev_host(ScriptedHost& host) {
  host.answers[KVM_CHECK_EXTENSION] = [](void*) { return 16; };
  sevisor::test::answer_cpuid_with_sev_es(host);
}

template <class Data>
Data data_of(void* argument) {
  Data data;
  std::memcpy(&data, reinterpret_cast<const void*>(static_cast<const kvm_sev_cmd*>(argument)->data), sizeof data);
  return data;
}

}  // namespace

TEST_CASE("session and secret go to the platform in their places") {
  ScriptedHost host;
  answer_as_sev_host(host);
  const GuestRam ram(make_memory_map(kMemory));
  const auto image = firmware("synth-full.fd");
  const std::vector<std::byte> certificate(2084, std::byte{1});
  const std::vector<std::byte> session(128, std::byte{2});
  const sev::SecretPacket packet{sev::SecretHeader{std::byte{3}}, std::vector<std::byte>(64, std::byte{4})};
  std::vector<std::uint32_t> order;
  host.sev_answers[KVM_SEV_LAUNCH_START] = [&](void* argument) {
    const auto start = data_of<kvm_sev_launch_start>(argument);
    CHECK(start.dh_uaddr == reinterpret_cast<std::uintptr_t>(certificate.data()));
    CHECK(start.dh_len == 2084);
    CHECK(start.session_uaddr == reinterpret_cast<std::uintptr_t>(session.data()));
    CHECK(start.session_len == 128);
    order.push_back(KVM_SEV_LAUNCH_START);
    return 0;
  };
  for (const std::uint32_t id : {KVM_SEV_LAUNCH_MEASURE, KVM_SEV_LAUNCH_FINISH}) {
    host.sev_answers[id] = [&order, id](void*) {
      order.push_back(id);
      return 0;
    };
  }
  host.sev_answers[KVM_SEV_LAUNCH_SECRET] = [&](void* argument) {
    const auto secret = data_of<kvm_sev_launch_secret>(argument);
    CHECK(secret.guest_uaddr == reinterpret_cast<std::uintptr_t>(ram.regions().front().memory.data() + kSecretArea));
    CHECK(secret.guest_len == 64);
    CHECK(secret.trans_len == 64);
    CHECK(secret.hdr_len == 52);
    CHECK(std::memcmp(reinterpret_cast<const void*>(secret.hdr_uaddr), packet.header.data(), 52) == 0);
    CHECK(std::memcmp(reinterpret_cast<const void*>(secret.trans_uaddr), packet.payload.data(), 64) == 0);
    order.push_back(KVM_SEV_LAUNCH_SECRET);
    return 0;
  };
  LaunchConfig config{5, 2, 0x00800f12, {image, "synth"}};
  config.owner_certificate = certificate;
  config.session = session;
  constexpr std::uint32_t kAsked = 1000;  // the source of the secret, with the digest known
  config.secret = [&](const LaunchReport& report) {
    CHECK(report.digest != sev::Digest{});
    order.push_back(kAsked);
    return packet;
  };
  (void)launch(host, ram, config);
  CHECK(order == std::vector<std::uint32_t>{KVM_SEV_LAUNCH_START, KVM_SEV_LAUNCH_MEASURE, kAsked, KVM_SEV_LAUNCH_SECRET,
                                            KVM_SEV_LAUNCH_FINISH});
}

TEST_CASE("a secret without a place, or too large for it, ends the launch") {
  ScriptedHost host;
  answer_as_sev_host(host);
  const auto image = firmware("synth-full.fd");
  sev::SecretPacket packet{{}, std::vector<std::byte>(0xc10)};
  LaunchConfig config{5, 2, 0x00800f12, {image, "synth"}};
  config.secret = [&](const LaunchReport&) { return packet; };
  const GuestRam ram(make_memory_map(kMemory));
  CHECK_THROWS_AS(launch(host, ram, config), Error);
  CHECK(std::ranges::find(host.calls, "SEV 7") == host.calls.end());  // never finished, so never run
  packet.payload.resize(0xc00);
  CHECK_NOTHROW(launch(host, ram, config));

  const auto without = firmware("synth-highreset.fd");
  config.firmware = {without, "synth"};
  CHECK_THROWS_AS(launch(host, ram, config), Error);
  CHECK_THROWS_AS(check_secret_area({image, "synth"}, kSecretArea + 0xbff), Error);
  CHECK(check_secret_area({image, "synth"}, kSecretArea + 0xc00).base == kSecretArea);
}

TEST_CASE("a session that the platform refuses is a bad file, not a bad host") {
  ScriptedHost host;
  answer_as_sev_host(host);
  host.sev_answers[KVM_SEV_LAUNCH_START] = [](void* argument) {
    static_cast<kvm_sev_cmd*>(argument)->error = 11;  // BAD_MEASUREMENT
    return -EIO;
  };
  const GuestRam ram(make_memory_map(kMemory));
  const auto image = firmware("synth-full.fd");
  try {
    (void)launch(host, ram, {5, 1, 0x00800f12, {image, "synth"}});
    FAIL("it was not refused");
  } catch (const Error& error) {
    CHECK(error.exit_code() == ExitCode::kBadUsage);
    CHECK_THAT(error.what(), Catch::Contains("BAD_MEASUREMENT") && Catch::Contains("session"));
  }
}

TEST_CASE("certificates are exported in two steps, whatever lengths the platform tells") {
  ScriptedHost host;
  unsigned calls = 0;
  std::uint32_t chain_length = 6252;
  host.answers[SEV_ISSUE_CMD] = [&](void* argument) {
    auto* command = static_cast<sev_issue_cmd*>(argument);
    CHECK(command->cmd == SEV_PDH_CERT_EXPORT);
    sev_user_data_pdh_cert_export data;
    std::memcpy(&data, reinterpret_cast<const void*>(command->data), sizeof data);
    data.pdh_cert_len = 2084;
    data.cert_chain_len = chain_length;
    std::memcpy(reinterpret_cast<void*>(command->data), &data, sizeof data);
    if (++calls % 2 == 1) {
      command->error = 4;  // INVALID_LEN
      return -EIO;
    }
    std::memset(reinterpret_cast<void*>(data.pdh_cert_address), 7, data.pdh_cert_len);
    return 0;
  };
  const auto sev = kvm::SevDevice::open(host);
  const kvm::ExportedCertificates exported = sev.export_certificates();
  CHECK(exported.pdh.size() == 2084);
  CHECK(exported.pdh[2083] == std::byte{7});
  CHECK(exported.chain.size() == 6252);
  chain_length = 0xffffffff;
  CHECK_THROWS_AS(sev.export_certificates(), Error);
}
