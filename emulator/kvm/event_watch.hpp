// A thread that waits for eventfds while no other thread has reason to look at them.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <thread>

#include "base/unique_fd.hpp"
#include "emulator/kvm/event_descriptor.hpp"

namespace sevisor::emulator {

class EventWatch {
 public:
  // Called in the thread, when a watched eventfd was signalled. What it returns says when to call again in any case.
  using Notify = std::function<std::optional<std::chrono::milliseconds>()>;

  // Throws std::runtime_error when the process has no descriptor or thread left.
  explicit EventWatch(Notify notify);
  // Waits for a call of `notify` that is under way.
  ~EventWatch();
  EventWatch(const EventWatch&) = delete;
  EventWatch& operator=(const EventWatch&) = delete;

  // Has an eventfd watched while it lives; must go before the EventDescriptor does.
  class Watched {
   public:
    Watched(Watched&&) noexcept = default;
    Watched& operator=(Watched&& other) noexcept;
    Watched(const Watched&) = delete;
    Watched& operator=(const Watched&) = delete;
    ~Watched();

   private:
    friend class EventWatch;
    Watched(std::shared_ptr<const UniqueFd> poll, int fd) noexcept : poll_(std::move(poll)), fd_(fd) {}
    std::shared_ptr<const UniqueFd> poll_;
    int fd_;
  };
  // None: the process has no room for it.
  [[nodiscard]] std::optional<Watched> add(const EventDescriptor& event);

 private:
  void work();

  Notify notify_;
  std::shared_ptr<const UniqueFd> poll_;
  UniqueFd stop_;
  std::thread thread_;
};

}  // namespace sevisor::emulator
