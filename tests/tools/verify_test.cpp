// `sevisor verify` accepts what virt-qemu-sev-validate accepts, and says in what a launch differs.
#include <algorithm>

#include "sev/cpu_type.hpp"
#include "sev/launch_secret.hpp"
#include "sev/measurement.hpp"
#include "tool.hpp"

using namespace sevisor;
using namespace sevisor::test;
using nlohmann::json;

namespace {

using Words = std::vector<std::string>;

const char* const kTik = "000102030405060708090a0b0c0d0e0f";  // of the vectors
const char* const kTek = "101112131415161718191a1b1c1d1e1f";

std::string data(const char* name) { return std::string(SEVISOR_SOURCE_DIR) + "/tests/data/measurement/" + name; }

void put_keys(const WorkFolder& folder) {
  put_file(folder / "tik.bin", sev::from_hex(kTik).value());
  put_file(folder / "tek.bin", sev::from_hex(kTek).value());
  put_file(folder / "tk.bin", sev::from_hex(std::string(kTek) + kTik).value());
}

// Splits a command line with single quotes.
Words split(const std::string& line) {
  Words words;
  std::string word;
  bool quoted = false;
  for (const char c : line) {
    if (c == '\'') {
      quoted = !quoted;
    } else if (c == ' ' && !quoted) {
      if (!word.empty()) words.push_back(word);
      word.clear();
    } else {
      word += c;
    }
  }
  if (!word.empty()) words.push_back(word);
  return words;
}

std::string digest_of(const WorkFolder& folder, Words args) {
  args.insert(args.begin(), {"measure", "--mode", "seves"});
  const Result result = sevisor::test::sevisor(folder, args);
  REQUIRE(result.code == 0);
  return result.out;
}

// What a platform of API 1.55 build 21 would say of a guest with this digest and policy 5.
std::string measurement_of(const std::string& digest_hex, std::uint32_t policy = 5) {
  sev::TransportKey tik;
  sev::Digest digest;
  std::ranges::copy(sev::from_hex(kTik).value(), tik.begin());
  std::ranges::copy(sev::from_hex(digest_hex).value(), digest.begin());
  return sev::to_base64(sev::make_measurement(tik, {1, 55, 21}, policy, digest, sev::Nonce{}));
}

Words verify(const std::string& measurement, Words more) {
  Words args = {"verify", "--measurement", measurement, "--api-major", "1",      "--api-minor", "55", "--build-id",
                "21",     "--policy",      "5",         "--tik",       "tik.bin"};
  args.insert(args.end(), more.begin(), more.end());
  return args;
}

}  // namespace

TEST_CASE("verify accepts what virt-qemu-sev-validate accepted, and nothing that differs by a bit") {
  const WorkFolder folder;
  Vectors vectors(folder);
  put_keys(folder);
  unsigned checked = 0;
  unsigned skipped = 0;
  for (const json& vector : vectors["validate_cases"]) {
    Words args = split(vector["cmd"].get<std::string>());
    args[0] = "verify";
    bool missing = false;
    for (std::size_t i = 0; i + 1 < args.size(); ++i) {
      if (args[i] == "--firmware" || args[i] == "--kernel" || args[i] == "--initrd") {
        const auto path = vectors.input(args[i + 1]);
        missing |= !path;
        args[i + 1] = path.value_or("");
      }
      if (args[i] == "--vmsa-cpu0" || args[i] == "--vmsa-cpu1") {  // pages as sev-snp-measure writes them
        const auto firmware = vectors.input("/usr/share/OVMF/OVMF_CODE.fd");
        if (!firmware) {
          missing = true;
          continue;
        }
        (void)digest_of(folder, {"--vcpus", "2", "--vcpu-type", "EPYC-v4", "--ovmf", *firmware, "--init-api", "init2",
                                 "--dump-vmsa"});
        args[i + 1] = args[i] == "--vmsa-cpu0" ? "vmsa0.bin" : "vmsa1.bin";
      }
    }
    const std::string name = vector["name"];
    if (missing) {
      ++skipped;
      continue;
    }
    CAPTURE(name);
    const Result result = sevisor::test::sevisor(folder, args);
    CAPTURE(result.err);
    CHECK(result.code == vector["expect"].get<int>());
    CHECK_THAT(result.out, Catch::Contains(vector["launch_digest"].get<std::string>()));
    Words other = args;
    const auto policy = std::find(other.begin(), other.end(), "--policy") + 1;
    *policy = std::to_string(vector["policy"].get<unsigned>() ^ 2U);
    CHECK(sevisor::test::sevisor(folder, other).code == 1);
    ++checked;
  }
  if (skipped != 0) {
    skip(std::to_string(skipped) + " of " + std::to_string(checked + skipped) +
         " cases of virt-qemu-sev-validate by the command, for want of their files; the test 'sev' computes them from "
         "the "
         "files' hashes");
  }
}

TEST_CASE("verify says in what a launch differs") {
  const WorkFolder folder;
  put_keys(folder);
  const std::string firmware = data("fw/synth-full.fd");
  const std::string kernel = data("inputs/kernel-70001.bin");
  const std::string initrd = data("inputs/initrd-1000.bin");
  const Words boot = {"--kernel", kernel, "--initrd", initrd};
  const Words described = {"--firmware", firmware, "--kernel",   kernel, "--initrd",   initrd,
                           "--cmdline",  "quiet",  "--num-cpus", "2",    "--cpu-type", "EPYC-v4"};
  const auto launched = [&](Words args, std::uint32_t policy = 5) {
    args.insert(args.end(), {"--ovmf", firmware});
    return measurement_of(digest_of(folder, args), policy);
  };
  const auto explained = [&](const std::string& measurement, const Words& expected) {
    const Result result = sevisor::test::sevisor(folder, verify(measurement, described));
    CHECK(result.code == 1);
    CHECK(result.out.empty());
    for (const std::string& text : expected) CHECK_THAT(result.err, Catch::Contains(text));
    return std::count(result.err.begin(), result.err.end(), '\n');
  };
  const auto with = [&](Words args, const Words& more) {
    args.insert(args.end(), more.begin(), more.end());
    return args;
  };
  const Words cpus = {"--vcpus", "2", "--vcpu-type", "EPYC-v4"};
  const Words same = with(with(cpus, boot), {"--append", "quiet"});
  CHECK(sevisor::test::sevisor(folder, verify(launched(same), described)).code == 0);

  CHECK(explained(launched(with(same, {"--init-api", "init2"})), {"made by KVM_SEV_INIT2"}) == 3);
  CHECK(explained(launched(with(same, {"--vmsa-features", "0x20"})), {"vmsa_features are 0x20", "DebugSwap"}) == 3);
  for (const char* vcpus : {"1", "3"}) {
    CHECK(explained(launched(with(with({"--vcpus", vcpus, "--vcpu-type", "EPYC-v4"}, boot), {"--append", "quiet"})),
                    {std::string("it has ") + vcpus + " vCPU"}) == 3);
  }
  CHECK(explained(launched(with(with({"--vcpus", "2", "--vcpu-type", "EPYC-Milan"}, boot), {"--append", "quiet"})),
                  {"signature 0xa00f11", "EPYC-Milan"}) == 3);
  CHECK(explained(launched(with(cpus, {"--kernel", kernel, "--append", "quiet"})), {"no initrd"}) == 3);
  CHECK(explained(launched(with(with(cpus, boot), {"--append", "quiet\n"})), {"ends with a newline"}) == 3);
  CHECK(explained(launched(with(cpus, boot)), {"command line is empty"}) == 3);
  CHECK(explained(launched(cpus), {"no hashes table"}) == 3);
  CHECK(explained(launched(same, 7), {"its policy is 0x7"}) == 3);
  // Two at once.
  CHECK(explained(launched(with(with({"--vcpus", "3", "--vcpu-type", "EPYC-v4"}, boot),
                                {"--append", "quiet", "--init-api", "init2"})),
                  {"it has 3 vCPUs, not 2, and it was made by KVM_SEV_INIT2"}) == 3);
  // Another kernel is beyond guessing, and it says so.
  CHECK(explained(launched(with(cpus, {"--kernel", initrd, "--append", "quiet"})), {"none of"}) == 3);

  // Keys the wrong way round.
  Words swapped = verify(launched(same), described);
  *std::ranges::find(swapped, "tik.bin") = "tek.bin";
  swapped.insert(swapped.end(), {"--tek", "tik.bin"});
  const Result result = sevisor::test::sevisor(folder, swapped);
  CHECK(result.code == 1);
  CHECK_THAT(result.err, Catch::Contains("TIK and TEK are swapped"));
  CHECK_THAT(result.err, !Catch::Contains(kTik) && !Catch::Contains(kTek));
}

TEST_CASE("one changed byte of the measurement, the firmware or a key is a mismatch") {
  const WorkFolder folder;
  put_keys(folder);
  const std::string firmware = folder / "fw";
  Bytes image = read_file(data("fw/synth-full.fd")).value();
  put_file(firmware, image);
  const Words guest = {"--firmware", firmware, "--num-cpus", "2", "--cpu-type", "EPYC-v4"};
  const std::string measurement =
      measurement_of(digest_of(folder, {"--vcpus", "2", "--vcpu-type", "EPYC-v4", "--ovmf", firmware}));
  REQUIRE(sevisor::test::sevisor(folder, verify(measurement, guest)).code == 0);
  const Bytes blob = sev::from_base64(measurement).value();
  for (std::size_t i = 0; i < blob.size(); ++i) {
    Bytes other = blob;
    other[i] ^= static_cast<std::byte>(1U << i % 8);
    CHECK(sevisor::test::sevisor(folder, verify(sev::to_base64(other), guest)).code == 1);
  }
  for (const std::size_t at : {std::size_t{0}, image.size() / 2, image.size() - 1}) {
    image[at] ^= std::byte{1};
    put_file(firmware, image);
    CHECK(sevisor::test::sevisor(folder, verify(measurement, guest)).code == 1);
    image[at] ^= std::byte{1};
  }
  put_file(firmware, image);
  Bytes tik = sev::from_hex(kTik).value();
  tik[15] ^= std::byte{1};
  put_file(folder / "tik.bin", tik);
  CHECK(sevisor::test::sevisor(folder, verify(measurement, guest)).code == 1);
}

TEST_CASE("verify takes what a run's report says where no option does") {
  const WorkFolder folder;
  REQUIRE(sevisor::test::sevisor(folder, {"session", "--host", "emulated", "--out", "o"}).code == 0);
  // Our firmware alone finds no kernel and ends the guest, once it has been launched.
  REQUIRE(
      sevisor::test::sevisor(folder, {"run", "--host", "emulated", "--firmware", SEVISOR_FIRMWARE, "--memory", "64M",
                                      "--dh-cert", "o_godh.b64", "--session", "o_session.b64", "--json", "r.json"})
          .code == 37);
  const Words right = {"verify",     "--report", "r.json",     "--tik",  "o_tik.bin",
                       "--num-cpus", "1",        "--cpu-type", "EPYC-v4"};
  const auto with = [](Words args, const Words& more) {
    args.insert(args.end(), more.begin(), more.end());
    return args;
  };
  CHECK(sevisor::test::sevisor(folder, right).code == 0);
  // An option goes before the report.
  CHECK(sevisor::test::sevisor(folder, with(right, {"--build-id", "99"})).code == 1);
  // Other files, or other keys: the report's digest tells.
  put_file(folder / "kernel", Bytes(5000));
  const Result files = sevisor::test::sevisor(folder, with(right, {"--kernel", "kernel", "--cmdline", "x"}));
  CHECK(files.code == 1);
  put_file(folder / "o_tik.bin", Bytes(16));
  const Result keys = sevisor::test::sevisor(folder, right);
  CHECK(keys.code == 1);
  CHECK_THAT(keys.err, Catch::Contains("was not signed with this TIK"));
  check_refused(sevisor::test::sevisor(folder, {"verify", "--report", "kernel", "--tik", "o_tik.bin"}),
                "no JSON object");
  const std::string none = "{}";
  put_file(folder / "none", std::as_bytes(std::span(none)));
  check_refused(sevisor::test::sevisor(folder, {"verify", "--report", "none", "--tik", "o_tik.bin"}),
                "no number 'api_major'");
}

TEST_CASE("verify refuses bad input in one line") {
  const WorkFolder folder;
  put_keys(folder);
  const std::string blob(64, 'A');
  const Words guest = {"--num-cpus", "1", "--cpu-type", "EPYC"};
  const auto refused = [&](const Words& args, const std::string& text) {
    check_refused(sevisor::test::sevisor(folder, args), text);
  };
  const auto with = [](Words args, const Words& more) {
    args.insert(args.end(), more.begin(), more.end());
    return args;
  };
  const auto without = [](Words args, const std::string& option) {
    const auto at = std::ranges::find(args, option);
    args.erase(at, at + 2);
    return args;
  };
  const Words good = verify(blob, guest);
  CHECK(sevisor::test::sevisor(folder, good).code == 1);
  for (const char* text : {"AAA", "A===", "AA*A", "AAB=", "AAAA", "", "=", "AAAAAAAA AAAA"}) {
    CAPTURE(text);
    check_refused(sevisor::test::sevisor(folder, verify(text, guest)), "--measurement");
  }
  for (const char* option : {"--measurement", "--api-major", "--api-minor", "--build-id", "--policy"}) {
    refused(without(good, option), std::string(option) + " is not given");
  }
  refused(without(good, "--tik"), "no key");
  refused(without(good, "--num-cpus"), "--num-cpus");
  refused(without(good, "--cpu-type"), "no CPU");
  refused(with(without(good, "--num-cpus"), {"--num-cpus", "0"}), "not a number from 1");
  refused(with(without(good, "--num-cpus"), {"--num-cpus", "100000"}), "not a number from 1");
  // Reserved bits are told, and no more: platforms that take them have been seen.
  const Result odd = sevisor::test::sevisor(folder, with(without(good, "--policy"), {"--policy", "0x45"}));
  CHECK(odd.code == 1);
  CHECK_THAT(odd.err, Catch::Contains("policy 0x45 (NODBG|ES|0x40): bits 0x40 of it are reserved and should be 0"));
  refused(with(without(good, "--policy"), {"--policy", "five"}), "policy");
  refused(with(without(good, "--build-id"), {"--build-id", "256"}), "not a number");
  put_file(folder / "short", Bytes(15));
  put_file(folder / "long", Bytes(17));
  put_file(folder / "none", Bytes());
  for (const char* name : {"short", "long", "none", "absent", "/", "/dev/zero"}) {
    CAPTURE(name);
    check_refused(sevisor::test::sevisor(folder, with(without(good, "--tik"), {"--tik", name})), "TIK");
    check_refused(sevisor::test::sevisor(folder, with(without(good, "--tik"), {"--tk", name})), "TEK and TIK");
  }
  refused(with(good, {"--tk", "tk.bin"}), "together with");
  refused(with(good, {"--initrd", "x"}), "go with a kernel");
  refused(with(good, {"--firmware", data("fw/synth-highreset.fd"), "--kernel", data("inputs/kernel-70001.bin")}),
          "hashes");
  refused(with(good, {"--vmsa-cpu1", "x"}), "without --vmsa-cpu0");
  refused(with(good, {"--vmsa-cpu0", "tik.bin"}), "each says");
  refused(with(without(good, "--cpu-type"), {"--vmsa-cpu0", "tik.bin"}), "has 16 bytes, not 4096");
  refused(with(without(good, "--cpu-type"), {"--cpu-family", "23", "--cpu-model", "1"}), "all three");
  refused(with(good, {"--secret-header", "h"}), "nothing to write");
  refused(with(good, {"--inject-secret", "luks-key:tik.bin"}), "needs --secret-header");
  refused(with(good, {"--inject-secret", "luks-key:tik.bin", "--secret-header", "h", "--secret-payload", "p"}),
          "--tek");
  refused(
      with(good, {"--tek", "tek.bin", "--inject-secret", "nothing", "--secret-header", "h", "--secret-payload", "p"}),
      "GUID:FILE");
}

TEST_CASE("verify and secret package secrets that open with the keys, bound to the launch") {
  const WorkFolder folder;
  put_keys(folder);
  put_file(folder / "key", std::as_bytes(std::span(std::string_view("the key to the disk"))));
  const std::string firmware = data("fw/synth-full.fd");
  const std::string measurement =
      measurement_of(digest_of(folder, {"--vcpus", "1", "--vcpu-type", "EPYC", "--ovmf", firmware}));
  const Words args =
      verify(measurement, {"--tek", "tek.bin", "--firmware", firmware, "--num-cpus", "1", "--cpu-type", "EPYC",
                           "--inject-secret", "luks-key:key", "--secret-header", "h.b64", "--secret-payload", "p.b64"});
  REQUIRE(sevisor::test::sevisor(folder, args).code == 0);
  check_refused(sevisor::test::sevisor(folder, args), "it exists already");
  const Result packaged =
      sevisor::test::sevisor(folder, {"secret", "--secret", "736869e5-84f0-4973-92ec-06879ce3da0b:key", "--tk",
                                      "tk.bin", "--measurement", measurement, "--out", "guest"});
  REQUIRE(packaged.code == 0);

  sev::TransportKeys keys;
  std::ranges::copy(sev::from_hex(kTik).value(), keys.tik->begin());
  std::ranges::copy(sev::from_hex(kTek).value(), keys.tek->begin());
  sev::Measurement blob;
  std::ranges::copy(sev::from_base64(measurement).value(), blob.begin());
  const auto opens = [&](const Bytes& header, const Bytes& payload) {
    sev::SecretPacket packet;
    REQUIRE(header.size() == packet.header.size());
    std::ranges::copy(header, packet.header.begin());
    packet.payload = payload;
    const auto plain = sev::open_secret(keys, {1, 55, 21}, blob, packet);
    REQUIRE(plain);
    const auto entries = sev::parse_secret_table(*plain);
    REQUIRE(entries.size() == 1);
    CHECK(entries[0].guid == sev::kLuksKeyGuid);
    CHECK(std::string(reinterpret_cast<const char*>(entries[0].data.data()), entries[0].data.size()) ==
          "the key to the disk");
    // Of another launch.
    sev::Measurement other = blob;
    other[0] ^= std::byte{1};
    CHECK_FALSE(sev::open_secret(keys, {1, 55, 21}, other, packet));
    packet.payload[3] ^= std::byte{1};
    CHECK_FALSE(sev::open_secret(keys, {1, 55, 21}, blob, packet));
  };
  opens(sev::from_base64(read_text(folder / "h.b64")).value(), sev::from_base64(read_text(folder / "p.b64")).value());
  opens(read_file(folder / "guest_header.bin").value(), read_file(folder / "guest_payload.bin").value());
  CHECK((std::filesystem::status(folder / "guest_payload.bin").permissions() & std::filesystem::perms(077)) ==
        std::filesystem::perms::none);

  const auto refused = [&](const Words& more, const std::string& text) {
    Words words = {"secret", "--out", "x", "--tk", "tk.bin", "--measurement", measurement};
    words.insert(words.end(), more.begin(), more.end());
    check_refused(sevisor::test::sevisor(folder, words), text);
  };
  refused({}, "either secrets or a table");
  refused({"--secret", "key"}, "GUID:FILE");
  refused({"--secret", "luks-key:absent"}, "No such file");
  refused({"--secret", "luks-key:key", "--secret", "luks-key:key"}, "given twice");
  refused({"--secret", "luks-key:key", "--format", "pem"}, "unknown");
  refused({"--table", "key"}, "does not begin as one");
  put_file(folder / "large", Bytes(16385));
  refused({"--secret", "luks-key:large"}, "more than 16384");
}
