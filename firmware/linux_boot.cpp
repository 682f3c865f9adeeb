#include "firmware/linux_boot.hpp"

#include <span>

#include "base/bytes.hpp"
#include "firmware/acpi_loader.hpp"
#include "firmware/bzimage.hpp"
#include "firmware/cpu.hpp"
#include "firmware/layout.h"
#include "firmware/paging.hpp"
#include "firmware/sha_unit.hpp"

namespace sevisor::firmware {

namespace {
constexpr std::uint64_t kMiB = 1 << 20;
constexpr std::uint64_t kLowLimit = 0xc0000000;  // everything is placed below 3 GiB
constexpr std::size_t kE820BytesMax = 20 * MemoryMap::kCapacity;
constexpr std::uint32_t kScriptBytesMax = 64 * 1024;
constexpr std::uint32_t kAcpiFileBytesMax = 4 * 1024 * 1024;

extern "C" [[noreturn]] void enter_kernel(std::uint64_t entry, std::uint64_t boot_params) noexcept;

std::span<std::byte> memory(std::uint64_t address, std::uint64_t size) noexcept {
  return {reinterpret_cast<std::byte*>(address), size};
}

std::uint8_t cmos(std::uint8_t index) noexcept {
  out8(0x70, index);
  return in8(0x71);
}

// Memory above 16 MiB in units of 64 KiB, as QEMU has kept it in the CMOS since before fw_cfg (hw/i386/pc.c).
Failure add_cmos_memory(MemoryMap& map) noexcept {
  const std::uint64_t above_16_mib = (std::uint64_t{cmos(0x34)} | std::uint64_t{cmos(0x35)} << 8) << 16;
  const std::uint64_t above_4_gib =
      (std::uint64_t{cmos(0x5b)} | std::uint64_t{cmos(0x5c)} << 8 | std::uint64_t{cmos(0x5d)} << 16) << 16;
  if (above_16_mib == 0) return Failure::kMemoryMap;
  if (!map.set(0, 16 * kMiB + above_16_mib, MemoryType::kRam)) return Failure::kMemoryMap;
  if (!map.set(kMappedBytes, kMappedBytes + above_4_gib, MemoryType::kRam)) return Failure::kMemoryMap;
  return Failure::kNone;
}

// Files of the table loader, in memory that the map then reserves for ACPI.
class PlacedFiles final : public AcpiFiles {
 public:
  PlacedFiles(FwCfg& fw_cfg, MemoryMap& map) noexcept : fw_cfg_(fw_cfg), map_(map) {}

  Failure place(std::string_view name, std::uint32_t alignment, bool low, AcpiBlob& blob) override {
    const auto file = fw_cfg_.find(name);
    if (!file || file->size == 0 || file->size > kAcpiFileBytesMax) return Failure::kAcpiTables;
    const std::uint64_t size = align_up(file->size, kPageSize);
    const std::uint64_t align = alignment < kPageSize ? kPageSize : alignment;
    const auto address =
        low ? map_.find_top(size, align, FW_LOW_POOL, FW_LOW_POOL_END) : map_.find_top(size, align, kMiB, kLowLimit);
    if (!address || !map_.set(*address, *address + size, MemoryType::kAcpi)) return Failure::kNoMemory;
    blob.bytes = memory(*address, file->size);
    blob.address = *address;
    return fw_cfg_.read(file->key, blob.bytes) ? Failure::kNone : Failure::kFwCfgTransfer;
  }

 private:
  FwCfg& fw_cfg_;
  MemoryMap& map_;
};

Failure load_initrd(FwCfg& fw_cfg, const MemoryMap& map, const KernelHeader& header, const LoadedKernel& kernel,
                    BootRequest& request) noexcept {
  const auto size = fw_cfg.read32(FwCfgKey::kInitrdSize);
  if (!size) return Failure::kFwCfgTransfer;
  if (*size == 0) return Failure::kNone;
  // Above the kernel's own memory: it is found from the top, so it only has to end there.
  const std::uint64_t low = kernel.kernel + header.init_size;
  const std::uint64_t high = header.initrd_max + 1 < kLowLimit ? header.initrd_max + 1 : kLowLimit;
  auto address = map.find_top(*size, kPageSize, low, high);
  if (!address) address = map.find_top(*size, kPageSize, kMiB, kernel.kernel < high ? kernel.kernel : high);
  if (!address) return Failure::kInitrd;
  request.initrd = *address;
  request.initrd_size = *size;
  return fw_cfg.read(FwCfgKey::kInitrdData, memory(*address, *size)) ? Failure::kNone : Failure::kFwCfgTransfer;
}

// `text`: what the kernel will read, with the zero that ends it.
Failure load_command_line(FwCfg& fw_cfg, const KernelHeader& header, std::span<const std::byte>& text) noexcept {
  const auto size = fw_cfg.read32(FwCfgKey::kCmdlineSize);  // with the terminating zero
  if (!size) return Failure::kFwCfgTransfer;
  if (*size > FW_COMMAND_LINE_SIZE || *size > std::uint64_t{header.command_line_max} + 1) return Failure::kCommandLine;
  const auto place = memory(FW_COMMAND_LINE, *size == 0 ? 1 : *size);
  if (*size != 0 && !fw_cfg.read(FwCfgKey::kCmdlineData, place)) return Failure::kFwCfgTransfer;
  place.back() = std::byte{0};
  text = place;
  return Failure::kNone;
}
}  // namespace

Failure read_memory_map(FwCfg& fw_cfg, MemoryMap& map) noexcept {
  if (const auto file = fw_cfg.find("etc/e820")) {
    std::byte table[kE820BytesMax];
    if (file->size > sizeof table) return Failure::kMemoryMap;
    const auto used = std::span(table).first(file->size);
    if (!fw_cfg.read(file->key, used)) return Failure::kFwCfgTransfer;
    if (const Failure failure = map.add_e820(used); failure != Failure::kNone) return failure;
  } else if (const Failure failure = add_cmos_memory(map); failure != Failure::kNone) {
    return failure;
  }
  // What the firmware itself runs in must be RAM, or nothing here can be right.
  if (!map.is_ram(0, FW_LOW_POOL_END)) return Failure::kMemoryMap;
  const bool kept = map.set(FW_LOW_POOL_END, kMiB, MemoryType::kReserved) &&  // EBDA, VGA, option and system ROM
                    map.set(FW_RESERVED_BEGIN, FW_RESERVED_END, MemoryType::kReserved) &&
                    map.set(FW_SECRET_PAGE, FW_SECRET_PAGE + kPageSize, MemoryType::kRam) &&  // never shared
                    map.set(FW_BOUNCE, FW_BOUNCE + FW_BOUNCE_SIZE, MemoryType::kReserved) &&
                    map.set(FW_IMAGE, std::uint64_t{FW_IMAGE} + FW_IMAGE_SIZE, MemoryType::kReserved);
  return kept ? Failure::kNone : Failure::kMemoryMap;
}

Failure load_acpi_tables(FwCfg& fw_cfg, MemoryMap& map, std::uint64_t& rsdp) noexcept {
  rsdp = 0;
  const auto file = fw_cfg.find("etc/table-loader");
  if (!file) return Failure::kNone;
  if (file->size > kScriptBytesMax) return Failure::kAcpiTables;
  // The script is needed only now; meanwhile no table is put over it.
  const auto place = map.find_bottom(align_up(file->size, kPageSize), kPageSize, kMiB, kLowLimit);
  if (!place) return Failure::kNoMemory;
  const std::uint64_t end = align_up(*place + file->size, kPageSize);
  const auto script = memory(*place, file->size);
  if (!map.set(*place, end, MemoryType::kReserved)) return Failure::kMemoryMap;
  if (!fw_cfg.read(file->key, script)) return Failure::kFwCfgTransfer;
  PlacedFiles files(fw_cfg, map);
  AcpiLoader loader;
  const Failure failure = loader.run(script, files);
  if (!map.set(*place, end, MemoryType::kRam)) return Failure::kMemoryMap;
  rsdp = loader.rsdp();
  return failure;
}

Failure load_kernel(FwCfg& fw_cfg, const MemoryMap& map, const std::optional<KernelHashes>& hashes,
                    const BootExtras& extras, LoadedKernel& loaded) noexcept {
  const auto setup_size = fw_cfg.read32(FwCfgKey::kSetupSize);
  const auto kernel_size = fw_cfg.read32(FwCfgKey::kKernelSize);
  if (!setup_size || !kernel_size) return Failure::kFwCfgTransfer;
  if (*setup_size == 0 || *kernel_size == 0) return Failure::kNoKernel;
  // The whole file first, where nothing that it says matters; once it is known to be the right one it moves to its
  // place.
  const std::uint64_t file_size = std::uint64_t{*setup_size} + *kernel_size;
  const auto place = map.find_top(file_size, kPageSize, kMiB, kLowLimit);
  if (!place) return Failure::kNoMemory;
  const auto file = memory(*place, file_size);
  const auto setup = file.first(*setup_size);
  const auto kernel = file.subspan(*setup_size);
  if (!fw_cfg.read(FwCfgKey::kSetupData, setup)) return Failure::kFwCfgTransfer;
  if (!fw_cfg.read(FwCfgKey::kKernelData, kernel)) return Failure::kFwCfgTransfer;
  std::optional<ShaUnit> sha;
  if (hashes) sha.emplace();
  if (hashes && sha->hash(file) != hashes->kernel) return Failure::kKernelHash;

  // A copy: the kernel's place may be where the file is.
  std::byte head_bytes[kBootParamsBytes];
  const auto head = std::span(head_bytes).first(setup.size() < sizeof head_bytes ? setup.size() : sizeof head_bytes);
  __builtin_memcpy(head.data(), setup.data(), head.size());
  KernelHeader header;
  if (const Failure failure = parse_kernel(head, *setup_size, *kernel_size, header); failure != Failure::kNone) {
    return failure;
  }
  if (const Failure failure = place_kernel(header, map, loaded.kernel); failure != Failure::kNone) return failure;
  loaded.kernel_size = *kernel_size;
  loaded.entry = loaded.kernel + kEntry64Offset;
  __builtin_memmove(memory(loaded.kernel, *kernel_size).data(), kernel.data(), kernel.size());

  BootRequest request{.rsdp = extras.rsdp, .setup_data = extras.setup_data, .kernel = loaded.kernel};
  if (const Failure failure = load_initrd(fw_cfg, map, header, loaded, request); failure != Failure::kNone) {
    return failure;
  }
  if (hashes && sha->hash(memory(request.initrd, request.initrd_size)) != hashes->initrd) return Failure::kInitrdHash;
  std::span<const std::byte> command_line;
  if (const Failure failure = load_command_line(fw_cfg, header, command_line); failure != Failure::kNone) {
    return failure;
  }
  if (hashes && sha->hash(command_line) != hashes->command_line) return Failure::kCommandLineHash;
  request.command_line = FW_COMMAND_LINE;
  loaded.initrd = request.initrd;
  loaded.initrd_size = request.initrd_size;

  const auto params = memory(FW_BOOT_PARAMS, kBootParamsBytes).first<kBootParamsBytes>();
  __builtin_memset(params.data(), 0, params.size());
  fill_boot_params(params, head, header, request, map);
  return Failure::kNone;
}

void start_kernel(const LoadedKernel& loaded) noexcept { enter_kernel(loaded.entry, FW_BOOT_PARAMS); }

}  // namespace sevisor::firmware
