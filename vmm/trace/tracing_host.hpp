// A host that tells an observer which SEV commands user space gives and why KVM_RUN comes back: what can be seen of a
// guest above the kernel's host, where #VC and the GHCB's traffic are hidden.
#pragma once

#include <memory>

#include "kvm/host.hpp"
#include "kvm/observer.hpp"

namespace sevisor::vmm {

// All calls go to `host`. `observer` must outlive what is returned.
[[nodiscard]] std::unique_ptr<kvm::Host> make_tracing_host(std::unique_ptr<kvm::Host> host, kvm::Observer& observer);

}  // namespace sevisor::vmm
