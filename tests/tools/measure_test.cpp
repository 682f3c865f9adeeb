// `sevisor measure` prints what sev-snp-measure prints, given the same options.
#include <algorithm>

#include "tool.hpp"

using namespace sevisor;
using namespace sevisor::test;
using nlohmann::json;

namespace {

bool is_file_option(const std::string& option) {
  return option == "--ovmf" || option == "--kernel" || option == "--initrd";
}

// The vector's options with the inputs as they are on this machine; nullopt if one is not.
std::optional<std::vector<std::string>> options_of(const json& vector, Vectors& vectors) {
  std::vector<std::string> args = vector["args"];
  for (std::size_t i = 0; i + 1 < args.size(); ++i) {
    if (!is_file_option(args[i])) continue;
    auto path = vectors.input(args[i + 1]);
    // A refusal is for the firmware's sake: any file will do for the kernel.
    if (!path && vector["rc"] != 0 && args[i] == "--kernel") path = vectors.input("inputs/kernel-70001.bin");
    if (!path) return std::nullopt;
    args[i + 1] = *path;
  }
  return args;
}

std::string synth(const char* name) { return std::string(SEVISOR_SOURCE_DIR) + "/tests/data/measurement/fw/" + name; }
std::string input(const char* name) {
  return std::string(SEVISOR_SOURCE_DIR) + "/tests/data/measurement/inputs/" + name;
}

std::vector<std::string> measure(std::vector<std::string> args) {
  args.insert(args.begin(), "measure");
  return args;
}

}  // namespace

TEST_CASE("measure refuses a kernel that run refuses: what only UEFI starts, without it") {
  const WorkFolder folder;
  Bytes image(1000);
  image[0] = std::byte{'M'};
  image[1] = std::byte{'Z'};
  image[0x3c] = std::byte{0x80};
  image[0x80] = std::byte{'P'};
  image[0x81] = std::byte{'E'};
  put_file(folder / "uki.efi", image);
  const std::vector<std::string> measure = {"measure",     "--mode",  "seves",    "--vcpus", "1",
                                            "--vcpu-type", "EPYC-v4", "--kernel", "uki.efi"};
  check_refused(sevisor::test::sevisor(folder, measure), "EFI application");
  check_refused(sevisor::test::sevisor(folder, {"run", "--host", "emulated", "--kernel", "uki.efi"}),
                "EFI application");
}

TEST_CASE("measure prints the digests of sev-snp-measure, and in the form of KVM_SEV_ES_INIT those of others") {
  const WorkFolder folder;
  Vectors vectors(folder);
  unsigned checked = 0;
  unsigned skipped = 0;
  for (const json& vector : vectors["digest_vectors"]) {
    const std::string name = vector["args"].dump();
    const auto given = options_of(vector, vectors);
    if (!given) {
      ++skipped;
      continue;
    }
    CAPTURE(name);
    ++checked;
    std::vector<std::string> args = measure(*given);
    if (vector["rc"] != 0) {
      check_refused(sevisor::test::sevisor(folder, args));
      continue;
    }
    std::vector<std::string> init2 = args;
    init2.insert(init2.end(), {"--init-api", "init2"});
    const Result result = sevisor::test::sevisor(folder, init2);
    CHECK(result.code == 0);
    CHECK(result.out == vector["launch_digest"].get<std::string>());
    CHECK(result.err.empty());
    // Without the option: KVM_SEV_ES_INIT. A SEV guest has no VMSA and the clouds' have no FPU state in either.
    const bool has_other = vector.contains("launch_digest_kvm_sev_es_init");
    CHECK(sevisor::test::sevisor(folder, args).out ==
          vector[has_other ? "launch_digest_kvm_sev_es_init" : "launch_digest"].get<std::string>());
  }
  if (skipped != 0) {
    skip(
        std::to_string(skipped) + " of " + std::to_string(checked + skipped) +
        " digest vectors by the command, for want of their files; the test 'sev' computes them from the files' hashes");
  }
  CHECK(checked >= 8);  // those whose inputs are all in this repository
}

TEST_CASE("measure writes digests as base64 and VMSAs as files") {
  const WorkFolder folder;
  const std::vector<std::string> args =
      measure({"--mode", "seves", "--vcpus", "3", "--vcpu-type", "EPYC-v4", "--ovmf", synth("synth-full.fd"),
               "--init-api", "init2", "--dump-vmsa", "--output-format", "base64"});
  const Result result = sevisor::test::sevisor(folder, args);
  CHECK(result.code == 0);
  const auto digest = sev::from_base64(result.out);
  REQUIRE(digest);
  CHECK(digest->size() == 32);
  // sev-snp-measure --dump-vmsa: pages with reset vector 0xfffffff0 and 0x80b004, EPYC-v4.
  const auto hash_of = [&](const char* name) { return sev::to_hex(sev::sha256(read_file(folder / name).value())); };
  CHECK(hash_of("vmsa0.bin") == "8295cef559b57130391d59605890ef93297720b48bef9a8c3c985b9c3fb0788c");
  CHECK(hash_of("vmsa1.bin") == "7ff723da33f39dedbe8336bb697e0a2f76471690074d5902e1a8177cd5312c95");
  CHECK(hash_of("vmsa2.bin") == "7ff723da33f39dedbe8336bb697e0a2f76471690074d5902e1a8177cd5312c95");
  CHECK_FALSE(read_file(folder / "vmsa3.bin"));
  // A second time, as sev-snp-measure does it: they are replaced.
  put_file(folder / "vmsa1.bin", Bytes(3));
  CHECK(sevisor::test::sevisor(folder, args).code == 0);
  CHECK(hash_of("vmsa1.bin") == "7ff723da33f39dedbe8336bb697e0a2f76471690074d5902e1a8177cd5312c95");
}

TEST_CASE("measure tells all parts as JSON") {
  const WorkFolder folder;
  Vectors vectors(folder);
  // A TIK of sev-tool's known answer.
  const json& known = vectors["measure_vectors"][0];
  put_file(folder / "tik", sev::from_hex(known["tik"].get<std::string>()).value());
  const Result result = sevisor::test::sevisor(
      folder, measure({"--mode", "seves", "--vcpus", "64", "--vcpu-sig", "0x800f12", "--ovmf", synth("synth-full.fd"),
                       "--kernel", input("empty.bin"), "--output-format", "json"}));
  check_refused(result, "it is empty");

  const Result full = sevisor::test::sevisor(folder, measure({"--mode",          "seves",
                                                              "--vcpus",         "2",
                                                              "--vcpu-sig",      "0x800f12",
                                                              "--ovmf",          synth("synth-full.fd"),
                                                              "--kernel",        input("kernel-70001.bin"),
                                                              "--output-format", "json",
                                                              "--tik",           "tik",
                                                              "--api-major",     "1",
                                                              "--api-minor",     "55",
                                                              "--build-id",      "21",
                                                              "--policy",        "0x5",
                                                              "--nonce",         "000102030405060708090a0b0c0d0e0f"}));
  REQUIRE(full.code == 0);
  const json parts = json::parse(full.out);
  const auto sha256_of_input = [&](const char* name) { return vectors["inputs"][name]["sha256"]; };
  CHECK(parts["firmware"]["sha256"] == sha256_of_input("fw/synth-full.fd"));
  CHECK(parts["hashes_table"]["kernel_sha256"] == sha256_of_input("inputs/kernel-70001.bin"));
  CHECK(parts["hashes_table"]["initrd_sha256"] == sha256_of_input("inputs/empty.bin"));
  CHECK(parts["hashes_table"]["address"] == "0x810c00");
  CHECK(parts["vmsa"]["first_vcpu"]["sha256"] == vectors["vmsa_pages"][3]["sha256"]);
  CHECK(parts["vmsa"]["other_vcpus"]["sha256"] == vectors["vmsa_pages"][4]["sha256"]);
  CHECK(parts["vmsa"]["other_vcpus"]["count"] == 1);
  const std::string measurement = parts["measurement"];
  CHECK(sev::to_hex(sev::from_base64(measurement).value()).substr(64) == "000102030405060708090a0b0c0d0e0f");
  CHECK_THAT(full.out, !Catch::Contains(known["tik"].get<std::string>()));
}

TEST_CASE("measure refuses what would give a wrong digest") {
  const WorkFolder folder;
  const auto refused = [&](std::vector<std::string> args, const std::string& text) {
    check_refused(sevisor::test::sevisor(folder, measure(std::move(args))), text);
  };
  const std::string full = synth("synth-full.fd");
  for (const char* vcpus : {"0", "100000", "-1", "two", "", "1.5", "18446744073709551617"}) {
    CAPTURE(vcpus);
    check_refused(sevisor::test::sevisor(
        folder, measure({"--mode", "seves", "--ovmf", full, "--vcpu-type", "EPYC", "--vcpus", vcpus})));
  }
  refused({"--mode", "snp", "--ovmf", full}, "no such choice");
  refused({"--mode", "seves", "--ovmf", full, "--vcpu-type", "EPYC"}, "--vcpus");
  refused({"--mode", "seves", "--ovmf", full, "--vcpus", "1"}, "--vcpu-type");
  refused({"--mode", "seves", "--ovmf", full, "--vcpus", "1", "--vcpu-type", "Pentium"}, "no such type");
  refused({"--mode", "seves", "--ovmf", full, "--vcpus", "1", "--vcpu-family", "25"}, "only a part");
  refused({"--mode", "seves", "--ovmf", full, "--vcpus", "1", "--vcpu-type", "EPYC", "--vcpu-model", "1"},
          "only a part");
  refused({"--mode", "seves", "--ovmf", full, "--vcpus", "1", "--vcpu-type", "EPYC", "--vmm-type", "Xen"}, "no such");
  refused({"--mode", "seves", "--ovmf", full, "--vcpus", "1", "--vcpu-sig", "0x1ffffffff"}, "not a number");
  // Zero, or no, reset address and more than one vCPU.
  refused({"--mode", "seves", "--ovmf", synth("synth-zeroreset.fd"), "--vcpus", "2", "--vcpu-type", "EPYC"},
          "address 0");
  refused({"--mode", "seves", "--ovmf", synth("synth-noreset.fd"), "--vcpus", "2", "--vcpu-type", "EPYC"},
          "no SEV-ES reset block");
  refused({"--mode", "seves", "--ovmf", synth("synth-nofooter.fd"), "--vcpus", "2", "--vcpu-type", "EPYC"},
          "there is none");
  refused({"--mode", "sev", "--ovmf", full, "--append", "quiet"}, "they go with a kernel");
  refused({"--mode", "sev", "--ovmf", full, "--dump-vmsa"}, "has none");
  refused({"--mode", "sev", "--ovmf", "/nonexistent"}, "No such file");
  refused({"--mode", "sev", "--ovmf", full, "--kernel", "/nonexistent"}, "No such file");
  refused({"--mode", "sev", "--ovmf", full, "--kernel", input("kernel-70001.bin"), "--initrd", "/"}, "regular file");
  refused({"--mode", "sev", "--ovmf", full, "--output-format", "xml"}, "no such choice");
  refused({"--mode", "sev", "--ovmf", full, "--ovmf-hash", std::string(64, '0')}, "not what --ovmf-hash says");
  refused({"--mode", "sev", "--ovmf", full, "--ovmf-hash", "abc"}, "not hexadecimal");
  refused({"--mode", "sev", "--ovmf", full, "--tik", "x"}, "--api-major is not given");
}

TEST_CASE("measure takes our own firmware when none is named") {
  const WorkFolder folder;
  const Result result = sevisor::test::sevisor(
      folder, measure({"--mode", "seves", "--vcpus", "2", "--vcpu-type", "EPYC-v4", "--output-format", "json"}));
  REQUIRE(result.code == 0);
  const json parts = json::parse(result.out);
  CHECK(parts["firmware"]["file"] == "built in");
  CHECK(parts["firmware"]["size"] == 65536);
}
