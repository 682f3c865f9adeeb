#include "vmm/cli/guest_description.hpp"

#include <fmt/format.h>
#include <future>

#include "base/error.hpp"
#include "firmware/image.hpp"

namespace sevisor::cli {

namespace {

constexpr std::uint64_t kMaxFirmware = 16 << 20;  // bytes; PC firmware ends at 4 GiB and begins above the APICs

// The same error, told of this file.
template <class Read>
auto of_file(const FirmwareFile& firmware, Read read) {
  try {
    return read();
  } catch (const Error& error) {
    throw Error(error.exit_code(), fmt::format("use the firmware '{}'", firmware.name()), error.came_back(),
                error.advice());
  }
}

}  // namespace

FirmwareFile::FirmwareFile(const std::string& path) : name_(path.empty() ? "built in" : path) {
  if (path.empty()) {
    image_ = firmware::image();
    return;
  }
  file_ = vmm::read_input_file("firmware", path, kMaxFirmware);
  image_ = *file_;
}

sev::FooterTable FirmwareFile::table() const {
  return of_file(*this, [this] { return sev::parse_footer_table(image_); });
}

KernelFileHashes hash_kernel_files(const KernelFiles& files) {
  KernelFileHashes result;
  // get() passes on what the thread threw.
  std::future<vmm::FileHash> initrd;
  if (files.initrd) {
    initrd = std::async(std::launch::async, [&files] { return vmm::hash_file("initrd", *files.initrd); });
  } else {
    result.initrd.sha256 = sev::sha256({});
  }
  result.kernel = vmm::hash_file("kernel", files.kernel);
  if (files.initrd) result.initrd = initrd.get();
  if (result.kernel.size == 0) {
    throw Error(ExitCode::kBadUsage, fmt::format("read the kernel '{}'", files.kernel), "it is empty",
                "Give a kernel image.");
  }
  result.hashes = {sev::cmdline_hash(files.cmdline.value_or("")), result.initrd.sha256, result.kernel.sha256};
  return result;
}

sev::FooterArea hashes_area_of(const FirmwareFile& firmware) {
  return of_file(firmware, [&] { return sev::require_hashes_area(sev::parse_footer_table(firmware.image())); });
}

std::uint32_t ap_reset_address_of(const FirmwareFile& firmware, unsigned vcpus) {
  if (vcpus <= 1) return 0;
  return of_file(firmware, [&] { return sev::require_ap_reset_address(sev::parse_footer_table(firmware.image())); });
}

}  // namespace sevisor::cli
