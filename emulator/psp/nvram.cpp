#include "emulator/psp/nvram.hpp"

#include <cstdlib>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>
#include <utility>

#include "base/unique_fd.hpp"

namespace sevisor::emulator {

namespace {

constexpr std::size_t kMaxSize = 32 * 1024;  // bytes, as the firmware's NV area has (Linux psp-sev.h NV_LENGTH)

class VolatileNvram final : public Nvram {
 public:
  [[nodiscard]] sev::SecretBytes read() const override { return bytes_; }
  [[nodiscard]] bool write(std::span<const std::byte> bytes) override {
    bytes_.assign(bytes.begin(), bytes.end());
    return true;
  }

 private:
  sev::SecretBytes bytes_;
};

class FileNvram final : public Nvram {
 public:
  explicit FileNvram(std::string path) : path_(std::move(path)) {}

  [[nodiscard]] sev::SecretBytes read() const override {
    const UniqueFd fd(::open(path_.c_str(), O_RDONLY | O_CLOEXEC));
    if (!fd) return {};
    sev::SecretBytes bytes(kMaxSize);
    const ssize_t size = ::read(fd.get(), bytes.data(), bytes.size());
    bytes.resize(size < 0 ? 0 : static_cast<std::size_t>(size));
    return bytes;
  }

  [[nodiscard]] bool write(std::span<const std::byte> bytes) override {
    std::string temporary = path_ + ".XXXXXX";
    const UniqueFd fd(::mkostemp(temporary.data(), O_CLOEXEC));  // with mode 0600
    if (!fd) return false;
    const bool done = ::write(fd.get(), bytes.data(), bytes.size()) == static_cast<ssize_t>(bytes.size()) &&
                      ::fsync(fd.get()) == 0 && ::rename(temporary.c_str(), path_.c_str()) == 0;
    if (!done) ::unlink(temporary.c_str());
    return done;
  }

 private:
  std::string path_;
};

}  // namespace

std::shared_ptr<Nvram> make_volatile_nvram() { return std::make_shared<VolatileNvram>(); }
std::shared_ptr<Nvram> make_file_nvram(std::string path) { return std::make_shared<FileNvram>(std::move(path)); }

}  // namespace sevisor::emulator
