// What the user types or pipes in, on its way to the guest.
#pragma once

#include <thread>

#include "base/unique_fd.hpp"
#include "vmm/console/console_keys.hpp"
#include "vmm/console/serial_input.hpp"
#include "vmm/end/run_state.hpp"

namespace sevisor::vmm {

class ConsoleInput {
 public:
  // Reads `fd` until its end. With `keys`, Ctrl-a commands are obeyed, as on a raw terminal; without, every byte is the
  // guest's. `serial` and `state` must outlive this object. `filter` confines its thread.
  ConsoleInput(int fd, bool keys, SerialInput& serial, RunState& state, const ThreadFilter& filter = {});
  ~ConsoleInput();
  ConsoleInput(const ConsoleInput&) = delete;
  ConsoleInput& operator=(const ConsoleInput&) = delete;

 private:
  void read_all(int fd, bool keys) noexcept;
  [[nodiscard]] bool take(std::span<const std::byte> typed, bool keys);

  SerialInput& serial_;
  RunState& state_;
  ConsoleKeys keys_;
  UniqueFd stop_;
  std::thread thread_;
};

}  // namespace sevisor::vmm
