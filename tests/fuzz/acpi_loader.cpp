// The firmware's ACPI table loader facing a hostile hypervisor: the input is the script and the files' sizes.
#include "firmware/acpi_loader.hpp"

#include <cstddef>
#include <memory>
#include <vector>

#include "check.hpp"
#include "input.hpp"

using namespace sevisor;

namespace {

// Each file has memory of its own, so that AddressSanitizer sees what goes past it.
class Files final : public firmware::AcpiFiles {
 public:
  explicit Files(std::size_t size) : size_(size) {}

  firmware::Failure place(std::string_view name, std::uint32_t alignment, bool /*low*/,
                          firmware::AcpiBlob& blob) override {
    FUZZ_CHECK(alignment != 0 && (alignment & (alignment - 1)) == 0);
    FUZZ_CHECK(name.size() < firmware::kLoaderNameBytes);
    files_.push_back(std::make_unique<std::vector<std::byte>>(size_));
    blob.bytes = *files_.back();
    blob.address = 0x1000 * files_.size();
    return firmware::Failure::kNone;
  }

 private:
  std::size_t size_;
  std::vector<std::unique_ptr<std::vector<std::byte>>> files_;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  fuzz::Input input(data, size);
  Files files(input.take<std::uint8_t>());
  firmware::AcpiLoader loader;
  (void)loader.run(input.bytes(size), files);
  (void)loader.rsdp();
  return 0;
}
