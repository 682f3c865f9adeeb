// /dev/sev: the Secure Processor's management interface. Linux drivers/crypto/ccp/sev-dev.c sev_ioctl().
#pragma once

#include <memory>

#include "emulator/kvm/file.hpp"
#include "emulator/kvm/platform.hpp"
#include "kvm/abi.hpp"

namespace sevisor::emulator {

class SevDevice final : public File {
 public:
  // `writable`: opened for writing.
  SevDevice(std::shared_ptr<Platform> platform, bool writable) : platform_(std::move(platform)), writable_(writable) {}
  int ioctl(unsigned long request, void* argument) override;

 private:
  struct Row;
  static const Row kRows[];

  int factory_reset(sev_issue_cmd& command);
  int platform_status(sev_issue_cmd& command);
  int pek_gen(sev_issue_cmd& command);
  int pek_csr(sev_issue_cmd& command);
  int pdh_gen(sev_issue_cmd& command);
  int pdh_cert_export(sev_issue_cmd& command);
  int pek_cert_import(sev_issue_cmd& command);
  int get_id(sev_issue_cmd& command);
  int get_id2(sev_issue_cmd& command);
  // INIT, unless the platform is initialised. Linux's driver sends it when the first command needs it.
  int initialise(sev_issue_cmd& command);

  std::shared_ptr<Platform> platform_;
  bool writable_;
};

}  // namespace sevisor::emulator
