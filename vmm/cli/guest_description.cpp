#include "vmm/cli/guest_description.hpp"

#include <cstdio>
#include <fmt/format.h>
#include <future>

#include "base/error.hpp"
#include "firmware/image.hpp"
#include "sev/policy.hpp"
#include "vmm/boot/input_file.hpp"

namespace sevisor::cli {

namespace {

constexpr std::uint64_t kMaxFirmware = 16 << 20;  // bytes; PC firmware ends at 4 GiB and begins above the APICs

}  // namespace

sev::FirmwareImage built_in_firmware() { return {firmware::image(), "built in"}; }

sev::FirmwareImage read_firmware(const std::string& path) {
  return {vmm::read_input_file("firmware", path, kMaxFirmware), path};
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

void warn_of_reserved_bits(std::uint32_t policy) {
  fmt::print(stderr, "sevisor: warning: use the policy {:#x} ({}): {}\n", policy, sev::policy_text(policy),
             sev::reserved_policy_text(policy));
}

std::uint32_t ap_reset_address_of(const sev::FirmwareImage& firmware, unsigned vcpus) {
  return vcpus <= 1 ? 0 : firmware.ap_reset_address();
}

}  // namespace sevisor::cli
