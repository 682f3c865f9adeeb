// Private pages as the guest sees them, by order of the test, which in between does to the raw ones what a host can do.
#include "ghcb/exit_code.hpp"
#include "ghcb/ioio.hpp"
#include "tests/nae/guest/guest.hpp"

namespace sevisor::nae {

namespace {

constexpr std::uint64_t kPageBytes = 4096;
constexpr std::uint64_t kLineBytes = 64;

void copy(std::uint64_t to, std::uint64_t from) {
  for (std::uint64_t at = 0; at < kPageBytes; at += sizeof(std::uint64_t)) {
    *reinterpret_cast<volatile std::uint64_t*>(to + at) = *reinterpret_cast<const volatile std::uint64_t*>(from + at);
  }
}

void flush(std::uint64_t page) {
  for (std::uint64_t at = 0; at < kPageBytes; at += kLineBytes) {
    asm volatile("clflush (%0)" : : "r"(page + at) : "memory");
  }
}

}  // namespace

void run_orders() {
  const auto& order = *reinterpret_cast<const volatile Order*>(NAE_ORDER);
  while (true) {
    ask({.code = ghcb::kExitIoio, .info_1 = ghcb::encode(ghcb::IoAccess{.port = NAE_ORDER_PORT})}, {ghcb::Field::kRax});
    switch (order.kind) {
      case Order::Kind::kWrite:
        copy(order.page, NAE_ORDER_DATA);
        break;
      case Order::Kind::kRead:
        copy(NAE_ORDER_DATA, order.page);
        break;
      case Order::Kind::kFlush:
        flush(order.page);
        break;
      default:
        return;
    }
  }
}

}  // namespace sevisor::nae
