#include "vmm/vcpu_threads.hpp"

#include <cerrno>
#include <csignal>
#include <exception>
#include <fmt/format.h>
#include <pthread.h>
#include <string>

namespace sevisor::vmm {

namespace {

constexpr int kKickSignal = SIGUSR1;

void install_kick_handler() {
  struct sigaction action {};
  action.sa_handler = [](int) {};  // without SA_RESTART, so that the system call returns
  ::sigaction(kKickSignal, &action, nullptr);
}

}  // namespace

void run_vcpu(const kvm::Vcpu& vcpu, const Buses& buses, RunState& state) noexcept {
  try {
    while (!state.ended()) {
      const int error_number = vcpu.run();
      if (error_number == EINTR || error_number == EAGAIN) continue;
      if (error_number != 0) {
        state.end(
            {ExitCode::kCrash, fmt::format("vCPU {}: {}", vcpu.index(), run_failure_text(error_number)), vcpu.index()});
        return;
      }
      if (auto outcome = handle_exit(vcpu.state(), vcpu.state_size(), vcpu.index(), buses)) {
        state.end(std::move(*outcome));
        return;
      }
    }
  } catch (const std::exception& error) {
    state.end({ExitCode::kCrash, fmt::format("vCPU {}: {}", vcpu.index(), error.what())});
  }
}

VcpuThreads::VcpuThreads(std::span<const kvm::Vcpu> vcpus, const Buses& buses, RunState& state) : vcpus_(vcpus) {
  install_kick_handler();
  threads_.reserve(vcpus.size());
  try {
    for (const kvm::Vcpu& vcpu : vcpus) {
      threads_.emplace_back([&vcpu, buses, &state] { run_vcpu(vcpu, buses, state); });
      ::pthread_setname_np(threads_.back().native_handle(), fmt::format("vcpu{}", vcpu.index()).c_str());
    }
  } catch (const std::exception& error) {
    state.end({ExitCode::kCrash, fmt::format("start the thread of a vCPU: {}", error.what())});
    stop();
  }
}

void VcpuThreads::stop() noexcept {
  // The flag reaches a vCPU that is about to enter KVM_RUN, the signal one that is inside.
  for (std::size_t i = 0; i < threads_.size(); ++i) {
    vcpus_[i].set_immediate_exit(true);
    if (threads_[i].joinable()) ::pthread_kill(threads_[i].native_handle(), kKickSignal);
  }
  for (std::thread& thread : threads_) {
    if (thread.joinable()) thread.join();
  }
  threads_.clear();
}

}  // namespace sevisor::vmm
