// Guests drawn at random: `sevisor` and virt-qemu-sev-validate (Debian's libvirt-clients-qemu) must agree on each of
// them, and on that none of them is another one.
#include <algorithm>
#include <random>

#include "sev/cpu_type.hpp"
#include "sev/launch_secret.hpp"
#include "sev/policy.hpp"
#include "sev/session.hpp"
#include "tool.hpp"

using namespace sevisor;
using namespace sevisor::test;
using nlohmann::json;

namespace {

using Words = std::vector<std::string>;

constexpr unsigned kGuests = 16;
constexpr unsigned kSeed = 3;

// The program's first line asks for any python3; Debian's own has Debian's lxml and libvirt.
Result peer(const WorkFolder& folder, Words args) {
  args.insert(args.begin(), "/usr/bin/virt-qemu-sev-validate");
  return run_program(folder, "/usr/bin/python3", args);
}

bool peer_is_here(const WorkFolder& folder) {
  if (peer(folder, {"--help"}).code == 0) return true;
  skip("virt-qemu-sev-validate is not here (packages libvirt-clients-qemu, python3-lxml)");
  return false;
}

class Draw {
 public:
  unsigned below(unsigned limit) { return std::uniform_int_distribution<unsigned>(0, limit - 1)(engine_); }
  bool one_in(unsigned count) { return below(count) == 0; }
  template <class List>
  const auto& of(const List& list) {
    return list[below(static_cast<unsigned>(list.size()))];
  }
  Bytes bytes(std::size_t size) {
    Bytes result(size);
    for (std::byte& b : result) b = static_cast<std::byte>(below(256));
    return result;
  }

 private:
  std::mt19937 engine_{kSeed};
};

// The options that name a guest, in the words of `measure` and of `verify` and its model.
struct Guest {
  Words measured;
  Words described;
  std::uint32_t policy = 0;
};

Guest draw_guest(Draw& draw, const WorkFolder& folder, const Words& firmwares) {
  Guest guest;
  const auto both = [&](const char* name, const char* verify_name, const std::string& value) {
    guest.measured.insert(guest.measured.end(), {name, value});
    guest.described.insert(guest.described.end(), {verify_name, value});
  };
  const bool es = !draw.one_in(4);
  guest.policy = draw.below(4) | (es ? sev::kPolicyEs : 0);  // NODBG, NOKS
  guest.measured = {"--mode", es ? "seves" : "sev"};
  both("--ovmf", "--firmware", draw.of(firmwares));
  if (es) {
    both("--vcpus", "--num-cpus", std::to_string(draw.one_in(2) ? 1 + draw.below(8) : 1 + draw.below(512)));
    both("--vcpu-family", "--cpu-family", std::to_string(draw.below(271)));
    both("--vcpu-model", "--cpu-model", std::to_string(draw.below(256)));
    both("--vcpu-stepping", "--cpu-stepping", std::to_string(draw.below(16)));
  }
  if (!draw.one_in(3)) {
    static const std::vector<std::string> kLines = {"quiet",
                                                    "console=ttyS0 root=/dev/vda1 ro",
                                                    "caf\u00e9 = \u6f22\u5b57",
                                                    "a=\"b c\" {} %s \\n",
                                                    " ",
                                                    std::string(2047, 'x')};
    static const std::vector<unsigned> kSizes = {1, 15, 16, 4095, 4096, 65'536, 100'003};
    put_file(folder / "kernel", draw.bytes(draw.of(kSizes)));
    both("--kernel", "--kernel", "kernel");
    if (draw.one_in(2)) {
      put_file(folder / "initrd", draw.bytes(draw.of(kSizes) - 1));
      both("--initrd", "--initrd", "initrd");
    }
    if (draw.one_in(2)) both("--append", "--cmdline", draw.of(kLines));
  }
  return guest;
}

}  // namespace

TEST_CASE("virt-qemu-sev-validate accepts what sevisor computes, for guests drawn at random") {
  const WorkFolder folder;
  if (!peer_is_here(folder)) return;
  Vectors vectors(folder);
  Words firmwares = {SEVISOR_FIRMWARE};
  // Two of these are in this repository, with a hashes area and an address for more vCPUs; Debian's are given the area.
  for (const char* name : {"fw/synth-full.fd", "fw/OVMF_CODE.hashes.fd", "fw/OVMF.hashes.fd"}) {
    if (const auto path = vectors.input(name)) firmwares.push_back(*path);
  }
  Draw draw;
  for (unsigned count = 0; count < kGuests; ++count) {
    const Guest guest = draw_guest(draw, folder, firmwares);
    const Bytes tik = draw.bytes(16);
    put_file(folder / "tik", tik);
    put_file(folder / "tek", draw.bytes(16));
    const Words platform = {
        "--api-major", std::to_string(draw.below(2)),   "--api-minor", std::to_string(17 + draw.below(60)),
        "--build-id",  std::to_string(draw.below(256)), "--policy",    std::to_string(guest.policy)};
    Words args = {"measure", "--output-format", "json", "--tik", "tik", "--nonce", sev::to_hex(draw.bytes(16))};
    for (const Words& more : {platform, guest.measured}) args.insert(args.end(), more.begin(), more.end());
    const Result computed = sevisor::test::sevisor(folder, args);
    CAPTURE(json(args).dump(), computed.err);
    REQUIRE(computed.code == 0);
    const std::string measurement = json::parse(computed.out)["measurement"];

    const auto claim = [&](const std::string& blob) {
      Words words = {"--measurement", blob, "--tik", "tik", "--tek", "tek"};
      for (const Words& more : {platform, guest.described}) words.insert(words.end(), more.begin(), more.end());
      return words;
    };
    const auto verify = [&](Words words) {
      words.insert(words.begin(), "verify");
      return sevisor::test::sevisor(folder, words);
    };
    const Result theirs = peer(folder, claim(measurement));
    CHECK(theirs.code == 0);
    CAPTURE(theirs.err);
    CHECK(verify(claim(measurement)).code == 0);
    Bytes other = sev::from_base64(measurement).value();
    other[draw.below(48)] ^= static_cast<std::byte>(1U << draw.below(8));
    CHECK(peer(folder, claim(sev::to_base64(other))).code == 1);
    CHECK(verify(claim(sev::to_base64(other))).code == 1);
  }
}

TEST_CASE("virt-qemu-sev-validate takes the VMSAs that measure writes, in either form") {
  const WorkFolder folder;
  if (!peer_is_here(folder)) return;
  put_file(folder / "tk", Bytes(32, std::byte{0x71}));
  put_file(folder / "tik", Bytes(16, std::byte{0x71}));
  for (const char* init_api : {"es-init", "init2"}) {
    const Result computed = sevisor::test::sevisor(folder, {"measure",
                                                            "--mode",
                                                            "seves",
                                                            "--vcpus",
                                                            "3",
                                                            "--vcpu-type",
                                                            "EPYC-Genoa",
                                                            "--init-api",
                                                            init_api,
                                                            "--dump-vmsa",
                                                            "--tik",
                                                            "tik",
                                                            "--api-major",
                                                            "1",
                                                            "--api-minor",
                                                            "55",
                                                            "--build-id",
                                                            "21",
                                                            "--policy",
                                                            "5",
                                                            "--nonce",
                                                            std::string(32, 'c'),
                                                            "--ovmf",
                                                            SEVISOR_FIRMWARE,
                                                            "--output-format",
                                                            "json"});
    REQUIRE(computed.code == 0);
    const Words claim = {"--measurement", json::parse(computed.out)["measurement"],
                         "--api-major",   "1",
                         "--api-minor",   "55",
                         "--build-id",    "21",
                         "--policy",      "5",
                         "--tk",          "tk",
                         "--firmware",    SEVISOR_FIRMWARE,
                         "--num-cpus",    "3",
                         "--vmsa-cpu0",   "vmsa0.bin",
                         "--vmsa-cpu1",   "vmsa2.bin"};
    CHECK(peer(folder, claim).code == 0);
    Words verify = claim;
    verify.insert(verify.begin(), "verify");
    CHECK(sevisor::test::sevisor(folder, verify).code == 0);
  }
}

TEST_CASE("secrets that virt-qemu-sev-validate packages open, and hold what sevisor's hold") {
  const WorkFolder folder;
  if (!peer_is_here(folder)) return;
  Draw draw;
  sev::TransportKeys keys;
  std::ranges::copy(draw.bytes(16), keys.tik->begin());
  std::ranges::copy(draw.bytes(16), keys.tek->begin());
  put_file(folder / "tik", *keys.tik);
  put_file(folder / "tek", *keys.tek);
  const sev::ApiVersion api = {1, 55, 21};
  const Bytes firmware = read_file(SEVISOR_FIRMWARE).value();
  const sev::Measurement measurement = sev::make_measurement(*keys.tik, api, 1, sev::sha256(firmware), sev::Nonce{});
  const Words claim = {"--measurement", sev::to_base64(measurement),
                       "--api-major",   "1",
                       "--api-minor",   "55",
                       "--build-id",    "21",
                       "--policy",      "1",
                       "--tik",         "tik",
                       "--tek",         "tek",
                       "--firmware",    SEVISOR_FIRMWARE};

  // Not 0: virt-qemu-sev-validate packages an empty secret, sevisor refuses one (session_test.cpp, verify_test.cpp).
  for (const std::size_t size : {1, 7, 8, 9, 24, 1000}) {
    CAPTURE(size);
    const Bytes first = draw.bytes(size);
    const Bytes second = draw.bytes(3);
    put_file(folder / "first", first);
    put_file(folder / "second", second);
    const char* const second_guid = "0d1e2f30-4152-6374-8596-a7b8c9dae0f1";
    const auto packaged = [&](const char* header, const char* payload, auto run) {
      Words args = claim;
      args.insert(args.end(),
                  {"--inject-secret", "luks-key:first", "--inject-secret", std::string(second_guid) + ":second",
                   "--secret-header", header, "--secret-payload", payload});
      const Result result = run(args);
      CAPTURE(result.err);
      REQUIRE(result.code == 0);
      sev::SecretPacket packet;
      std::ranges::copy(sev::from_base64(read_text(folder / header)).value(), packet.header.begin());
      packet.payload = sev::from_base64(read_text(folder / payload)).value();
      const auto table = sev::open_secret(keys, api, measurement, packet);
      REQUIRE(table);
      const auto entries = sev::parse_secret_table(*table);
      REQUIRE(entries.size() == 2);
      CHECK(entries[0].guid == sev::kLuksKeyGuid);
      CHECK(std::ranges::equal(entries[0].data, first));
      CHECK(entries[1].guid == sev::Guid::parse(second_guid));
      CHECK(std::ranges::equal(entries[1].data, second));
      return *table;
    };
    const auto theirs = packaged("h1", "p1", [&](const Words& args) { return peer(folder, args); });
    const auto ours = packaged("h2", "p2", [&](Words args) {
      args.insert(args.begin(), "verify");
      args.emplace_back("--force");
      return sevisor::test::sevisor(folder, args);
    });
    // A table that is a multiple of 16 already is padded by 16 more there.
    const std::size_t length = 20 + 20 + size + 20 + second.size();
    CHECK(ours.size() == (length + 15) / 16 * 16);
    CHECK(theirs.size() == (length + 16) / 16 * 16);
    CHECK(std::ranges::equal(ours, std::span(theirs).first(ours.size())));
  }
}
