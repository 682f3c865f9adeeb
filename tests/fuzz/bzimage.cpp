// The Linux boot protocol's header: the input is a kernel image.
#include "vmm/bzimage.hpp"

#include <cstddef>
#include <cstdint>
#include <span>

#include "base/error.hpp"
#include "check.hpp"

using namespace sevisor;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  try {
    const vmm::BzImage kernel = vmm::parse_bzimage(std::span(reinterpret_cast<const std::byte*>(data), size), "fuzz");
    // The rest of the file is what fw_cfg hands out as the kernel.
    FUZZ_CHECK(kernel.setup_size < size);
    vmm::check_boot_fits(kernel, 14'000'000, 100, std::uint64_t{512} << 20);
    // It fits, so the sums that the firmware will make do not overflow.
    FUZZ_CHECK(kernel.load_address + kernel.init_size >= kernel.load_address);
    FUZZ_CHECK(kernel.load_address + kernel.init_size <= std::uint64_t{512} << 20);
  } catch (const Error&) {
  }
  return 0;
}
