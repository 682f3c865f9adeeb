#include "emulator/kvm/event_watch.hpp"

#include <csignal>
#include <cstdint>
#include <pthread.h>
#include <stdexcept>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>
#include <utility>

namespace sevisor::emulator {

namespace {

// Each signal of an eventfd is told once, whether or not somebody has read it meanwhile.
bool watch(int poll, int fd) {
  epoll_event event{};
  event.events = EPOLLIN | EPOLLET;
  event.data.fd = fd;
  return ::epoll_ctl(poll, EPOLL_CTL_ADD, fd, &event) == 0;
}

}  // namespace

EventWatch::EventWatch(Notify notify)
    : notify_(std::move(notify)),
      poll_(std::make_shared<const UniqueFd>(::epoll_create1(EPOLL_CLOEXEC))),
      stop_(::eventfd(0, EFD_CLOEXEC)) {
  if (!*poll_ || !stop_ || !watch(poll_->get(), stop_.get())) {
    throw std::runtime_error("no descriptor left to watch eventfds with");
  }
  // Signals are for the VMM's own threads.
  sigset_t all;
  sigset_t before;
  sigfillset(&all);
  pthread_sigmask(SIG_BLOCK, &all, &before);
  const auto restore = [&] { pthread_sigmask(SIG_SETMASK, &before, nullptr); };
  try {
    thread_ = std::thread([this] { work(); });
  } catch (...) {
    restore();
    throw;
  }
  restore();
}

EventWatch::~EventWatch() {
  const std::uint64_t one = 1;
  [[maybe_unused]] const auto written = ::write(stop_.get(), &one, sizeof one);
  thread_.join();
}

std::optional<EventWatch::Watched> EventWatch::add(const EventDescriptor& event) {
  if (!watch(poll_->get(), event.fd())) return std::nullopt;
  return Watched(poll_, event.fd());
}

// That the descriptor is closed does not end it: user space has others of the same eventfd.
EventWatch::Watched::~Watched() {
  if (poll_) ::epoll_ctl(poll_->get(), EPOLL_CTL_DEL, fd_, nullptr);
}

EventWatch::Watched& EventWatch::Watched::operator=(Watched&& other) noexcept {
  std::swap(poll_, other.poll_);
  std::swap(fd_, other.fd_);
  return *this;
}

void EventWatch::work() {
  constexpr int kForEver = -1;
  int timeout = kForEver;
  while (true) {
    epoll_event events[16];
    const int count = ::epoll_wait(poll_->get(), events, std::size(events), timeout);
    for (int i = 0; i < count; ++i) {
      if (events[i].data.fd == stop_.get()) return;
    }
    const auto again = notify_();
    timeout = again ? static_cast<int>(again->count()) : kForEver;
  }
}

}  // namespace sevisor::emulator
