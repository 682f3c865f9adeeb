#include "sev/launch_digest.hpp"

namespace sevisor::sev {

Digest launch_digest(const LaunchContents& contents) {
  Sha256 hash;
  hash.update(contents.firmware);
  hash.update(contents.hashes_table);
  const Vmsa bsp = initial_vmsa(kBspResetAddress, contents.cpu_signature, contents.vmsa_form);
  const Vmsa ap = initial_vmsa(contents.ap_reset_address, contents.cpu_signature, contents.vmsa_form);
  for (unsigned index = 0; index < contents.vcpus; ++index) {
    hash.update(std::as_bytes(std::span(index == 0 ? &bsp : &ap, 1)));
  }
  return hash.finish();
}

}  // namespace sevisor::sev
