#include "vmm/launch/owner_session.hpp"

#include "sev/crypto.hpp"
#include "sev/public_key.hpp"

namespace sevisor::vmm {

std::optional<OwnerSession> make_owner_session(const sev::Certificate& pdh, std::uint32_t policy) {
  const sev::PrivateKey owner = sev::PrivateKey::make_ec(sev::Curve::kP384);
  sev::Certificate certificate = sev::Certificate::make(sev::KeyUsage::kPdh, sev::KeyAlgorithm::kEcdhSha256, owner,
                                                        pdh.api_major(), pdh.api_minor());
  // As sev-tool signs it. Platforms do not look at that; 'run' does, so that a damaged file is told from a wrong one.
  certificate.sign(sev::KeyUsage::kPek, sev::KeyAlgorithm::kEcdsaSha256, owner);
  const auto shared = owner.shared_secret(pdh.key());
  if (!shared) return std::nullopt;
  sev::Nonce nonce;
  sev::Nonce iv;
  sev::fill_random(nonce);
  sev::fill_random(iv);
  const sev::TransportKeys keys = sev::make_transport_keys();
  const sev::Session session = sev::make_session(*sev::session_master_secret(*shared, nonce), nonce, iv, keys, policy);
  return OwnerSession{certificate, session, keys};
}

}  // namespace sevisor::vmm
