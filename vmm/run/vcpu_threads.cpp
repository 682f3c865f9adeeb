#include "vmm/run/vcpu_threads.hpp"

#include <cerrno>
#include <charconv>
#include <csignal>
#include <exception>
#include <fmt/format.h>
#include <pthread.h>
#include <sched.h>
#include <string>

namespace sevisor::vmm {

namespace {

constexpr int kKickSignal = SIGUSR1;

void install_kick_handler() {
  struct sigaction action {};
  action.sa_handler = [](int) {};  // without SA_RESTART, so that the system call returns
  ::sigaction(kKickSignal, &action, nullptr);
}

void pin(std::thread& thread, unsigned cpu) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(cpu, &set);
  if (const int error_number = ::pthread_setaffinity_np(thread.native_handle(), sizeof set, &set); error_number != 0) {
    throw Error(ExitCode::kBadUsage, fmt::format("pin a vCPU to CPU {}", cpu), errno_text(error_number),
                "Choose another CPU with --pin.");
  }
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

std::vector<unsigned> parse_cpu_list(std::string_view text) {
  const auto refuse = [text](std::string came_back) {
    throw Error(ExitCode::kBadUsage, fmt::format("read --pin '{}'", text), std::move(came_back),
                "Give CPU numbers and ranges, such as 0-3,8.");
  };
  cpu_set_t allowed;
  CPU_ZERO(&allowed);
  ::sched_getaffinity(0, sizeof allowed, &allowed);
  std::vector<unsigned> cpus;
  const char* at = text.data();
  const char* const end = at + text.size();
  do {
    unsigned first = 0;
    auto read = std::from_chars(at, end, first);
    unsigned last = first;
    if (read.ec == std::errc{} && read.ptr != end && *read.ptr == '-') read = std::from_chars(read.ptr + 1, end, last);
    if (read.ec != std::errc{} || last < first || last >= CPU_SETSIZE || (read.ptr != end && *read.ptr != ',')) {
      refuse("it is no list of CPUs");
    }
    for (unsigned cpu = first; cpu <= last; ++cpu) {
      if (!CPU_ISSET(cpu, &allowed)) refuse(fmt::format("this process may not use CPU {}", cpu));
      cpus.push_back(cpu);
    }
    at = read.ptr;
  } while (at != end && ++at <= end);
  return cpus;
}

VcpuThreads::VcpuThreads(std::span<const kvm::Vcpu> vcpus, const Buses& buses, RunState& state,
                         std::span<const unsigned> cpus, const ThreadFilter& filter)
    : vcpus_(vcpus) {
  install_kick_handler();
  threads_.reserve(vcpus.size());
  try {
    for (const kvm::Vcpu& vcpu : vcpus) {
      threads_.emplace_back([&vcpu, buses, &state, filter] {
        // By itself: from another thread it takes a file of /proc.
        ::pthread_setname_np(::pthread_self(), fmt::format("vcpu{}", vcpu.index()).c_str());
        if (state.confine(filter)) run_vcpu(vcpu, buses, state);
      });
      if (!cpus.empty()) pin(threads_.back(), cpus[vcpu.index() % cpus.size()]);
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
