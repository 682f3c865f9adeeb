#include "sev/verification.hpp"

#include <algorithm>
#include <fmt/format.h>
#include <functional>

#include "sev/cpu_type.hpp"
#include "sev/crypto.hpp"
#include "sev/launch_digest.hpp"
#include "sev/policy.hpp"

namespace sevisor::sev {

namespace {

// What of a guest two variants may differ in. Firmware and reset address are always the expected ones.
struct Trial {
  std::optional<KernelHashes> kernel;
  bool es;
  unsigned vcpus;
  VmsaKind kind;
  std::optional<VmsaPages> pages;
};

// Two differences of one kind exclude each other.
enum class Aspect : std::uint8_t { kKernel, kInitrd, kCmdline, kVcpus, kForm, kFeatures, kCpu, kEs };

struct Difference {
  Aspect aspect;
  std::string text;
  std::function<void(Trial&)> apply;
};

void add_vcpus(const ExpectedGuest& guest, std::vector<Difference>& differences) {
  const auto add = [&](unsigned vcpus) {
    if (vcpus == 0 || (vcpus > 1 && guest.ap_reset_address == 0 && !guest.vmsa_pages)) return;
    differences.push_back({Aspect::kVcpus,
                           fmt::format("it has {} vCPU{}, not {}", vcpus, vcpus == 1 ? "" : "s", guest.vcpus),
                           [vcpus](Trial& trial) { trial.vcpus = vcpus; }});
  };
  add(guest.vcpus - 1);
  add(guest.vcpus + 1);
}

void add_vmsa_kinds(const ExpectedGuest& guest, std::vector<Difference>& differences) {
  const bool init2 = guest.vmsa_kind.form == VmsaForm::kInit2;
  differences.push_back({Aspect::kForm,
                         init2 ? "it was made by KVM_SEV_ES_INIT (FPU state zero), not KVM_SEV_INIT2"
                               : "it was made by KVM_SEV_INIT2 (FPU state set), not KVM_SEV_ES_INIT",
                         [init2](Trial& trial) { trial.kind.form = init2 ? VmsaForm::kEsInit : VmsaForm::kInit2; }});
  const std::uint64_t features = guest.vmsa_kind.features;
  for (const std::uint64_t other : {std::uint64_t{0}, kFeatureDebugSwap}) {
    if (other == features) continue;
    differences.push_back({Aspect::kFeatures,
                           fmt::format("its vmsa_features are {:#x}, not {:#x} (0x20 is DebugSwap, which some kernels "
                                       "set unasked)",
                                       other, features),
                           [other](Trial& trial) { trial.kind.features = other; }});
  }
  for (const CpuType& type : all_cpu_types()) {
    const std::uint32_t signature = cpu_signature(type);
    const bool known = std::ranges::any_of(differences, [&](const Difference& difference) {
      return difference.text.starts_with(fmt::format("its CPU has the signature {:#x} ", signature));
    });
    if (known || signature == guest.vmsa_kind.cpu_signature) continue;
    differences.push_back(
        {Aspect::kCpu,
         fmt::format("its CPU has the signature {:#x} (family {}, model {}, stepping {}: {}), not {:#x}", signature,
                     type.family, type.model, type.stepping, type.name, guest.vmsa_kind.cpu_signature),
         [signature](Trial& trial) { trial.kind.cpu_signature = signature; }});
  }
  for (const std::uint32_t signature : {0U, 0x600U}) {
    if (signature == guest.vmsa_kind.cpu_signature) continue;
    differences.push_back({Aspect::kCpu, fmt::format("its VMM left {:#x} in RDX, not the CPU's signature", signature),
                           [signature](Trial& trial) { trial.kind.cpu_signature = signature; }});
  }
}

void add_kernel(const ExpectedGuest& guest, const MismatchClues& clues, std::vector<Difference>& differences) {
  if (!guest.kernel) return;
  differences.push_back({Aspect::kKernel,
                         "kernel, initrd and command line were not measured (no hashes table: kernel-hashes off)",
                         [](Trial& trial) { trial.kernel.reset(); }});
  const Digest nothing = sha256({});
  if (guest.kernel->initrd != nothing) {
    differences.push_back({Aspect::kInitrd, "it has no initrd", [nothing](Trial& trial) {
                             if (trial.kernel) trial.kernel->initrd = nothing;
                           }});
  }
  const auto add_cmdline = [&](const std::string& cmdline, const char* text) {
    differences.push_back({Aspect::kCmdline, text, [hash = cmdline_hash(cmdline)](Trial& trial) {
                             if (trial.kernel) trial.kernel->cmdline = hash;
                           }});
  };
  const std::string& cmdline = clues.cmdline;
  if (!cmdline.empty()) add_cmdline("", "its command line is empty");
  add_cmdline(cmdline + "\n", "its command line ends with a newline");
  add_cmdline(cmdline + " ", "its command line ends with one more space");
  if (cmdline.ends_with('\n')) {
    add_cmdline(cmdline.substr(0, cmdline.size() - 1), "its command line does not end with a newline");
  }
  if (cmdline.ends_with(' ')) {
    add_cmdline(cmdline.substr(0, cmdline.size() - 1), "its command line does not end with that space");
  }
}

std::vector<Difference> known_differences(const ExpectedGuest& guest, const MismatchClues& clues) {
  std::vector<Difference> differences;
  add_kernel(guest, clues, differences);
  if (!guest.es) return differences;
  add_vcpus(guest, differences);
  if (!guest.vmsa_pages) add_vmsa_kinds(guest, differences);
  differences.push_back(
      {Aspect::kEs, "no VMSA was measured (a SEV guest, not SEV-ES)", [](Trial& trial) { trial.es = false; }});
  return differences;
}

// Digests of many guests with the same firmware.
class DigestMaker {
 public:
  explicit DigestMaker(const ExpectedGuest& guest) : reset_(guest.ap_reset_address) {
    firmware_.update(guest.firmware);
  }

  [[nodiscard]] Digest digest(const Trial& trial) const {
    Sha256 hash = firmware_.fork();
    if (trial.kernel) hash.update(make_hashes_table(*trial.kernel));
    if (trial.es) add_vmsas(hash, trial.pages ? *trial.pages : initial_vmsas(trial.kind, reset_), trial.vcpus);
    return hash.finish();
  }

 private:
  Sha256 firmware_;
  std::uint32_t reset_;
};

Trial trial_of(const ExpectedGuest& guest) {
  return {guest.kernel, guest.es, guest.vcpus, guest.vmsa_kind, guest.vmsa_pages};
}

// Differences that are not in the digest but in what the digest was signed with.
std::vector<std::string> explain_signature(const LaunchClaim& claim, const TransportKey& tik, const Digest& digest,
                                           const MismatchClues& clues, unsigned& tried) {
  std::vector<std::string> found;
  const auto check = [&](const LaunchClaim& other, const TransportKey& key, auto text) {
    ++tried;
    if (matches(other, key, digest)) found.push_back(text());
  };
  if (clues.tek) {
    check(claim, **clues.tek, [] { return std::string("TIK and TEK are swapped: the TEK signed it"); });
  }
  LaunchClaim other = claim;
  other.api = {0, 0, 0};
  check(other, tik, [] { return std::string("it was signed as API versions before 0.17 do, without the version"); });
  other = claim;
  for (unsigned build = 0; build <= UINT8_MAX; ++build) {
    other.api.build = static_cast<std::uint8_t>(build);
    if (other.api.build == claim.api.build) continue;
    check(other, tik, [&] { return fmt::format("the platform's build is {}, not {}", build, claim.api.build); });
  }
  other = claim;
  for (unsigned minor = 0; minor <= UINT8_MAX; ++minor) {
    other.api.minor = static_cast<std::uint8_t>(minor);
    if (other.api.minor == claim.api.minor) continue;
    check(other, tik,
          [&] { return fmt::format("the platform's API minor version is {}, not {}", minor, claim.api.minor); });
  }
  other = claim;
  constexpr std::uint32_t kPolicyBits = 0x3f;  // NODBG to SEV
  for (std::uint32_t bits = 0; bits <= kPolicyBits; ++bits) {
    other.policy = (claim.policy & ~kPolicyBits) | bits;
    if (other.policy == claim.policy) continue;
    check(other, tik, [&] {
      return fmt::format("its policy is {:#x} ({}), not {:#x}", other.policy, policy_text(other.policy), claim.policy);
    });
  }
  return found;
}

}  // namespace

Digest expected_digest(const ExpectedGuest& guest) { return DigestMaker(guest).digest(trial_of(guest)); }

bool matches(const LaunchClaim& claim, const TransportKey& tik, const Digest& digest) {
  Nonce nonce;
  std::copy_n(claim.measurement.begin() + sizeof(Digest), nonce.size(), nonce.begin());
  const Measurement expected = make_measurement(tik, claim.api, claim.policy, digest, nonce);
  return same_bytes(expected, claim.measurement);
}

std::vector<std::string> explain_mismatch(const ExpectedGuest& guest, const LaunchClaim& claim, const TransportKey& tik,
                                          const MismatchClues& clues, unsigned& tried) {
  tried = 0;
  const DigestMaker maker(guest);
  const Trial base = trial_of(guest);
  std::vector<std::string> found = explain_signature(claim, tik, maker.digest(base), clues, tried);
  const std::vector<Difference> differences = known_differences(guest, clues);
  const auto matches_trial = [&](const Trial& trial) {
    ++tried;
    return matches(claim, tik, maker.digest(trial));
  };
  for (const Difference& one : differences) {
    Trial trial = base;
    one.apply(trial);
    if (matches_trial(trial)) found.push_back(one.text);
  }
  if (!found.empty()) return found;
  for (std::size_t i = 0; i < differences.size(); ++i) {
    for (std::size_t k = i + 1; k < differences.size(); ++k) {
      if (differences[i].aspect == differences[k].aspect) continue;
      Trial trial = base;
      differences[i].apply(trial);
      differences[k].apply(trial);
      if (matches_trial(trial)) found.push_back(fmt::format("{}, and {}", differences[i].text, differences[k].text));
    }
  }
  return found;
}

}  // namespace sevisor::sev
