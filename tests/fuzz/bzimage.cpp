// The VMM's reading of a kernel image.
#include "base/error.hpp"
#include "check.hpp"
#include "small_kernel.hpp"
#include "vmm/boot/kernel_image.hpp"

using namespace sevisor;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  fuzz::Input input(data, size);
  const std::uint64_t memory = std::uint64_t{input.take<std::uint16_t>()} << 20;
  const auto initrd_size = input.take<std::uint32_t>();
  std::vector<std::byte> image = fuzz::small_kernel();
  fuzz::spoil(image, input);
  try {
    const vmm::KernelImage kernel = vmm::parse_kernel_image(image, "fuzz");
    // The rest of the file is what fw_cfg hands out as the kernel.
    FUZZ_CHECK(kernel.setup_size < image.size());
    vmm::check_boot_fits(kernel, initrd_size, 100, memory);
    // It fits, so the sums that the firmware will make do not overflow.
    FUZZ_CHECK(kernel.load_address + kernel.init_size >= kernel.load_address);
    FUZZ_CHECK(kernel.load_address + kernel.init_size <= memory && initrd_size <= memory);
  } catch (const Error&) {
  }
  return 0;
}
