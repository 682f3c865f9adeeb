// What each vCPU did last, for the report of a crash: kept of every run, whether it is traced or not.
#pragma once

#include <array>
#include <cstddef>
#include <map>
#include <mutex>
#include <string>
#include <vector>

#include "kvm/observer.hpp"

namespace sevisor::vmm {

class RecentEvents final : public kvm::Observer {
 public:
  static constexpr std::size_t kKept = 12;  // of each vCPU

  void observe(const kvm::Moment& moment, const kvm::GuestEvent& event) override;

  // A line an event, oldest first; the last #VC comes first if it is older than they are. Empty: nothing was seen.
  [[nodiscard]] std::vector<std::string> describe(unsigned vcpu) const;

 private:
  struct Entry {
    kvm::Moment moment;
    kvm::GuestEvent event;
  };
  struct Ring {
    std::array<Entry, kKept> entries;
    std::size_t count = 0;  // ever
    Entry last_vc;
    std::size_t last_vc_at = 0;  // its number, from 1; 0: there was none
  };

  mutable std::mutex mutex_;
  std::map<unsigned, Ring> rings_;
};

}  // namespace sevisor::vmm
