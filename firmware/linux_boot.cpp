#include "firmware/linux_boot.hpp"

#include <span>

#include "base/bytes.hpp"
#include "firmware/acpi_loader.hpp"
#include "firmware/bzimage.hpp"
#include "firmware/cpu.hpp"
#include "firmware/elf_kernel.hpp"
#include "firmware/guest_state.hpp"
#include "firmware/layout.h"
#include "firmware/paging.hpp"
#include "firmware/pvh.hpp"
#include "firmware/sha_unit.hpp"

namespace sevisor::firmware {

namespace {
constexpr std::uint64_t kMiB = 1 << 20;
constexpr std::uint64_t kLowLimit = FW_LOW_LIMIT;
constexpr std::size_t kE820BytesMax = 20 * MemoryMap::kCapacity;
constexpr std::uint32_t kScriptBytesMax = 64 * 1024;
constexpr std::uint32_t kAcpiFileBytesMax = 4 * 1024 * 1024;

extern "C" [[noreturn]] void enter_kernel(std::uint64_t entry, std::uint64_t boot_params) noexcept;
extern "C" [[noreturn]] void enter_pvh(std::uint64_t entry, std::uint64_t start_info) noexcept;

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

Failure load_initrd(FwCfg& fw_cfg, const MemoryMap& map, const KernelHeader& header, std::uint64_t kernel,
                    std::uint64_t kernel_end, BootRequest& request) noexcept {
  const auto size = fw_cfg.read32(FwCfgKey::kInitrdSize);
  if (!size) return Failure::kFwCfgTransfer;
  if (*size == 0) return Failure::kNone;
  // Above the kernel's own memory: it is found from the top, so it only has to end there.
  const std::uint64_t high = header.initrd_max + 1 < kLowLimit ? header.initrd_max + 1 : kLowLimit;
  auto address = map.find_top(*size, kPageSize, kernel_end, high);
  if (!address) address = map.find_top(*size, kPageSize, kMiB, kernel < high ? kernel : high);
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

// What boot_params takes of the kernel's setup part. `bytes` is a copy: the kernel's place may be where the file is.
struct SetupHeader {
  std::span<std::byte, kBootParamsBytes> bytes;
  KernelHeader header{};

  // For a kernel without one.
  void make_up() noexcept {
    __builtin_memset(bytes.data(), 0, bytes.size());
    make_setup_header(bytes, kElfCommandLineMax, header);
  }
};

// The whole file, at the top of memory, where nothing that it says matters; once it is known to be the right one it
// moves to its place. `setup_size`: how much of it fw_cfg calls the setup part.
Failure read_kernel_file(FwCfg& fw_cfg, const MemoryMap& map, std::span<std::byte>& file,
                         std::size_t& setup_size) noexcept {
  const auto setup = fw_cfg.read32(FwCfgKey::kSetupSize);
  const auto kernel = fw_cfg.read32(FwCfgKey::kKernelSize);
  if (!setup || !kernel) return Failure::kFwCfgTransfer;
  if (*setup == 0 || *kernel == 0) return Failure::kNoKernel;
  const std::uint64_t file_size = std::uint64_t{*setup} + *kernel;
  const auto place = map.find_top(file_size, kPageSize, kMiB, kLowLimit);
  if (!place) return Failure::kNoMemory;
  file = memory(*place, file_size);
  setup_size = *setup;
  if (!fw_cfg.read(FwCfgKey::kSetupData, file.first(setup_size))) return Failure::kFwCfgTransfer;
  return fw_cfg.read(FwCfgKey::kKernelData, file.subspan(setup_size)) ? Failure::kNone : Failure::kFwCfgTransfer;
}

Failure load_bzimage(std::span<const std::byte> file, std::size_t setup_size, const MemoryMap& map, SetupHeader& setup,
                     LoadedKernel& loaded) noexcept {
  const auto head = file.first(setup_size < kBootParamsBytes ? setup_size : kBootParamsBytes);
  const auto kernel = file.subspan(setup_size);
  __builtin_memcpy(setup.bytes.data(), head.data(), head.size());
  if (const Failure failure = parse_kernel(setup.bytes.first(head.size()), setup_size, kernel.size(), setup.header);
      failure != Failure::kNone) {
    return failure;
  }
  if (const Failure failure = place_kernel(setup.header, map, loaded.kernel); failure != Failure::kNone) return failure;
  loaded.kernel_size = kernel.size();
  loaded.memory_size = setup.header.init_size;
  loaded.entry = loaded.kernel + kEntry64Offset;
  __builtin_memmove(memory(loaded.kernel, kernel.size()).data(), kernel.data(), kernel.size());
  return Failure::kNone;
}

// Linux's PVH entry turns paging on without the C-bit, so under SEV a kernel that has a 64-bit entry goes there:
// Linux's takes boot_params and the page tables as they are.
Failure load_elf(std::span<const std::byte> file, const MemoryMap& map, SetupHeader& setup,
                 LoadedKernel& loaded) noexcept {
  ElfKernel kernel;
  if (const Failure failure = parse_elf(file, kernel); failure != Failure::kNone) return failure;
  if (!map.is_ram(kernel.begin, kernel.end)) return Failure::kNoMemory;
  const auto place = reinterpret_cast<std::uint64_t>(file.data());
  if (kernel.begin < place + file.size() && place < kernel.end) return Failure::kNoMemory;
  for (const ElfSegment& segment : std::span(kernel.segments).first(kernel.count)) {
    const auto to = memory(segment.address, segment.memory_size);
    __builtin_memcpy(to.data(), file.data() + segment.offset, segment.size);
    __builtin_memset(to.data() + segment.size, 0, segment.memory_size - segment.size);
  }
  loaded.pvh = kernel.pvh_entry && !(sev_active() && kernel.entry);
  loaded.entry = loaded.pvh ? *kernel.pvh_entry : *kernel.entry;
  loaded.kernel = kernel.begin;
  loaded.kernel_size = loaded.memory_size = kernel.end - kernel.begin;
  setup.make_up();
  return Failure::kNone;
}

// QEMU itself puts an ELF kernel into memory that is not encrypted, and then has its PVH entry here (hw/i386/x86.c).
// Its entry for multiboot kernels, which have no setup part, is not that.
std::optional<std::uint32_t> preloaded_entry(FwCfg& fw_cfg) noexcept {
  if (sev_active()) return std::nullopt;
  const auto entry = fw_cfg.read32(FwCfgKey::kKernelEntry);
  std::byte magic[4];
  if (!entry || *entry == 0 || !fw_cfg.read(FwCfgKey::kSetupData, magic) || !is_elf(magic)) return std::nullopt;
  return entry;
}

Failure take_preloaded(FwCfg& fw_cfg, const MemoryMap& map, std::uint32_t entry, LoadedKernel& loaded) noexcept {
  const auto address = fw_cfg.read32(FwCfgKey::kKernelAddress);
  const auto size = fw_cfg.read32(FwCfgKey::kKernelSize);
  if (!address || !size) return Failure::kFwCfgTransfer;
  if (*address < kMiB || !map.is_ram(*address, std::uint64_t{*address} + *size)) return Failure::kNoMemory;
  loaded = {.entry = entry, .pvh = true, .kernel = *address, .kernel_size = *size, .memory_size = *size};
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
  std::optional<ShaUnit> sha;
  if (hashes) sha.emplace();
  std::byte head_bytes[kBootParamsBytes];
  SetupHeader setup{.bytes = head_bytes};
  if (const auto entry = preloaded_entry(fw_cfg)) {
    if (const Failure failure = take_preloaded(fw_cfg, map, *entry, loaded); failure != Failure::kNone) return failure;
    setup.make_up();
  } else {
    std::span<std::byte> file;
    std::size_t setup_size = 0;
    if (const Failure failure = read_kernel_file(fw_cfg, map, file, setup_size); failure != Failure::kNone) {
      return failure;
    }
    if (hashes && sha->hash(file) != hashes->kernel) return Failure::kKernelHash;
    const Failure failure =
        is_elf(file) ? load_elf(file, map, setup, loaded) : load_bzimage(file, setup_size, map, setup, loaded);
    if (failure != Failure::kNone) return failure;
  }

  BootRequest request{.rsdp = extras.rsdp, .setup_data = extras.setup_data, .kernel = loaded.kernel};
  const std::uint64_t kernel_end = loaded.kernel + loaded.memory_size;
  if (const Failure failure = load_initrd(fw_cfg, map, setup.header, loaded.kernel, kernel_end, request);
      failure != Failure::kNone) {
    return failure;
  }
  if (hashes && sha->hash(memory(request.initrd, request.initrd_size)) != hashes->initrd) return Failure::kInitrdHash;
  std::span<const std::byte> command_line;
  if (const Failure failure = load_command_line(fw_cfg, setup.header, command_line); failure != Failure::kNone) {
    return failure;
  }
  if (hashes && sha->hash(command_line) != hashes->command_line) return Failure::kCommandLineHash;
  request.command_line = FW_COMMAND_LINE;
  loaded.initrd = request.initrd;
  loaded.initrd_size = request.initrd_size;

  if (loaded.pvh) {
    const auto info = memory(FW_START_INFO, kStartInfoBytes).first<kStartInfoBytes>();
    __builtin_memset(info.data(), 0, info.size());
    fill_start_info(info, FW_START_INFO, request, map);
    return Failure::kNone;
  }
  const auto params = memory(FW_BOOT_PARAMS, kBootParamsBytes).first<kBootParamsBytes>();
  __builtin_memset(params.data(), 0, params.size());
  fill_boot_params(params, setup.bytes, setup.header, request, map);
  return Failure::kNone;
}

void start_kernel(const LoadedKernel& loaded) noexcept {
  if (loaded.pvh) enter_pvh(loaded.entry, FW_START_INFO);
  enter_kernel(loaded.entry, FW_BOOT_PARAMS);
}

}  // namespace sevisor::firmware
