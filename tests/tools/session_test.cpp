// Certificates, sessions and secrets, from the platform's keys to the launch; and that what is changed on the way is
// refused.
#include <algorithm>
#include <sys/stat.h>

#include "sev/certificate_chain.hpp"
#include "tool.hpp"

using namespace sevisor;
using namespace sevisor::test;
using nlohmann::json;

namespace {

using Words = std::vector<std::string>;

Result tool(const WorkFolder& folder, const Words& args) { return sevisor::test::sevisor(folder, args); }

void make_session(const WorkFolder& folder, const std::string& name = "owner") {
  const Result made = tool(folder, {"session", "--host", "emulated", "--policy", "0x5", "--out", name});
  CAPTURE(made.err);
  REQUIRE(made.code == 0);
}

// A launch of our firmware alone: it finds no kernel and ends the guest (37), once it has been launched.
Result launch(const WorkFolder& folder, const Words& more = {}, const std::string& name = "owner") {
  Words args = {"run",     "--host",    "emulated",         "--firmware", SEVISOR_FIRMWARE,      "--memory",
                "64M",     "--dh-cert", name + "_godh.b64", "--session",  name + "_session.b64", "--json",
                "run.json"};
  args.insert(args.end(), more.begin(), more.end());
  return tool(folder, args);
}

mode_t mode_of(const std::filesystem::path& path) {
  struct stat status {};
  REQUIRE(::stat(path.c_str(), &status) == 0);
  return status.st_mode & 0777;
}

void put_base64(const std::filesystem::path& path, std::span<const std::byte> bytes) {
  const std::string text = sev::to_base64(bytes);
  put_file(path, std::as_bytes(std::span(text)));
}

const Words kCertificates = {"ark.cert", "ask.cert", "cek.cert", "oca.cert", "pek.cert", "pdh.cert"};

}  // namespace

TEST_CASE("the emulated platform has one identity a machine, which says that it is not AMD's") {
  const WorkFolder folder;
  REQUIRE(tool(folder, {"certs", "export", "--host", "emulated", "--out", "first"}).code == 0);
  REQUIRE(tool(folder, {"certs", "export", "--host", "emulated", "--out", "second"}).code == 0);
  for (const std::string& name : kCertificates) {
    CHECK(read_file(folder / ("first/" + name)) == read_file(folder / ("second/" + name)));
  }
  CHECK(mode_of(folder / "data/sevisor/emulated-platform/nvram") == 0600);
  const Result shown = tool(folder, {"certs", "show", "--host", "emulated"});
  CHECK(shown.code == 0);
  CHECK_THAT(shown.out, Catch::Contains("NOT-AMD") && Catch::Contains("not AMD's and protects nothing"));
  check_refused(tool(folder, {"certs", "export", "--host", "emulated", "--out", "first"}), "exists already");
  CHECK(tool(folder, {"certs", "verify", "--host", "emulated"}).code == 0);

  // From files it is a root like any other: it must be named to be trusted.
  const Result files = tool(folder, {"certs", "verify", "--certs", "first"});
  CHECK(files.code == 1);
  CHECK_THAT(files.out, Catch::Contains("NOT VERIFIED") && Catch::Contains("--trust-root"));
  const std::string root = sev::to_hex(sev::sha256(read_file(folder / "first/ark.cert").value()));
  CHECK(tool(folder, {"certs", "verify", "--certs", "first", "--trust-root", root}).code == 0);
  CHECK(tool(folder, {"certs", "verify", "--certs", "first", "--trust-root", std::string(64, '0')}).code == 1);
  check_refused(tool(folder, {"session", "--certs", "first", "--out", "x"}), "--trust-root " + root);
  CHECK(tool(folder, {"session", "--certs", "first", "--trust-root", root, "--out", "x"}).code == 0);

  // In one file, as sevctl writes it.
  Bytes chain;
  for (const char* name : {"pdh.cert", "pek.cert", "oca.cert", "cek.cert", "ask.cert", "ark.cert"}) {
    const Bytes part = read_file(folder / (std::string("first/") + name)).value();
    chain.insert(chain.end(), part.begin(), part.end());
  }
  put_file(folder / "chain", chain);
  CHECK(tool(folder, {"certs", "verify", "--certs", "chain", "--trust-root", root}).code == 0);
  for (const std::size_t size : {std::size_t{0}, std::size_t{1}, std::size_t{8335}, chain.size() - 1}) {
    put_file(folder / "short", std::span(chain).first(size));
    check_refused(tool(folder, {"certs", "verify", "--certs", "short", "--trust-root", root}));
  }
}

TEST_CASE("one changed byte in any certificate is noticed") {
  const WorkFolder folder;
  REQUIRE(tool(folder, {"certs", "export", "--host", "emulated", "--out", "c"}).code == 0);
  const std::string root = sev::to_hex(sev::sha256(read_file(folder / "c/ark.cert").value()));
  for (const std::string& name : kCertificates) {
    const Bytes good = read_file(folder / ("c/" + name)).value();
    for (std::size_t i = 0; i < good.size(); i += 97) {  // each of them: test 'sev'
      Bytes bad = good;
      bad[i] ^= std::byte{0x40};
      put_file(folder / ("c/" + name), bad);
      const Result result = tool(folder, {"certs", "verify", "--certs", "c", "--trust-root", root});
      CAPTURE(name, i);
      CHECK((result.code == 1 || result.code == 35));
    }
    for (const std::size_t size : {std::size_t{0}, std::size_t{63}, good.size() - 1}) {
      put_file(folder / ("c/" + name), std::span(good).first(size));
      check_refused(tool(folder, {"certs", "verify", "--certs", "c", "--trust-root", root}));
    }
    put_file(folder / ("c/" + name), good);
  }
}

TEST_CASE("AMD's machines are trusted as they are; another generation's roots do not fit") {
  const WorkFolder folder;
  const std::string machines = std::string(SEVISOR_SOURCE_DIR) + "/tests/data/certificates/";
  for (const char* name : {"naples", "rome"}) {
    CAPTURE(name);
    const Result result = tool(folder, {"certs", "verify", "--certs", machines + name});
    CHECK(result.code == 0);
    CHECK_THAT(result.out, Catch::Contains("AMD's root for"));
    CHECK(tool(folder, {"session", "--certs", machines + name, "--out", name}).code == 0);
  }
  Bytes roots = read_file(machines + "naples/ask.cert").value();
  const Bytes ark = read_file(machines + "naples/ark.cert").value();
  roots.insert(roots.end(), ark.begin(), ark.end());
  put_file(folder / "roots", roots);
  CHECK(tool(folder, {"certs", "verify", "--certs", machines + "naples", "--roots", "roots"}).code == 0);
  CHECK(tool(folder, {"certs", "verify", "--certs", machines + "rome", "--roots", "roots"}).code == 1);
  check_refused(tool(folder, {"session", "--certs", machines + "rome", "--roots", "roots", "--out", "x"}),
                "it is not so that the CEK is signed by the ASK");
}

TEST_CASE("a folder as sev-tool exports it is read: pdh.cert and cert_chain.cert") {
  const WorkFolder folder;
  const std::string rome = std::string(SEVISOR_SOURCE_DIR) + "/tests/data/certificates/rome/";
  const auto joined = [&rome](std::initializer_list<const char*> names) {
    Bytes all;
    for (const char* name : names) {
      const Bytes part = read_file(rome + name).value();
      all.insert(all.end(), part.begin(), part.end());
    }
    return all;
  };
  std::filesystem::create_directory(folder / "c");
  put_file(folder / "c/pdh.cert", joined({"pdh.cert"}));
  const Bytes chain = joined({"pek.cert", "oca.cert", "cek.cert"});
  put_file(folder / "c/cert_chain.cert", chain);
  put_file(folder / "roots", joined({"ask.cert", "ark.cert"}));
  CHECK(tool(folder, {"certs", "verify", "--certs", "c", "--roots", "roots"}).code == 0);
  CHECK(tool(folder, {"session", "--certs", "c", "--roots", "roots", "--out", "x"}).code == 0);
  check_refused(tool(folder, {"certs", "verify", "--certs", "c"}), "--roots");
  // AMD's file of the generation beside them.
  put_file(folder / "c/ask_ark_rome.cert", joined({"ask.cert", "ark.cert"}));
  CHECK(tool(folder, {"certs", "verify", "--certs", "c"}).code == 0);
  put_file(folder / "c/ask_ark_milan.cert", joined({"ask.cert", "ark.cert"}));
  check_refused(tool(folder, {"certs", "verify", "--certs", "c"}), "Say with --roots");
  std::filesystem::remove(folder / "c/ask_ark_milan.cert");
  for (const std::size_t size : {std::size_t{0}, std::size_t{1}, chain.size() - 1}) {
    put_file(folder / "c/cert_chain.cert", std::span(chain).first(size));
    check_refused(tool(folder, {"certs", "verify", "--certs", "c"}), "cert_chain.cert");
  }
  put_file(folder / "c/cert_chain.cert", chain);
  put_file(folder / "c/pdh.cert", Bytes(2083));
  check_refused(tool(folder, {"certs", "verify", "--certs", "c"}), "PDH");
}

TEST_CASE("an empty secret is none") {
  const WorkFolder folder;
  put_file(folder / "empty", Bytes{});
  check_refused(tool(folder, {"secret", "--secret", "luks-key:empty", "--table-only", "--out", "x"}), "it is empty");
  check_refused(tool(folder, {"secret", "--secret", "luks-key:/dev/null", "--table-only", "--out", "x"}),
                "it is empty");
  check_refused(tool(folder, {"secret", "--secret", "luks-key:", "--table-only", "--out", "x"}), "No such file");
}

TEST_CASE("session writes four files, the keys for their owner alone, and replaces none unasked") {
  const WorkFolder folder;
  make_session(folder);
  CHECK(mode_of(folder / "owner_tik.bin") == 0600);
  CHECK(mode_of(folder / "owner_tek.bin") == 0600);
  CHECK(read_file(folder / "owner_tik.bin")->size() == 16);
  CHECK(read_file(folder / "owner_tek.bin")->size() == 16);
  CHECK(sev::from_base64(read_text(folder / "owner_godh.b64"))->size() == 2084);
  CHECK(sev::from_base64(read_text(folder / "owner_session.b64"))->size() == 128);
  const auto tik = read_file(folder / "owner_tik.bin");
  const Words again = {"session", "--host", "emulated", "--out", "owner"};
  check_refused(tool(folder, again), "exists already");
  CHECK(read_file(folder / "owner_tik.bin") == tik);
  for (const char* left : {"owner_godh.b64", "owner_session.b64", "owner_tek.bin"}) {
    std::filesystem::remove(folder / left);
    check_refused(tool(folder, again), "exists already");
  }
  Words force = again;
  force.emplace_back("--force");
  CHECK(tool(folder, force).code == 0);
  CHECK(read_file(folder / "owner_tik.bin") != tik);
  CHECK(mode_of(folder / "owner_tik.bin") == 0600);

  check_refused(tool(folder, {"session", "--host", "emulated"}), "--out");
  check_refused(tool(folder, {"session", "--out", "y"}), "either a host or files");
  check_refused(tool(folder, {"session", "--host", "moon", "--out", "y"}), "no host 'moon'");
  check_refused(tool(folder, {"session", "--host", "emulated", "--policy", "0x40", "--out", "y"}), "reserved");
  check_refused(tool(folder, {"session", "--host", "emulated", "--policy", "x", "--out", "y"}), "policy");
  check_refused(tool(folder, {"session", "--certs", "/nonexistent", "--out", "y"}), "No such file");
  check_refused(tool(folder, {"session", "--host", "emulated", "--out", "no/such/folder/y"}), "write");
}

TEST_CASE("a launch takes the session it was made for, and no other") {
  const WorkFolder folder;
  make_session(folder);
  const Result good = launch(folder);
  CAPTURE(good.err);
  REQUIRE(good.code == 37);
  const json report = json::parse(read_text(folder / "run.json"));
  const auto verify = [&](const std::string& name) {
    return tool(folder, {"verify", "--measurement", report["measurement"], "--api-major",
                         std::to_string(report["api_major"].get<int>()), "--api-minor",
                         std::to_string(report["api_minor"].get<int>()), "--build-id",
                         std::to_string(report["build_id"].get<int>()), "--policy", "5", "--tik", name + "_tik.bin",
                         "--firmware", SEVISOR_FIRMWARE, "--num-cpus", "1", "--cpu-type", "EPYC-v4"})
        .code;
  };
  CHECK(verify("owner") == 0);
  make_session(folder, "other");
  CHECK(verify("other") == 1);

  check_refused(launch(folder, {"--policy", "0x7"}), "BAD_MEASUREMENT");
  const Bytes session = sev::from_base64(read_text(folder / "owner_session.b64")).value();
  const Bytes godh = sev::from_base64(read_text(folder / "owner_godh.b64")).value();
  for (std::size_t i = 0; i < session.size(); ++i) {
    Bytes bad = session;
    bad[i] ^= static_cast<std::byte>(1U << i % 8);
    put_base64(folder / "owner_session.b64", bad);
    CAPTURE(i);
    check_refused(launch(folder), "BAD_MEASUREMENT");
  }
  put_base64(folder / "owner_session.b64", session);
  // Each of its bytes: test 'sev'.
  for (std::size_t i = 0; i < godh.size(); i += 67) {
    Bytes bad = godh;
    bad[i] ^= std::byte{1};
    put_base64(folder / "owner_godh.b64", bad);
    CAPTURE(i);
    check_refused(launch(folder), "guest owner");
  }
  for (const std::size_t size : {std::size_t{0}, std::size_t{100}, godh.size() - 1}) {
    put_base64(folder / "owner_godh.b64", std::span(godh).first(size));
    check_refused(launch(folder), "guest owner's certificate");
  }
  // Raw, as some tools hand it on.
  put_file(folder / "owner_godh.b64", godh);
  put_file(folder / "owner_session.b64", session);
  CHECK(launch(folder).code == 37);
  put_base64(folder / "owner_godh.b64", godh);
  for (const char* text : {"", "!", "QUJD", "QUJD=", "not base64 at all"}) {
    put_file(folder / "owner_session.b64", std::as_bytes(std::span(std::string_view(text))));
    check_refused(launch(folder), "session");
  }

  const Words plain = {"run", "--host", "emulated", "--firmware", SEVISOR_FIRMWARE};
  const auto with = [&](const Words& more) {
    Words args = plain;
    args.insert(args.end(), more.begin(), more.end());
    return tool(folder, args);
  };
  check_refused(with({"--dh-cert", "owner_godh.b64"}), "go together");
  check_refused(with({"--session", "owner_session.b64"}), "go together");
  check_refused(with({"--secret", "x"}), "without a session");
}

TEST_CASE("a secret goes into the launch it was made for, and no other") {
  const WorkFolder folder;
  make_session(folder);
  REQUIRE(launch(folder).code == 37);
  // The emulated host is deterministic: the same launch has the same nonce. On silicon the secret is waited for.
  const json report = json::parse(read_text(folder / "run.json"));
  put_file(folder / "key", Bytes(20, std::byte{'k'}));
  const auto package = [&](const std::string& measurement, const std::string& out, const std::string& secret = "key") {
    return tool(folder, {"secret", "--tik", "owner_tik.bin", "--tek", "owner_tek.bin", "--measurement", measurement,
                         "--secret", "luks-key:" + secret, "--out", out});
  };
  REQUIRE(package(report["measurement"], "good").code == 0);
  const Result good = launch(folder, {"--secret", "good"});
  CAPTURE(good.err);
  CHECK(good.code == 37);

  Bytes other = sev::from_base64(report["measurement"].get<std::string>()).value();
  other[0] ^= std::byte{1};
  REQUIRE(package(sev::to_base64(other), "other").code == 0);
  check_refused_with_log(launch(folder, {"--secret", "other"}), "BAD_MEASUREMENT");
  const Bytes header = read_file(folder / "good_header.bin").value();
  const Bytes payload = read_file(folder / "good_payload.bin").value();
  const auto refused = [&](const Bytes& h, const Bytes& p, const std::string& reason) {
    put_file(folder / "bad_header.bin", h);
    put_file(folder / "bad_payload.bin", p);
    check_refused_with_log(launch(folder, {"--secret", "bad"}), reason);
  };
  for (std::size_t i = 0; i < header.size(); ++i) {
    Bytes bad = header;
    bad[i] ^= static_cast<std::byte>(1U << i % 8);
    refused(bad, payload, i < 4 ? "flags" : "BAD_MEASUREMENT");
  }
  for (std::size_t i = 0; i < payload.size(); ++i) {
    Bytes bad = payload;
    bad[i] ^= static_cast<std::byte>(1U << i % 8);
    refused(header, bad, "BAD_MEASUREMENT");
  }
  refused(Bytes(51), payload, "header");
  refused(header, Bytes(), "payload");
  refused(header, Bytes(17, std::byte{1}), "multiple of 16");
  // More than the firmware's area holds: 3 KiB.
  put_file(folder / "large", Bytes(3072));
  REQUIRE(package(report["measurement"], "large", "large").code == 0);
  check_refused_with_log(launch(folder, {"--secret", "large"}), "has room for 3072");
  // It never comes.
  const Result never = launch(folder, {"--secret", "never", "--timeout", "0.2"});
  CHECK(never.code == 36);
  CHECK_THAT(never.err, Catch::Contains("did not come in time"));
}
