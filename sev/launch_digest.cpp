#include "sev/launch_digest.hpp"

namespace sevisor::sev {

void add_vmsas(Sha256& hash, const VmsaPages& pages, unsigned vcpus) {
  for (unsigned index = 0; index < vcpus; ++index) {
    hash.update(std::as_bytes(std::span(index == 0 ? &pages.bsp : &pages.ap, 1)));
  }
}

Digest launch_digest(const LaunchContents& contents) {
  Sha256 hash;
  hash.update(contents.firmware);
  hash.update(contents.hashes_table);
  const VmsaKind kind{.form = contents.vmsa_form, .cpu_signature = contents.cpu_signature};
  add_vmsas(hash, initial_vmsas(kind, contents.ap_reset_address), contents.vcpus);
  return hash.finish();
}

}  // namespace sevisor::sev
