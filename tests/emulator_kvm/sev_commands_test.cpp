// KVM's side of SEND, RECEIVE and attestation, and /dev/sev: checks, errnos, who may do what.
#include <algorithm>
#include <array>

#include "emulator/psp/platform_identity.hpp"
#include "sev/certificate_chain.hpp"
#include "tests/emulator_kvm/fixture.hpp"

using namespace sevisor;
using namespace sevisor::test;

namespace {

std::uint64_t address_of(const void* pointer) { return reinterpret_cast<std::uintptr_t>(pointer); }

struct SevFixture : HostFixture {
  int issue(int fd, std::uint32_t id, void* data = nullptr) {
    sev_issue_cmd command{};
    command.cmd = id;
    command.data = address_of(data);
    const int result = call(fd, SEV_ISSUE_CMD, &command);
    firmware_error = command.error;
    return result;
  }
  int issue(std::uint32_t id, void* data = nullptr) { return issue(sev_fd, id, data); }
  void export_certificates() {
    sev_user_data_pdh_cert_export data{};
    data.pdh_cert_address = address_of(pdh.data());
    data.pdh_cert_len = static_cast<std::uint32_t>(pdh.size());
    data.cert_chain_address = address_of(chain.data());
    data.cert_chain_len = static_cast<std::uint32_t>(chain.size());
    REQUIRE(issue(SEV_PDH_CERT_EXPORT, &data) == 0);
  }
  // A running guest whose memory is `ram`.
  void launch(std::uint32_t policy) {
    REQUIRE(sev(KVM_SEV_ES_INIT) == 0);
    REQUIRE(start(policy) == 0);
    std::memset(ram.data(), 0x5a, 4096);
    REQUIRE(update(ram.data(), 4096) == 0);
    kvm_sev_launch_measure measure{};
    std::array<std::byte, 48> blob;
    measure.uaddr = address_of(blob.data());
    measure.len = 48;
    REQUIRE(sev(KVM_SEV_LAUNCH_MEASURE, &measure) == 0);
    REQUIRE(sev(KVM_SEV_LAUNCH_FINISH) == 0);
  }
  std::array<std::byte, sev::kCertificateSize> pdh;
  std::array<std::byte, sev::kPlatformCertificatesSize> chain;
};

}  // namespace

TEST_CASE_METHOD(SevFixture, "memory goes from one VM to another through the firmware") {
  launch(4);
  export_certificates();
  const int source = vm;
  std::array<std::byte, 16> amd{};
  std::array<std::byte, 128> session;
  kvm_sev_send_start start_params{};
  CHECK(sev(KVM_SEV_SEND_START, &start_params) == -EIO);
  CHECK(firmware_error == 4);
  CHECK(start_params.session_len == 128);
  CHECK(sev(KVM_SEV_SEND_START, &start_params) == -EINVAL);  // no certificates
  start_params.pdh_cert_uaddr = address_of(pdh.data());
  start_params.pdh_cert_len = sizeof pdh;
  start_params.plat_certs_uaddr = address_of(chain.data());
  start_params.plat_certs_len = sizeof chain;
  start_params.session_uaddr = address_of(session.data());
  CHECK(sev(KVM_SEV_SEND_START, &start_params) == -EINVAL);  // none of AMD's
  start_params.amd_certs_uaddr = address_of(amd.data());
  start_params.amd_certs_len = sizeof amd;
  REQUIRE(sev(KVM_SEV_SEND_START, &start_params) == 0);
  CHECK(start_params.policy == 4);

  std::array<std::byte, 52> header;
  std::array<std::byte, 4096> packet;
  kvm_sev_send_update_data out{};
  CHECK(sev(KVM_SEV_SEND_UPDATE_DATA, &out) == -EIO);
  CHECK(out.hdr_len == 52);
  out.hdr_uaddr = address_of(header.data());
  out.trans_uaddr = address_of(packet.data());
  out.trans_len = 4096;
  out.guest_uaddr = address_of(ram.data() + 16);
  out.guest_len = 4096;
  CHECK(sev(KVM_SEV_SEND_UPDATE_DATA, &out) == -EINVAL);  // crosses a page
  out.guest_uaddr = address_of(ram.data());
  REQUIRE(sev(KVM_SEV_SEND_UPDATE_DATA, &out) == 0);
  CHECK(std::ranges::count(packet, std::byte{0x5a}) < 100);

  vm = call(kvm_fd, KVM_CREATE_VM, 0ul);
  CHECK(sev(KVM_SEV_RECEIVE_UPDATE_DATA, &out) == -EINVAL);  // not encrypted: others say ENOTTY
  REQUIRE(sev(KVM_SEV_ES_INIT) == 0);
  kvm_sev_receive_start in{};
  in.policy = 4;
  CHECK(sev(KVM_SEV_RECEIVE_START, &in) == -EINVAL);
  in.pdh_uaddr = address_of(pdh.data());
  in.pdh_len = sizeof pdh;
  in.session_uaddr = address_of(session.data());
  in.session_len = sizeof session;
  in.policy = 5;
  CHECK(sev(KVM_SEV_RECEIVE_START, &in) == -EIO);
  CHECK(firmware_error == 11);
  in.policy = 4;
  REQUIRE(sev(KVM_SEV_RECEIVE_START, &in) == 0);
  CHECK(in.handle != 0);
  std::byte* there = ram.data() + 8192;
  kvm_sev_receive_update_data data{};
  data.hdr_uaddr = out.hdr_uaddr;
  data.hdr_len = out.hdr_len;
  data.trans_uaddr = out.trans_uaddr;
  data.trans_len = out.trans_len;
  data.guest_uaddr = address_of(there);
  data.guest_len = 4096;
  packet[7] ^= std::byte{1};
  CHECK(sev(KVM_SEV_RECEIVE_UPDATE_DATA, &data) == -EIO);
  CHECK(firmware_error == 11);
  packet[7] ^= std::byte{1};
  REQUIRE(sev(KVM_SEV_RECEIVE_UPDATE_DATA, &data) == 0);
  REQUIRE(sev(KVM_SEV_RECEIVE_FINISH) == 0);
  kvm_sev_dbg debug{};
  std::array<std::byte, 4096> plain;
  debug.src_uaddr = address_of(there);
  debug.dst_uaddr = address_of(plain.data());
  debug.len = 4096;
  REQUIRE(sev(KVM_SEV_DBG_DECRYPT, &debug) == 0);
  CHECK(std::ranges::count(plain, std::byte{0x5a}) == 4096);
  CHECK(std::ranges::count(std::span(there, 4096), std::byte{0x5a}) < 100);

  vm = source;
  CHECK(sev(KVM_SEV_SEND_CANCEL) == 0);
  CHECK(sev(KVM_SEV_SEND_FINISH) == -EIO);
  CHECK(firmware_error == 2);
  // KVM has no way for the VMSA.
  CHECK(sev(10, &out) == -EINVAL);
  CHECK(sev(14, &data) == -EINVAL);
}

TEST_CASE_METHOD(SevFixture, "an attestation report, and first its length") {
  launch(5);
  kvm_sev_attestation_report params{};
  CHECK(sev(KVM_SEV_GET_ATTESTATION_REPORT, &params) == -EIO);
  CHECK(firmware_error == 4);
  CHECK(params.len == 208);
  std::array<std::byte, 256> report{};
  params.uaddr = address_of(report.data());
  params.len = kvm::kSevBlobMaxSize + 1;
  CHECK(sev(KVM_SEV_GET_ATTESTATION_REPORT, &params) == -EINVAL);
  params.len = sizeof report;
  params.mnonce[3] = 7;
  REQUIRE(sev(KVM_SEV_GET_ATTESTATION_REPORT, &params) == 0);
  CHECK(params.len == 208);
  CHECK(report[3] == std::byte{7});
  std::array<std::byte, 4096> page;
  page.fill(std::byte{0x5a});
  CHECK(std::ranges::equal(std::span(report).subspan(16, 32), sev::sha256(page)));
}

TEST_CASE_METHOD(SevFixture, "who may write to /dev/sev may own the platform; who may read may look") {
  const int reader = host->open("/dev/sev", O_RDONLY);
  sev_user_data_status status{};
  sev_user_data_get_id2 id{};
  sev_user_data_get_id ids{};
  sev_user_data_pdh_cert_export certificates{};
  for (const std::uint32_t id_ : {SEV_FACTORY_RESET, SEV_PEK_GEN, SEV_PEK_CSR, SEV_PDH_GEN, SEV_PEK_CERT_IMPORT}) {
    CHECK(issue(reader, id_, reinterpret_cast<void*>(0x10)) == -EPERM);
  }
  CHECK(issue(reader, SEV_PLATFORM_STATUS, &status) == 0);
  CHECK(issue(reader, SEV_GET_ID, &ids) == 0);
  CHECK(issue(reader, SEV_GET_ID2, &id) == -EIO);
  CHECK(firmware_error == 4);
  CHECK(id.length == 64);
  id.address = 0x10;
  CHECK(issue(reader, SEV_GET_ID2, &id) == -EFAULT);
  id.length = 8 << 20;
  CHECK(issue(reader, SEV_GET_ID2, &id) == -ENOMEM);
  CHECK(issue(reader, SEV_PDH_CERT_EXPORT, &certificates) == -EIO);  // initialised: the lengths
  CHECK(certificates.cert_chain_len == 6252);
  CHECK(issue(SEV_FACTORY_RESET) == 0);
  CHECK(issue(reader, SEV_PDH_CERT_EXPORT, &certificates) == -EPERM);  // it would have to initialise
  CHECK(issue(SEV_PDH_CERT_EXPORT, &certificates) == -EIO);
  CHECK(issue(reader, SEV_PLATFORM_STATUS, &status) == 0);
  CHECK(status.state == 1);
  for (const std::uint32_t id_ : {9u, 10u, 11u, 12u, 13u, 0xffffffffu}) CHECK(issue(id_) == -EINVAL);
}

TEST_CASE_METHOD(SevFixture, "keys of the platform are made, requested and imported through /dev/sev") {
  sev_user_data_pek_csr csr{};
  CHECK(issue(SEV_PEK_CSR, &csr) == -EIO);
  CHECK(csr.length == 2084);
  std::array<std::byte, sev::kCertificateSize> request;
  csr.address = address_of(request.data());
  csr.length = kvm::kSevBlobMaxSize + 1;
  CHECK(issue(SEV_PEK_CSR, &csr) == -EFAULT);
  csr.length = sizeof request;
  REQUIRE(issue(SEV_PEK_CSR, &csr) == 0);
  const sev::PrivateKey owner = sev::PrivateKey::make_ec(sev::Curve::kP384);
  auto oca = sev::Certificate::make(sev::KeyUsage::kOca, sev::KeyAlgorithm::kEcdsaSha256, owner, 1, 55);
  oca.sign(sev::KeyUsage::kOca, sev::KeyAlgorithm::kEcdsaSha256, owner);
  auto pek = sev::Certificate::parse(request, "PEK");
  pek.sign(sev::KeyUsage::kOca, sev::KeyAlgorithm::kEcdsaSha256, owner);
  sev_user_data_pek_cert_import import{};
  CHECK(issue(SEV_PEK_CERT_IMPORT, &import) == -EINVAL);
  import.pek_cert_address = address_of(pek.bytes().data());
  import.pek_cert_len = sev::kCertificateSize;
  import.oca_cert_address = 0x10;
  import.oca_cert_len = sev::kCertificateSize;
  CHECK(issue(SEV_PEK_CERT_IMPORT, &import) == -EFAULT);
  import.oca_cert_address = address_of(oca.bytes().data());
  REQUIRE(issue(SEV_PEK_CERT_IMPORT, &import) == 0);
  sev_user_data_status status{};
  REQUIRE(issue(SEV_PLATFORM_STATUS, &status) == 0);
  CHECK(status.flags == 0x101);
  CHECK(issue(SEV_PEK_GEN) == -EIO);
  CHECK(firmware_error == 5);
  CHECK(issue(SEV_PDH_GEN) == 0);
  export_certificates();
  const auto platform = sev::parse_platform_certificates(pdh, chain);
  CHECK(platform.pdh.is_signed_by(sev::KeyUsage::kPek, platform.pek.key()));
  CHECK(platform.pek.is_signed_by(sev::KeyUsage::kOca, oca.key()));
}

TEST_CASE("damaged NVRAM does not keep guests from starting") {
  const auto identity = std::make_shared<emulator::PlatformIdentity>(emulator::make_platform_identity());
  const sev::SecretBytes good = identity->nvram->read();
  REQUIRE(identity->nvram->write(std::span(good).first(good.size() / 2)));
  const auto host = emulator::make_emulated_host({.identity = identity});
  const int sev_fd = host->open("/dev/sev", O_RDWR);
  sev_user_data_status status{};
  sev_issue_cmd command{};
  command.cmd = SEV_PLATFORM_STATUS;
  command.data = address_of(&status);
  REQUIRE(host->ioctl(sev_fd, SEV_ISSUE_CMD, &command) == 0);
  CHECK(status.state == 1);
  CHECK_NOTHROW(sev::require_chain(identity->chain()));
}
