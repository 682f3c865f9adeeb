// The firmware's reading of a kernel: setup part, sizes as the hypervisor claims them, and the memory map.
#include <array>
#include <cstddef>

#include "check.hpp"
#include "firmware/bzimage.hpp"
#include "small_kernel.hpp"

using namespace sevisor;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  fuzz::Input input(data, size);
  const std::uint64_t setup_size = fuzz::kSmallKernelSetup + input.take<std::uint16_t>();
  const std::uint64_t kernel_size = fuzz::kSmallKernelRest + input.take<std::uint32_t>();
  const std::span<const std::byte> e820 = input.bytes(std::size_t{20} * (input.take<std::uint8_t>() % 4));
  std::vector<std::byte> image = fuzz::small_kernel();
  fuzz::spoil(image, input);
  const std::span<const std::byte> setup = std::span(image).first(std::min(image.size(), firmware::kBootParamsBytes));

  firmware::MemoryMap map;
  constexpr std::uint64_t kMemory = std::uint64_t{512} << 20;
  FUZZ_CHECK(map.set(0, kMemory, firmware::MemoryType::kRam));
  (void)map.add_e820(e820);

  firmware::KernelHeader header;
  if (firmware::parse_kernel(setup, setup_size, kernel_size, header) != firmware::Failure::kNone) return 0;
  FUZZ_CHECK(header.alignment >= 4096 && (header.alignment & (header.alignment - 1)) == 0);
  FUZZ_CHECK(header.header_end <= firmware::kSetupHeaderEndMax && header.header_end <= setup.size());
  firmware::BootRequest request;
  if (firmware::place_kernel(header, map, request.kernel) != firmware::Failure::kNone) return 0;
  // The kernel is copied there before it runs, and runs with all of init_size.
  FUZZ_CHECK(map.is_ram(request.kernel, request.kernel + header.init_size));
  FUZZ_CHECK(kernel_size <= header.init_size);
  std::array<std::byte, firmware::kBootParamsBytes> params{};
  firmware::fill_boot_params(params, setup, header, request, map);
  return 0;
}
