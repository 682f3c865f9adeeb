#include "vmm/boot/variable_store.hpp"

#include <catch2/catch.hpp>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>

#include "base/error.hpp"

using namespace sevisor;
using namespace sevisor::vmm;
namespace fs = std::filesystem;

namespace {

constexpr std::size_t kSize = 0x3000;

struct Folder {
  Folder() {
    std::string pattern = (fs::temp_directory_path() / "sevisor-test.XXXXXX").string();
    REQUIRE(::mkdtemp(pattern.data()) != nullptr);
    path = pattern;
  }
  ~Folder() { fs::remove_all(path); }
  std::string make(const std::string& name, std::size_t size = kSize) const {
    std::ofstream(path / name) << std::string(size, 'v');
    return (path / name).string();
  }
  fs::path path;
};

std::string content_of(const std::string& path) {
  std::ifstream file(path);
  return {std::istreambuf_iterator<char>(file), {}};
}

}  // namespace

TEST_CASE("variables that are kept reach the file, in place") {
  const Folder folder;
  const std::string path = folder.make("vars.fd");
  {
    VariableStore store = VariableStore::keep(path);
    REQUIRE(store.content().size() == kSize);
    CHECK(store.content()[5] == std::byte{'v'});
    store.content()[0x1234] = std::byte{'N'};
    store.content()[0x1235] = std::byte{'E'};
    store.content()[0x2000] = std::byte{'x'};
    store.save(0x1234, 2);
    std::string expected(kSize, 'v');
    expected.replace(0x1234, 2, "NE");
    CHECK(content_of(path) == expected);
  }
  CHECK(VariableStore::keep(path).content()[0x1234] == std::byte{'N'});
}

TEST_CASE("variables that are forgotten leave the file alone") {
  const Folder folder;
  const std::string path = folder.make("vars.fd");
  fs::permissions(path, fs::perms::owner_read);
  VariableStore store = VariableStore::forget(path);
  store.content()[0] = std::byte{'N'};
  store.save(0, 1);
  CHECK(content_of(path) == std::string(kSize, 'v'));
}

TEST_CASE("one guest at a time keeps its variables in a file") {
  const Folder folder;
  const std::string path = folder.make("vars.fd");
  {
    const VariableStore store = VariableStore::keep(path);
    CHECK_THROWS_AS(VariableStore::keep(path), Error);
  }
  CHECK_NOTHROW(VariableStore::keep(path));
}

TEST_CASE("files that are no variable store are refused") {
  const Folder folder;
  for (const std::string& path : {(folder.path / "absent").string(), folder.path.string(), folder.make("empty", 0),
                                  folder.make("odd", kSize + 1), folder.make("large", kVariablesMaxSize + 0x1000)}) {
    CAPTURE(path);
    CHECK_THROWS_AS(VariableStore::keep(path), Error);
    CHECK_THROWS_AS(VariableStore::forget(path), Error);
  }
}

TEST_CASE("variables are found beside the firmware by its name") {
  const Folder folder;
  const auto variables_of = [&folder](const char* firmware) -> std::string {
    const auto found = find_variables_of((folder.path / firmware).string());
    return found ? fs::path(*found).filename().string() : "none";
  };
  CHECK(variables_of("OVMF_CODE.fd") == "none");
  folder.make("OVMF_VARS.fd");
  folder.make("OVMF_VARS_4M.fd");
  folder.make("OVMF_VARS_4M.ms.fd");
  CHECK(variables_of("OVMF_CODE.fd") == "OVMF_VARS.fd");
  CHECK(variables_of("OVMF_CODE.secboot.fd") == "OVMF_VARS.fd");
  CHECK(variables_of("OVMF_CODE_4M.secboot.fd") == "OVMF_VARS_4M.fd");
  CHECK(variables_of("OVMF_CODE_4M.ms.fd") == "OVMF_VARS_4M.ms.fd");
  CHECK(variables_of("OVMF_VARS.fd") == "none");
  CHECK(variables_of("OVMF.fd") == "none");
  fs::create_directory(folder.path / "edk2_VARS.fd");
  CHECK(variables_of("edk2_CODE.fd") == "none");
}
