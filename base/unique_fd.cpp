#include "base/unique_fd.hpp"

#include <unistd.h>

namespace sevisor {

void UniqueFd::reset() noexcept {
  if (fd_ >= 0) ::close(std::exchange(fd_, -1));
}

}  // namespace sevisor
