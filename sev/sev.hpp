// The guest owner's half of SEV-ES, as a library: everything that `sevisor measure`, `verify`, `session`, `secret`,
// `certs` and `firmware` are made of. Installed as the CMake package `sevisor`, target `sevisor::sev`:
//
//   find_package(sevisor REQUIRED)
//   target_link_libraries(program PRIVATE sevisor::sev)
//
//   #include <sev/sev.hpp>
//
//   using namespace sevisor;
//   sev::ExpectedGuest guest;                                  // what the owner asked for
//   guest.firmware = image;                                    // std::span<const std::byte>
//   guest.kernel = sev::KernelHashes{sev::cmdline_hash("console=ttyS0"), sev::sha256(initrd), sev::sha256(kernel)};
//   guest.vcpus = 2;
//   guest.vmsa_kind.cpu_signature = sev::cpu_signature(sev::find_cpu_type("EPYC-v4"));
//   guest.ap_reset_address = sev::require_ap_reset_address(sev::parse_footer_table(image));
//   const sev::Digest digest = sev::expected_digest(guest);    // the launch digest
//   const bool right = sev::matches({api, policy, measurement}, tik, digest);
//
// Bad input throws sevisor::Error, whose what() is one line; nothing else is thrown but std::bad_alloc and, when
// OpenSSL is broken, std::runtime_error. There is no global state: functions may be called from any thread. Keys in
// Wiped<> and SecretBytes are overwritten when they go. docs/measurement.md explains what is computed.
#pragma once

#include "base/error.hpp"             // Error
#include "sev/certificate.hpp"        // platform's, owner's and AMD's certificates
#include "sev/certificate_chain.hpp"  // from AMD's root to the PDH
#include "sev/cpu_type.hpp"           // CPU types and signatures
#include "sev/encoding.hpp"           // hexadecimal, base64
#include "sev/firmware_facts.hpp"     // what an image can do
#include "sev/footer_table.hpp"       // its GUIDed table
#include "sev/hashes_table.hpp"       // of kernel, initrd and command line
#include "sev/initial_vmsa.hpp"       // the measured register state
#include "sev/launch_digest.hpp"      // digest of what is encrypted at launch
#include "sev/launch_secret.hpp"      // secret table and packet
#include "sev/measurement.hpp"        // what LAUNCH_MEASURE returns
#include "sev/policy.hpp"             // guest policy
#include "sev/session.hpp"            // keys for one guest on one platform
#include "sev/verification.hpp"       // does a measurement match, and if not, why
