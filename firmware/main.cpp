// The 64-bit stage's order of things.
#include "firmware/console.hpp"
#include "firmware/cpu.hpp"
#include "firmware/exceptions.hpp"
#include "firmware/guest_state.hpp"
#include "firmware/layout.h"
#include "firmware/linux_boot.hpp"
#include "firmware/mtrr.hpp"
#include "firmware/paging.hpp"
#include "firmware/processors.hpp"

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
}  // namespace

extern "C" [[noreturn]] void firmware_main() noexcept {
  exceptions_open();
  console_open();
  say_hello();
  if (sev_active()) {
    share_pages(FW_BOUNCE, FW_BOUNCE + FW_BOUNCE_SIZE, early_state().c_bit_mask);
    __builtin_memset(reinterpret_cast<void*>(FW_BOUNCE), 0, FW_BOUNCE_SIZE);
  }
  const MemoryTypes types = set_memory_types();

  auto fw_cfg = FwCfg::open();
  if (!fw_cfg) give_up(Failure::kNoFwCfg);
  MemoryMap map;
  check(read_memory_map(*fw_cfg, map));
  const Processors processors = start_processors(*fw_cfg, types);
  if (sev_es_active() && processors.started + 1 != processors.expected) {
    print_line(std::uint64_t{processors.started}, " of ", std::uint64_t{processors.expected - 1},
               processors.jump_table ? " application processors started"
                                     : " application processors started: the hypervisor takes no AP jump table");
  }
  std::uint64_t rsdp = 0;
  check(load_acpi_tables(*fw_cfg, map, rsdp));
  LoadedKernel loaded;
  check(load_kernel(*fw_cfg, map, rsdp, loaded));
  print_line("kernel ", loaded.kernel_size / kMiB, " MiB at ", Hex{loaded.kernel}, ", initrd ",
             loaded.initrd_size / kMiB, " MiB at ", Hex{loaded.initrd});
  start_kernel(loaded);
}

}  // namespace sevisor::firmware
