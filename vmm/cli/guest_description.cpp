#include "vmm/cli/guest_description.hpp"

#include <algorithm>
#include <cstddef>
#include <cstdio>
#include <fmt/format.h>
#include <fstream>
#include <future>
#include <vector>

#include "base/error.hpp"
#include "firmware/image.hpp"
#include "sev/policy.hpp"
#include "vmm/boot/file_kind.hpp"
#include "vmm/boot/input_file.hpp"

namespace sevisor::cli {

namespace {

constexpr std::size_t kHead = 64 << 10;           // bytes: enough to tell what a file is
constexpr std::uint64_t kMaxFirmware = 16 << 20;  // bytes; PC firmware ends at 4 GiB and begins above the APICs

void require_kernel(const std::string& path, const sev::FirmwareImage& firmware) {
  std::vector<std::byte> head(kHead);
  std::ifstream file(path, std::ios::binary);
  file.read(reinterpret_cast<char*>(head.data()), static_cast<std::streamsize>(head.size()));
  head.resize(static_cast<std::size_t>(file.gcount()));
  const auto kind = vmm::kind_of_no_kernel(head);
  if (!kind || (vmm::is_pe(head) && !is_built_in(firmware))) return;
  throw Error(ExitCode::kBadUsage, fmt::format("use the kernel '{}'", path), kind->is, kind->advice);
}

}  // namespace

sev::FirmwareImage built_in_firmware() { return {firmware::image(), "built in"}; }

bool is_built_in(const sev::FirmwareImage& firmware) {
  return std::ranges::equal(firmware.bytes(), built_in_firmware().bytes());
}

sev::FirmwareImage read_firmware(const std::string& path) {
  return {vmm::read_input_file("firmware", path, kMaxFirmware), path};
}

KernelFileHashes hash_kernel_files(const KernelFiles& files, const sev::FirmwareImage& firmware) {
  require_kernel(files.kernel, firmware);
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
