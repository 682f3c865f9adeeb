// Runs the `sevisor` binary, and finds the inputs of the vectors.
#pragma once

#include <catch2/catch.hpp>
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <optional>
#include <span>
#include <string>
#include <sys/wait.h>
#include <unistd.h>
#include <vector>

#include "sev/encoding.hpp"
#include "sev/sha256.hpp"

namespace sevisor::test {

using Bytes = std::vector<std::byte>;

inline std::optional<Bytes> read_file(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) return std::nullopt;
  const std::vector<char> chars{std::istreambuf_iterator<char>(file), {}};
  const auto view = std::as_bytes(std::span(chars));
  return Bytes(view.begin(), view.end());
}

inline std::string read_text(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

inline void put_file(const std::filesystem::path& path, std::span<const std::byte> bytes) {
  std::ofstream file(path, std::ios::binary);
  file.write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
  REQUIRE(file.good());
}

// A folder for one test, empty at first, gone at its end.
class WorkFolder {
 public:
  WorkFolder() {
    std::string name = (std::filesystem::temp_directory_path() / "sevisor-tools.XXXXXX").string();
    REQUIRE(::mkdtemp(name.data()) != nullptr);
    path_ = name;
  }
  ~WorkFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  WorkFolder(const WorkFolder&) = delete;
  WorkFolder& operator=(const WorkFolder&) = delete;
  [[nodiscard]] std::filesystem::path operator/(const std::string& name) const { return path_ / name; }
  [[nodiscard]] const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

// In the words in which ./dev test looks for it. The test goes on, or ends as its caller likes.
inline void skip(const std::string& reason) { std::cout << "SKIP: " << reason << std::endl; }

struct Result {
  int code = -1;
  std::string out;
  std::string err;
};

// Runs `program` (found in PATH if it has no slash) in `folder`, whose subfolder "data" is the user's data folder.
inline Result run_program(const WorkFolder& folder, const std::string& program, const std::vector<std::string>& args) {
  const std::string out = folder / ".out";
  const std::string err = folder / ".err";
  const std::string data = folder / "data";
  std::vector<std::string> words = {program};
  words.insert(words.end(), args.begin(), args.end());
  std::vector<char*> argv;
  for (std::string& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);
  std::cout.flush();  // or the child would print it again
  std::fflush(nullptr);
  const pid_t child = ::fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    if (::chdir(folder.path().c_str()) == 0 && ::freopen("/dev/null", "r", stdin) != nullptr &&
        ::freopen(out.c_str(), "w", stdout) != nullptr && ::freopen(err.c_str(), "w", stderr) != nullptr &&
        ::setenv("XDG_DATA_HOME", data.c_str(), 1) == 0) {
      ::execvp(argv[0], argv.data());
    }
    ::_exit(127);
  }
  int status = 0;
  REQUIRE(::waitpid(child, &status, 0) == child);
  Result result{WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status), read_text(out), read_text(err)};
  if (!result.out.empty() && result.out.back() == '\n') result.out.pop_back();
  return result;
}

inline Result sevisor(const WorkFolder& folder, const std::vector<std::string>& args) {
  return run_program(folder, SEVISOR_BINARY, args);
}

// A refusal: exit code 35 and one line on standard error that has `text` in it, nothing on standard output.
inline void check_refused(const Result& result, const std::string& text = {}) {
  CAPTURE(result.err);
  CHECK(result.code == 35);
  CHECK(result.out.empty());
  CHECK(result.err.starts_with("sevisor: "));
  CHECK(std::count(result.err.begin(), result.err.end(), '\n') == 1);
  if (!text.empty()) CHECK_THAT(result.err, Catch::Contains(text));
}

// The same of a run that has told of its launch before.
inline void check_refused_with_log(const Result& result, const std::string& text) {
  CAPTURE(result.err);
  CHECK(result.code == 35);
  CHECK(result.out.empty());
  CHECK_THAT(result.err, Catch::Contains(text));
}

// The vectors (tests/data/measurement/measurement.json says whose) and their inputs.
class Vectors {
 public:
  explicit Vectors(const WorkFolder& folder) : folder_(folder) {
    json_ = nlohmann::json::parse(std::ifstream(data() / "measurement.json"));
  }

  [[nodiscard]] const nlohmann::json& operator[](const char* key) const { return json_.at(key); }

  // The path of an input by the name it has in the vectors; nullopt if it is not on this machine in this version.
  [[nodiscard]] std::optional<std::string> input(const std::string& name) {
    const auto known = paths_.find(name);
    if (known != paths_.end()) return known->get<std::string>();
    const auto entry = json_["inputs"].find(name);
    std::filesystem::path path = name.starts_with('/') ? std::filesystem::path(name) : data() / name;
    std::optional<Bytes> bytes;
    if (const auto patch = json_["hash_area_patch"].find(name); patch != json_["hash_area_patch"].end()) {
      bytes = read_file(patch->at(0).get<std::string>());
      const std::size_t offset = std::stoul(patch->at(1).get<std::string>(), nullptr, 16);
      const auto area = sev::from_hex(json_["hash_area_patch"]["bytes_hex"].get<std::string>());
      if (!bytes || offset + area->size() > bytes->size()) return std::nullopt;
      std::copy(area->begin(), area->end(), bytes->begin() + static_cast<std::ptrdiff_t>(offset));
      path = folder_ / std::filesystem::path(name).filename().string();
      put_file(path, *bytes);
    } else {
      bytes = read_file(path);
      if (!bytes && path.filename().string().starts_with("vmlinuz")) {
        path = std::filesystem::path(SEVISOR_GUEST_DIR) / "vmlinuz";
        bytes = read_file(path);
      }
    }
    if (!bytes) return std::nullopt;
    if (entry != json_["inputs"].end() && sev::to_hex(sev::sha256(*bytes)) != entry->at("sha256").get<std::string>()) {
      return std::nullopt;
    }
    paths_[name] = path.string();
    return path.string();
  }

 private:
  static std::filesystem::path data() {
    return std::filesystem::path(SEVISOR_SOURCE_DIR) / "tests" / "data" / "measurement";
  }
  const WorkFolder& folder_;
  nlohmann::json json_;
  nlohmann::json paths_ = nlohmann::json::object();
};

}  // namespace sevisor::test
