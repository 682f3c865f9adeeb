// What a descriptor of the emulated host stands for, and the table of its ioctls.
#pragma once

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <memory>
#include <span>

#include "base/mapping.hpp"

namespace sevisor::emulator {

class File {
 public:
  File() = default;
  File(const File&) = delete;
  File& operator=(const File&) = delete;
  virtual ~File() = default;

  // The result, or a negative errno.
  virtual int ioctl(unsigned long request, void* argument) = 0;
  // The memory that mmap of this descriptor shares; null: it has none.
  virtual std::shared_ptr<Mapping> shared_area() { return nullptr; }
};

// An ioctl is found by its full 32-bit number: two share a command number on descriptors of different kinds.
template <class Kind>
struct Ioctl {
  unsigned long request;
  int (Kind::*handler)(void* argument);
};

// `unknown`: the negative errno of a number that is not in the table.
template <class Kind>
int dispatch(Kind& file, std::span<const Ioctl<Kind>> table, unsigned long request, void* argument, int unknown) {
  const auto row = std::find_if(table.begin(), table.end(),
                                [request](const Ioctl<Kind>& r) { return r.request == (request & 0xffffffff); });
  return row == table.end() ? unknown : (file.*row->handler)(argument);
}

}  // namespace sevisor::emulator
