// The measurement against values that other programs computed (tests/data/measurement/measurement.json says which).
// A vector whose input file is absent or another version is skipped by name.
#include <catch2/catch.hpp>
#include <cstdint>
#include <fstream>
#include <iomanip>
#include <iterator>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <sstream>
#include <string>
#include <vector>

#include "base/error.hpp"
#include "sev/cpu_type.hpp"
#include "sev/encoding.hpp"
#include "sev/footer_table.hpp"
#include "sev/hashes_table.hpp"
#include "sev/initial_vmsa.hpp"
#include "sev/launch_digest.hpp"
#include "sev/measurement.hpp"
#include "sev/policy.hpp"
#include "sev/verification.hpp"

using namespace sevisor;
using namespace sevisor::sev;
using nlohmann::json;

namespace {

using Bytes = std::vector<std::byte>;

const std::string kFolder = std::string(SEVISOR_SOURCE_DIR) + "/tests/data/measurement/";

std::optional<Bytes> read_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) return std::nullopt;
  const std::vector<char> chars{std::istreambuf_iterator<char>(file), {}};
  const auto view = std::as_bytes(std::span(chars));
  return Bytes(view.begin(), view.end());
}

const json& vectors() {
  static const json kVectors = json::parse(std::ifstream(kFolder + "measurement.json"));
  return kVectors;
}

// An input by the name it has in the vectors; nullopt if it is not here or has another hash.
std::optional<Bytes> input(const std::string& name, const std::string& expected_sha256) {
  std::optional<Bytes> bytes;
  if (const auto patch = vectors()["hash_area_patch"].find(name); patch != vectors()["hash_area_patch"].end()) {
    bytes = read_file(patch->at(0));
    const std::size_t offset = std::stoul(patch->at(1).get<std::string>(), nullptr, 16);
    const auto area = from_hex(vectors()["hash_area_patch"]["bytes_hex"].get<std::string>());
    if (!bytes || offset + area->size() > bytes->size()) return std::nullopt;
    std::copy(area->begin(), area->end(), bytes->begin() + static_cast<std::ptrdiff_t>(offset));
  } else {
    bytes = read_file(name.starts_with('/') ? name : kFolder + name);
  }
  if (!bytes || to_hex(sha256(*bytes)) != expected_sha256) return std::nullopt;
  return bytes;
}

template <std::size_t N>
std::array<std::byte, N> array_from_hex(const std::string& text) {
  const auto bytes = from_hex(text);
  REQUIRE(bytes);
  REQUIRE(bytes->size() == N);
  std::array<std::byte, N> array{};
  std::copy(bytes->begin(), bytes->end(), array.begin());
  return array;
}

// The hashes of kernel, initrd and command line that a vector's options stand for: the files need not be here.
KernelHashes kernel_hashes(const json& vector) {
  const std::string cmdline = vector["append"].is_null() ? "" : vector["append"].get<std::string>();
  KernelHashes hashes{cmdline_hash(cmdline), sha256({}), array_from_hex<32>(vector["kernel_sha256"])};
  if (vector.contains("initrd")) hashes.initrd = array_from_hex<32>(vector["initrd_sha256"]);
  return hashes;
}

VmmType vmm_type(const json& vector) {
  if (vector["vmm_type"] == "ec2") return VmmType::kEc2;
  if (vector["vmm_type"] == "gce") return VmmType::kGce;
  return VmmType::kQemu;
}

}  // namespace

TEST_CASE("VMSA pages are QEMU's") {
  unsigned checked = 0;
  for (const json& page : vectors()["vmsa_pages"]) {
    const auto address = static_cast<std::uint32_t>(std::stoul(page["eip"].get<std::string>(), nullptr, 16));
    const auto signature = static_cast<std::uint32_t>(std::stoul(page["rdx_in"].get<std::string>(), nullptr, 16));
    const Vmsa vmsa = initial_vmsa(address, signature, page["fpu"] ? VmsaForm::kInit2 : VmsaForm::kEsInit);
    CAPTURE(page["eip"].get<std::string>());
    CHECK(to_hex(sha256(std::as_bytes(std::span(&vmsa, 1)))) == page["sha256"].get<std::string>());
    ++checked;
  }
  CHECK(checked == 6);
}

TEST_CASE("launch digests agree with other programs, in both forms") {
  unsigned checked = 0;
  for (const json& vector : vectors()["digest_vectors"]) {
    const std::string name = vector["args"].dump();
    const auto firmware = input(vector["firmware"], vector["firmware_sha256"]);
    if (!firmware) {
      WARN("SKIP: the firmware is absent or another version: " << name);
      continue;
    }
    CAPTURE(name);
    ++checked;
    if (vector["rc"] != 0) {
      if (vector.contains("kernel")) CHECK_THROWS_AS(require_hashes_area(parse_footer_table(*firmware)), Error);
      continue;  // else options of that program which contradict each other
    }
    Sha256 hash;
    hash.update(*firmware);
    if (vector.contains("kernel")) {
      CHECK_NOTHROW(require_hashes_area(parse_footer_table(*firmware)));
      hash.update(make_hashes_table(kernel_hashes(vector)));
    }
    if (vector["mode"] == "sev") {
      CHECK(to_hex(hash.finish()) == vector["launch_digest"].get<std::string>());
      continue;
    }
    VmsaKind kind{.vmm = vmm_type(vector), .form = VmsaForm::kInit2};
    if (vector.contains("rdx")) {
      kind.cpu_signature = static_cast<std::uint32_t>(std::stoul(vector["rdx"].get<std::string>(), nullptr, 16));
      if (!vector["vcpu_type"].is_null() && kind.vmm == VmmType::kQemu) {
        CHECK(cpu_signature(find_cpu_type(vector["vcpu_type"].get<std::string>())) == kind.cpu_signature);
      }
    }
    const auto vcpus = vector["vcpus"].get<unsigned>();
    const std::uint32_t reset = require_ap_reset_address(parse_footer_table(*firmware));
    Sha256 other = hash.fork();
    add_vmsas(hash, initial_vmsas(kind, reset), vcpus);
    CHECK(to_hex(hash.finish()) == vector["launch_digest"].get<std::string>());
    if (!vector.contains("launch_digest_kvm_sev_es_init")) continue;
    kind.form = VmsaForm::kEsInit;
    add_vmsas(other, initial_vmsas(kind, reset), vcpus);
    CHECK(to_hex(other.finish()) == vector["launch_digest_kvm_sev_es_init"].get<std::string>());
  }
  WARN(checked << " of " << vectors()["digest_vectors"].size() << " digest vectors checked");
  CHECK(checked >= 12);  // those of the firmware that lies here
}

TEST_CASE("firmware that cannot start a SEV-ES guest is refused") {
  const auto load = [](const char* name) { return read_file(kFolder + name).value(); };
  CHECK_THROWS_AS(parse_footer_table(load("fw/synth-nofooter.fd")), Error);
  CHECK_THROWS_AS(require_ap_reset_address(parse_footer_table(load("fw/synth-noreset.fd"))), Error);
  CHECK_THROWS_AS(require_ap_reset_address(parse_footer_table(load("fw/synth-zeroreset.fd"))), Error);
  CHECK(require_ap_reset_address(parse_footer_table(load("fw/synth-highreset.fd"))) == 0xf2345678);
  const FooterTable full = parse_footer_table(load("fw/synth-full.fd"));
  CHECK(require_ap_reset_address(full) == 0x0080b004);
  CHECK(require_hashes_area(full).base == 0x810c00);
  CHECK(full.secret_area()->size == 0xc00);
}

TEST_CASE("virt-qemu-sev-validate's cases have these launch digests, by the hashes of their files") {
  unsigned checked = 0;
  for (const json& vector : vectors()["validate_cases"]) {
    CAPTURE(vector["name"].get<std::string>());
    std::map<std::string, std::string> options;
    {
      std::istringstream words(vector["cmd"].get<std::string>());
      std::string option;
      for (std::string word; words >> std::quoted(word, '\'');) {
        if (!option.empty()) options[option] = word;
        option = word.starts_with("--") ? word : "";
      }
    }
    const auto number = [&](const char* option) { return static_cast<unsigned>(std::stoul(options.at(option))); };
    const auto hash_of = [&](const std::string& name) {
      return array_from_hex<32>(vectors()["inputs"][name]["sha256"].get<std::string>());
    };
    const std::string firmware_name = options.at("--firmware");
    const auto firmware = input(firmware_name, vectors()["inputs"][firmware_name]["sha256"]);
    if (!firmware) {
      WARN("SKIP: the firmware is absent or another version: " << firmware_name);
      continue;
    }
    ++checked;
    ExpectedGuest guest;
    guest.firmware = *firmware;
    guest.es = (vector["policy"].get<unsigned>() & kPolicyEs) != 0;
    if (options.contains("--kernel")) {
      guest.kernel = KernelHashes{cmdline_hash(options["--cmdline"]), sha256({}), hash_of(options["--kernel"])};
      if (options.contains("--initrd")) guest.kernel->initrd = hash_of(options["--initrd"]);
    }
    if (guest.es) {
      guest.vcpus = number("--num-cpus");
      guest.ap_reset_address = require_ap_reset_address(parse_footer_table(*firmware));
      if (options.contains("--vmsa-cpu0")) {  // as sev-snp-measure writes them, of an EPYC-v4
        guest.vmsa_kind = {.form = VmsaForm::kInit2, .cpu_signature = cpu_signature(find_cpu_type("EPYC-v4"))};
      } else {
        guest.vmsa_kind.cpu_signature =
            cpu_signature(number("--cpu-family"), number("--cpu-model"), number("--cpu-stepping"));
      }
    }
    CHECK(to_hex(expected_digest(guest)) == vector["launch_digest"].get<std::string>());
  }
  CHECK((checked == 7 || checked == 0));  // 0: without Debian's package ovmf
}

TEST_CASE("the hashes table has QEMU's bytes") {
  for (const json& vector : vectors()["hashes_tables"]) {
    const auto table = make_hashes_table({}, {}, vector["cmdline"].get<std::string>());
    CHECK(to_hex(table) == vector["table_hex"].get<std::string>());
  }
}

TEST_CASE("measurements agree with other programs") {
  unsigned checked = 0;
  for (const json& vector : vectors()["measure_vectors"]) {
    const ApiVersion api{vector["api_major"], vector["api_minor"], vector["build"]};
    const auto tik = array_from_hex<kTransportKeySize>(vector["tik"]);
    const auto digest = array_from_hex<32>(vector["digest"]);
    const auto nonce = array_from_hex<kNonceSize>(vector["mnonce"]);
    const Measurement measurement = make_measurement(tik, api, vector["policy"], digest, nonce);
    if (vector.contains("hmac")) {
      CHECK(to_hex(std::span(measurement).first<32>()) == vector["hmac"].get<std::string>());
    }
    if (vector.contains("blob_b64")) CHECK(to_base64(measurement) == vector["blob_b64"].get<std::string>());
    ++checked;
  }
  CHECK(checked == 2);
}

TEST_CASE("before API 0.17 the version is not signed") {
  const TransportKey tik{};
  const Digest digest{};
  const Nonce nonce{};
  // printf of 4 bytes policy 5, 48 zero bytes | openssl dgst -sha256 -mac HMAC -macopt hexkey:00..00 (16 bytes)
  const std::string expected = "aefc2a165471fd5b9c05fa36c2a907c60b4c1ee3b57091eb78e797fd4bc126a7";
  CHECK(to_hex(measurement_hmac(tik, {0, 16, 1}, 5, digest, nonce)) == expected);
  CHECK(to_hex(measurement_hmac(tik, {0, 16, 2}, 5, digest, nonce)) == expected);
  CHECK(to_hex(measurement_hmac(tik, {0, 17, 1}, 5, digest, nonce)) != expected);
}
