#include "vmm/boot/kernel_image.hpp"

#include <algorithm>
#include <fmt/format.h>

#include "base/bytes.hpp"
#include "base/error.hpp"
#include "firmware/elf_kernel.hpp"
#include "vmm/boot/bzimage.hpp"
#include "vmm/boot/file_kind.hpp"
#include "vmm/text/size_text.hpp"

namespace sevisor::vmm {

namespace {
constexpr std::size_t kElfSetupSize = 32;         // fw_cfg wants two parts; where they are cut is of no matter
constexpr std::uint64_t kInitrdMax = 0xbfffffff;  // the firmware places everything below 3 GiB

// Handed on whole: UEFI puts the two parts together again, and places what is in it as it likes.
constexpr std::uint32_t kPeCommandLineMax = 65535;  // bytes; no limit is known
constexpr KernelImage kPeImage = {.setup_size = kElfSetupSize,
                                  .load_address = 0,
                                  .init_size = 0,
                                  .initrd_max = kInitrdMax,
                                  .command_line_max = kPeCommandLineMax};

// By the firmware's own parser.
KernelImage parse_elf_image(std::span<const std::byte> image, std::string_view name) {
  firmware::ElfKernel kernel;
  if (const firmware::Failure failure = parse_elf(image, kernel); failure != firmware::Failure::kNone) {
    throw Error(ExitCode::kBadUsage, fmt::format("use the kernel '{}'", name), firmware::failure_text(failure),
                "Give a vmlinux or another static ELF executable for x86, whole, or a bzImage.");
  }
  return {.setup_size = kElfSetupSize,
          .load_address = kernel.begin,
          .init_size = kernel.end - kernel.begin,
          .initrd_max = kInitrdMax,
          .command_line_max = firmware::kElfCommandLineMax};
}
}  // namespace

KernelImage parse_kernel_image(std::span<const std::byte> image, std::string_view name, BootedBy firmware) {
  // Of a bzImage, which has such a header too, more can be checked.
  if (firmware == BootedBy::kOther && is_pe(image) && kind_of_no_kernel(image)) return kPeImage;
  return firmware::is_elf(image) ? parse_elf_image(image, name) : parse_bzimage(image, name);
}

void check_boot_fits(const KernelImage& kernel, std::size_t initrd_size, std::size_t command_line_size,
                     std::uint64_t low_memory) {
  if (command_line_size > kernel.command_line_max) {
    throw Error(ExitCode::kBadUsage, "use the command line",
                fmt::format("it has {} bytes, this kernel takes {}", command_line_size, kernel.command_line_max),
                "Shorten --append.");
  }
  const std::uint64_t initrd_pages = align_up(initrd_size, kPageSize);
  const std::uint64_t kernel_end = kernel.load_address + kernel.init_size;
  const std::uint64_t limit = std::min<std::uint64_t>(low_memory, kernel.initrd_max + 1);
  if (kernel_end < kernel.load_address || kernel_end > low_memory || initrd_size > limit || initrd_pages > limit ||
      (initrd_size != 0 && kernel_end > limit - initrd_pages)) {
    throw Error(ExitCode::kBadUsage,
                fmt::format("fit kernel and initrd into {} of memory below 4 GiB", size_text(low_memory)),
                fmt::format("the kernel needs memory up to {:#x}, the initrd has {} bytes", kernel_end, initrd_size),
                "Raise --memory.");
  }
}

}  // namespace sevisor::vmm
