// Weak stand-ins until the files that define these have landed; removed then.
#include "emulator/cpu/core.hpp"
#include "emulator/cpu/decoder.hpp"

namespace sevisor::emulator {

__attribute__((weak)) void add_system(SelectorTable& /*table*/) {}
__attribute__((weak)) bool Core::translate(std::uint64_t /*va*/, Access /*access*/, bool /*supervisor*/,
                                           Translation& /*out*/) noexcept {
  return raise(kVectorGp, 0);
}
__attribute__((weak)) bool Core::deliver_fault() noexcept { return false; }
__attribute__((weak)) bool Core::deliver_injected(std::uint64_t /*event*/) noexcept { return false; }
__attribute__((weak)) void Core::note_single_step() noexcept { raise(kVectorDb); }

}  // namespace sevisor::emulator
