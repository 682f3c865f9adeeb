// The 64-bit stage's order of things; docs/firmware.md. Each step's header names the specification that it follows.
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "base/bytes.hpp"
#include "firmware/console.hpp"
#include "firmware/cpu.hpp"
#include "firmware/exceptions.hpp"
#include "firmware/guest_state.hpp"
#include "firmware/layout.h"
#include "firmware/linux_boot.hpp"
#include "firmware/mtrr.hpp"
#include "firmware/paging.hpp"
#include "firmware/processors.hpp"
#include "firmware/secret_area.hpp"
#include "firmware/smbios.hpp"

namespace sevisor::firmware {

namespace {
constexpr std::uint64_t kMiB = 1 << 20;

void check(Failure failure) noexcept {
  if (failure != Failure::kNone) give_up(failure);
}

void say_hello() noexcept {
  if (sev_es_active()) {
    print_line("SEV-ES active, GHCB protocol ", std::uint64_t{protocol_version()}, ", C-bit ",
               std::uint64_t(__builtin_ctzll(early_state().c_bit_mask)));
  } else {
    print_line(sev_active() ? "SEV active without encrypted state" : "no memory encryption");
  }
}

// Nobody but the launch can have put anything into the areas: a page of a guest without SEV is everybody's.
std::optional<KernelHashes> take_hashes() noexcept {
  std::optional<KernelHashes> hashes;
  if (!sev_active()) return hashes;
  check(read_hashes_table({reinterpret_cast<const std::byte*>(FW_HASHES_AREA), FW_HASHES_AREA_SIZE}, hashes));
  print_line(hashes ? "kernel, initrd and command line must have the measured hashes"
                    : "no kernel hashes: what boots is not measured");
  return hashes;
}

// Returns the secret as a setup_data item, 0 if there is none. A kernel that nobody measured gets none: without this
// rule a hypervisor could spoil the table of hashes, whose memory it can write, and boot a kernel of its own to read
// the secret.
std::uint64_t take_secret(bool measured) noexcept {
  const std::span page(reinterpret_cast<std::byte*>(FW_SECRET_PAGE), kPageSize);
  const std::size_t length = sev_active() ? secret_table_length(page.first(FW_SECRET_AREA_SIZE)) : 0;
  if (length != 0 && measured) {
    make_setup_data(page, length);
    print_line("launch secret handed on, ", std::uint64_t{length}, " bytes");
    return FW_SECRET_PAGE;
  }
  __builtin_memset(page.data(), 0, page.size());
  if (length != 0) print_line("launch secret wiped: what boots is not measured");
  return 0;
}
}  // namespace

extern "C" [[noreturn]] void firmware_main() noexcept {
  exceptions_open();
  console_open();
  say_hello();
  if (sev_active()) {
    share_pages(FW_BOUNCE, FW_BOUNCE + FW_BOUNCE_SIZE, early_state().c_bit_mask);
  }
  const auto types = set_memory_types();

  auto fw_cfg = FwCfg::open();
  if (!fw_cfg) give_up(Failure::kNoFwCfg);
  MemoryMap map;
  check(read_memory_map(*fw_cfg, map));
  check(map_high_memory(map, early_state().c_bit_mask));
  const Processors processors = start_processors(*fw_cfg, map, types);
  if (processors.missing != 0) {
    print_line(std::uint64_t{processors.others - processors.missing}, " of ", std::uint64_t{processors.others},
               processors.jump_table ? " application processors started"
                                     : " application processors started: the hypervisor takes no AP jump table");
  }
  std::uint64_t rsdp = 0;
  check(load_acpi_tables(*fw_cfg, map, rsdp));
  load_smbios(*fw_cfg, map);
  const std::optional<KernelHashes> hashes = take_hashes();
  LoadedKernel loaded;
  check(load_kernel(*fw_cfg, map, hashes, {.rsdp = rsdp, .setup_data = take_secret(hashes.has_value())}, loaded));
  print_line("kernel ", loaded.kernel_size / kMiB, " MiB at ", Hex{loaded.kernel}, ", initrd ",
             loaded.initrd_size / kMiB, " MiB at ", Hex{loaded.initrd});
  start_kernel(loaded);
}

}  // namespace sevisor::firmware
