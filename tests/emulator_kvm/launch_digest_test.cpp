// The whole launch of Debian's OVMF_CODE.fd through the ioctls, as a guest owner who holds the session keys checks it.
#include <algorithm>
#include <fstream>
#include <iterator>

#include "sev/certificate_chain.hpp"
#include "sev/encoding.hpp"
#include "sev/initial_vmsa.hpp"
#include "sev/measurement.hpp"
#include "tests/emulator_kvm/fixture.hpp"
#include "tests/emulator_psp/guest_owner.hpp"

using namespace sevisor;
using namespace sevisor::test;

namespace {

constexpr const char* kFirmware = "/usr/share/OVMF/OVMF_CODE.fd";
constexpr std::string_view kFirmwareHash = "d9b568def24088c92f34b5479e0ed7e44d0a4d4cea8a0f5716719180bba48106";
// sev-snp-measure 0.0.13 for 1 vCPU of type EPYC-v4, with MXCSR and FCW zero as KVM_SEV_ES_INIT leaves them; 2 vCPUs
// with
// --vcpu-sig 0x800f12.
constexpr std::string_view kOneVcpu = "eba1359b4bdf7745d72c9de18582cbb352f81d55c4cedaa428cc7559db8dfbf8";
constexpr std::string_view kTwoVcpus = "6106a787b499ed196409ca877974fdb46fee7df592e02a7a5d79383fd9be8886";
constexpr std::uint32_t kApReset = 0x0080b004;

kvm_segment segment(const sev::VmsaSegment& s) {
  kvm_segment out{};
  out.base = s.base;
  out.limit = s.limit;
  out.selector = s.selector;
  out.type = s.attributes & 0xf;
  out.s = s.attributes >> 4 & 1;
  out.present = s.attributes >> 7 & 1;
  return out;
}

}  // namespace

TEST_CASE_METHOD(HostFixture, "the measurement of OVMF agrees with other tools") {
  std::ifstream file(kFirmware, std::ios::binary);
  std::vector<char> firmware((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  if (sev::to_hex(sev::sha256(std::as_bytes(std::span(firmware)))) != kFirmwareHash) {
    WARN("SKIP: " << kFirmware << " is not there, or not the one that the vectors were made for (package ovmf)");
    return;
  }
  const unsigned vcpus = GENERATE(1u, 2u);
  const Mapping flash = Mapping::anonymous(firmware.size(), PROT_READ | PROT_WRITE);
  std::memcpy(flash.data(), firmware.data(), firmware.size());

  REQUIRE(call(vm, KVM_CREATE_IRQCHIP) == 0);
  REQUIRE(sev(KVM_SEV_ES_INIT) == 0);
  std::array<std::byte, sev::kCertificateSize> pdh_bytes;
  std::array<std::byte, sev::kPlatformCertificatesSize> chain_bytes;
  sev_user_data_pdh_cert_export exported{};
  exported.pdh_cert_address = reinterpret_cast<std::uintptr_t>(pdh_bytes.data());
  exported.pdh_cert_len = sizeof pdh_bytes;
  exported.cert_chain_address = reinterpret_cast<std::uintptr_t>(chain_bytes.data());
  exported.cert_chain_len = sizeof chain_bytes;
  sev_issue_cmd issue{};
  issue.cmd = SEV_PDH_CERT_EXPORT;
  issue.data = reinterpret_cast<std::uintptr_t>(&exported);
  REQUIRE(call(sev_fd, SEV_ISSUE_CMD, &issue) == 0);
  GuestOwner owner;
  const auto certificate = owner.certificate();
  const auto session = owner.session(sev::Certificate::parse(pdh_bytes, "PDH").key(), 5);
  kvm_sev_launch_start start_params{};
  start_params.policy = 5;
  start_params.dh_uaddr = reinterpret_cast<std::uintptr_t>(certificate.data());
  start_params.dh_len = static_cast<std::uint32_t>(certificate.size());
  start_params.session_uaddr = reinterpret_cast<std::uintptr_t>(session.data());
  start_params.session_len = static_cast<std::uint32_t>(session.size());
  REQUIRE(sev(KVM_SEV_LAUNCH_START, &start_params) == 0);
  REQUIRE(update(flash.data(), static_cast<std::uint32_t>(flash.size())) == 0);
  for (unsigned i = 0; i < vcpus; ++i) {
    const int vcpu = call(vm, KVM_CREATE_VCPU, static_cast<unsigned long>(i));
    const sev::Vmsa wanted =
        sev::initial_vmsa(i == 0 ? sev::kBspResetAddress : kApReset, 0x800f12, sev::VmsaForm::kEsInit);
    kvm_sregs sregs{};
    REQUIRE(call(vcpu, KVM_GET_SREGS, &sregs) == 0);
    sregs.cs = segment(wanted.cs);
    sregs.ds = sregs.es = sregs.fs = sregs.gs = sregs.ss = segment(wanted.ds);
    sregs.tr = segment(wanted.tr);
    REQUIRE(call(vcpu, KVM_SET_SREGS, &sregs) == 0);
    kvm_regs regs{};
    regs.rip = wanted.rip;
    regs.rdx = wanted.rdx;
    regs.rflags = 2;
    REQUIRE(call(vcpu, KVM_SET_REGS, &regs) == 0);
  }
  REQUIRE(sev(KVM_SEV_LAUNCH_UPDATE_VMSA) == 0);
  sev::Measurement blob{};
  kvm_sev_launch_measure measure{};
  measure.uaddr = reinterpret_cast<std::uintptr_t>(blob.data());
  measure.len = sizeof blob;
  REQUIRE(sev(KVM_SEV_LAUNCH_MEASURE, &measure) == 0);

  sev::Digest digest;
  const auto expected = sev::from_hex(vcpus == 1 ? kOneVcpu : kTwoVcpus);
  std::copy(expected->begin(), expected->end(), digest.begin());
  sev::Nonce nonce;
  std::copy_n(blob.begin() + 32, 16, nonce.begin());
  const auto hmac = sev::measurement_hmac(*owner.keys.tik, {.major = 1, .minor = 55, .build = 21}, 5, digest, nonce);
  CHECK(std::equal(hmac.begin(), hmac.end(), blob.begin()));
  // The firmware is ciphertext now.
  CHECK(std::memcmp(flash.data(), firmware.data(), 4096) != 0);
  REQUIRE(sev(KVM_SEV_LAUNCH_FINISH) == 0);
}

TEST_CASE_METHOD(HostFixture, "debugging reaches any byte of a guest that allows it") {
  REQUIRE(sev(KVM_SEV_ES_INIT) == 0);
  REQUIRE(start(4) == 0);
  std::memset(ram.data(), 0xaa, 8192);
  REQUIRE(update(ram.data(), 8192) == 0);
  CHECK(std::count(ram.data(), ram.data() + 8192, std::byte{0xaa}) < 200);
  std::array<std::byte, 8192> out;
  const auto debug = [&](std::uint32_t id, const void* from, void* to, std::uint32_t size) {
    kvm_sev_dbg params{};
    params.src_uaddr = reinterpret_cast<std::uintptr_t>(from);
    params.dst_uaddr = reinterpret_cast<std::uintptr_t>(to);
    params.len = size;
    return sev(id, &params);
  };
  CHECK(debug(KVM_SEV_DBG_DECRYPT, ram.data(), out.data(), 0) == -EINVAL);
  CHECK(debug(KVM_SEV_DBG_DECRYPT, ram.data(), nullptr, 16) == -EINVAL);
  std::vector<std::byte> model(8192, std::byte{0xaa});
  unsigned char value = 0;
  for (const std::uint32_t size : {1u, 8u, 15u, 16u, 17u, 32u, 33u, 4095u, 4096u, 4097u}) {
    for (const std::size_t at : {0u, 1u, 8u, 15u, 16u, 23u, 4072u, 4095u}) {
      std::vector<std::byte> in(size, static_cast<std::byte>(++value));
      REQUIRE(debug(KVM_SEV_DBG_ENCRYPT, in.data(), ram.data() + at, size) == 0);
      std::copy(in.begin(), in.end(), model.begin() + static_cast<std::ptrdiff_t>(at));
      REQUIRE(debug(KVM_SEV_DBG_DECRYPT, ram.data() + at, out.data(), size) == 0);
      CHECK(std::equal(in.begin(), in.end(), out.begin()));
    }
  }
  REQUIRE(debug(KVM_SEV_DBG_DECRYPT, ram.data(), out.data(), 8192) == 0);
  CHECK(std::equal(model.begin(), model.end(), out.begin()));

  vm = call(kvm_fd, KVM_CREATE_VM, 0ul);
  REQUIRE(sev(KVM_SEV_ES_INIT) == 0);
  REQUIRE(start(5) == 0);
  CHECK(debug(KVM_SEV_DBG_DECRYPT, ram.data(), out.data(), 16) == -EIO);
  CHECK(firmware_error == 7);
}
