#include "sev/certificate_chain.hpp"

#include <algorithm>
#include <fmt/format.h>

#include "base/error.hpp"
#include "sev/encoding.hpp"

namespace sevisor::sev {

namespace {

// SHA-256 of the ARK certificates that AMD publishes for SEV (the files that virtee/sev and sevctl carry).
struct KnownRoot {
  const char* sha256;
  const char* name;
};
constexpr KnownRoot kKnownRoots[] = {
    {"dedabca561e1dece8cc00b7bda864cf5f20b95017864408cfe18eaee0dce24b9", "Naples"},
    {"865977b268c16d5b27772b00aaefb4e737ba9499e818ed8e9f65b0cecefbc529", "Rome"},
    {"1246469862b78a7a8625579b0378d1f8e975eb8b82a1623b579d7968a5969888", "Milan"},
    {"8f4e3fd36589c23f1fe0c8338465bac7e2e066d97fc92f228bbee4fd356fb674", "Genoa"},
    {"f6405e5096a6eee1eb7d5df75c49f9b9f7c8357a31c7fff150149d68588a7bf7", "Turin"},
};

template <class Id>
bool is_text(const Id& id, std::string_view text) {
  return std::ranges::equal(id, std::as_bytes(std::span(text)));
}

}  // namespace

PlatformCertificates parse_platform_certificates(std::span<const std::byte> pdh, std::span<const std::byte> chain) {
  if (chain.size() != kPlatformCertificatesSize) {
    throw Error(ExitCode::kBadUsage, "read the platform's certificate chain",
                fmt::format("it has {} bytes, not {}", chain.size(), kPlatformCertificatesSize));
  }
  return {Certificate::parse(pdh, "PDH"), Certificate::parse(chain.first(kCertificateSize), "PEK"),
          Certificate::parse(chain.subspan(kCertificateSize, kCertificateSize), "OCA"),
          Certificate::parse(chain.last(kCertificateSize), "CEK")};
}

std::vector<ChainStep> check_chain(const CertificateChain& chain) {
  std::vector<ChainStep> steps;
  const auto check_usage = [&steps](KeyUsage is, KeyUsage must) {
    steps.push_back(
        {fmt::format("the certificate given for the {} is one of {} {}", key_usage_text(must),
                     must == KeyUsage::kPek || must == KeyUsage::kPdh || must == KeyUsage::kCek ? "a" : "an",
                     key_usage_text(must)),
         is == must});
  };
  check_usage(chain.ark.usage(), KeyUsage::kArk);
  check_usage(chain.ask.usage(), KeyUsage::kAsk);
  check_usage(chain.cek.usage(), KeyUsage::kCek);
  check_usage(chain.oca.usage(), KeyUsage::kOca);
  check_usage(chain.pek.usage(), KeyUsage::kPek);
  check_usage(chain.pdh.usage(), KeyUsage::kPdh);
  steps.push_back({"the ARK is signed by itself", chain.ark.is_signed_by(chain.ark)});
  steps.push_back({"the ASK is signed by the ARK", chain.ask.is_signed_by(chain.ark)});
  steps.push_back({"the CEK is signed by the ASK", chain.cek.is_signed_by(KeyUsage::kAsk, chain.ask.key())});
  steps.push_back({"the OCA is signed by itself", chain.oca.is_signed_by(KeyUsage::kOca, chain.oca.key())});
  steps.push_back({"the PEK is signed by the OCA", chain.pek.is_signed_by(KeyUsage::kOca, chain.oca.key())});
  steps.push_back({"the PEK is signed by the CEK", chain.pek.is_signed_by(KeyUsage::kCek, chain.cek.key())});
  steps.push_back({"the PDH is signed by the PEK", chain.pdh.is_signed_by(KeyUsage::kPek, chain.pek.key())});
  return steps;
}

void require_chain(const CertificateChain& chain) {
  for (const ChainStep& step : check_chain(chain)) {
    if (step.right) continue;
    throw Error(ExitCode::kBadUsage, "verify the platform's certificates",
                fmt::format("it is not so that {}", step.text),
                "Get the certificates again; do not use this platform before they verify.");
  }
}

RootIdentity identify_root(const RootCertificate& ark) {
  RootIdentity identity;
  identity.fingerprint = sha256(ark.bytes());
  const std::string hex = to_hex(identity.fingerprint);
  for (const KnownRoot& root : kKnownRoots) {
    if (hex != root.sha256) continue;
    identity.kind = RootKind::kAmd;
    identity.text = fmt::format("AMD's root for {}", root.name);
    return identity;
  }
  if (is_text(ark.id(), kSoftwareRootId)) {
    identity.kind = RootKind::kSoftware;
    identity.text = "a software platform's root, which is not AMD's and protects nothing";
    return identity;
  }
  identity.text = "an unknown root, which is not AMD's";
  return identity;
}

}  // namespace sevisor::sev
