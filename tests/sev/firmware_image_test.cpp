// The images are the measurement vectors' (tests/data/measurement).
#include "sev/firmware_image.hpp"

#include <algorithm>
#include <catch2/catch.hpp>
#include <fstream>
#include <iterator>

#include "base/error.hpp"

using namespace sevisor;
using namespace sevisor::sev;

namespace {

std::shared_ptr<const std::vector<std::byte>> read(const std::string& name) {
  std::ifstream file(std::string(SEVISOR_SOURCE_DIR "/tests/data/measurement/fw/") + name, std::ios::binary);
  REQUIRE(file);
  const std::vector<char> text(std::istreambuf_iterator<char>(file), {});
  const auto bytes = std::as_bytes(std::span(text));
  return std::make_shared<const std::vector<std::byte>>(bytes.begin(), bytes.end());
}

// What was tried and what came back, of the Error.
template <class Ask>
std::pair<std::string, std::string> refusal(Ask ask) {
  try {
    (void)ask();
  } catch (const Error& error) {
    CHECK(error.exit_code() == ExitCode::kBadUsage);
    CHECK_FALSE(error.advice().empty());
    return {error.tried(), error.came_back()};
  }
  return {};
}

}  // namespace

TEST_CASE("a firmware image says what its footer table says, and keeps its file") {
  auto file = read("synth-full.fd");
  const FooterTable table = parse_footer_table(*file);
  const std::vector<std::byte> bytes = *file;
  FirmwareImage image(file, "synth-full.fd");
  const std::weak_ptr<const std::vector<std::byte>> held = file;
  file.reset();
  const FirmwareImage copy = image;
  image = FirmwareImage();
  REQUIRE_FALSE(held.expired());
  CHECK(std::ranges::equal(copy.bytes(), bytes));
  CHECK(copy.size() == bytes.size());
  CHECK(copy.name() == "synth-full.fd");
  CHECK(copy.ap_reset_address() == *table.ap_reset_address());
  CHECK(copy.hashes_area().base == table.hashes_area()->base);
  CHECK(copy.secret_area().base == table.secret_area()->base);
  CHECK(copy.secret_area().size == table.secret_area()->size);
  CHECK(copy.facts().sev_es.can);
}

TEST_CASE("what a firmware image lacks is refused by its name, and only when it is asked for") {
  const FirmwareImage none(read("synth-nofooter.fd"), "none.fd");
  CHECK_FALSE(none.facts().sev_es.can);
  for (const auto& said : {refusal([&] { return none.ap_reset_address(); }),
                           refusal([&] { return none.hashes_area(); }), refusal([&] { return none.secret_area(); })}) {
    CHECK(said.first == "use the firmware 'none.fd'");
    CHECK(said.second.find("footer table") != std::string::npos);
  }

  const FirmwareImage no_reset(read("synth-noreset.fd"), "noreset.fd");
  CHECK(refusal([&] { return no_reset.ap_reset_address(); }).first == "use the firmware 'noreset.fd'");
  CHECK(refusal([&] { return no_reset.ap_reset_address(); }).second.find("no SEV-ES reset block") != std::string::npos);
  const FirmwareImage zero(read("synth-zeroreset.fd"), "zero.fd");
  CHECK(refusal([&] { return zero.ap_reset_address(); }).second.find("address 0") != std::string::npos);

  const FirmwareImage bare(read("synth-highreset.fd"), "bare.fd");
  CHECK(bare.ap_reset_address() == 0xf2345678);
  CHECK(refusal([&] { return bare.hashes_area(); }).second.find("no area for kernel hashes") != std::string::npos);
  CHECK(refusal([&] { return bare.secret_area(); }).second.find("no area for secrets") != std::string::npos);
}

TEST_CASE("no firmware is an image of no bytes") {
  const FirmwareImage image;
  CHECK(image.size() == 0);
  CHECK(image.bytes().empty());
  CHECK_FALSE(image.facts().sev_es.can);
}
