#include "vmm/doctor/host_checks.hpp"

#include <cerrno>
#include <fcntl.h>
#include <fmt/format.h>

#include "base/error.hpp"
#include "kvm/handles.hpp"
#include "sev/cpu_type.hpp"
#include "sev/encoding.hpp"
#include "sev/policy.hpp"
#include "vmm/doctor/machine_checks.hpp"
#include "vmm/launch/launch.hpp"
#include "vmm/machine/guest_ram.hpp"
#include "vmm/machine/memory_map.hpp"

namespace sevisor::doctor {

namespace {

std::string open_repair(const Machine& machine, const std::string& path, int error_number) {
  const std::string& user = machine.user;
  if (error_number == EACCES || error_number == EPERM) {
    if (path == "/dev/kvm") {
      const std::string join = fmt::format("sudo usermod -aG kvm {}, and log in again", user);
      const bool joining_helps = !machine.has("dev/kvm") || machine.opens_to_group("dev/kvm", "kvm");
      return joining_helps ? join : "sudo chgrp kvm /dev/kvm && sudo chmod 660 /dev/kvm; " + join;
    }
    return fmt::format("sudo setfacl -m u:{}:rw {}; for good, a udev rule (docs/epyc.md)", user, path);
  }
  if (path == "/dev/sev" && is_amd(machine) && !has_sev(machine)) return "none: the processor has no SEV";
  if (!is_amd(machine)) return "use a machine with an AMD EPYC processor";
  if (error_number == EBUSY) return "end the other hypervisor that has the processor";
  return path == "/dev/kvm" ? "sudo modprobe kvm_amd; if that fails, enable SVM in the BIOS"
                            : "enable SEV in the BIOS, then: sudo modprobe ccp";
}

// Whether this user can open a device.
Check check_open(kvm::Host& host, const Machine& machine, const std::string& path) {
  const int fd = host.open(path.c_str(), O_RDWR | O_CLOEXEC);
  const int error_number = errno;
  std::string permissions = host.name() == "kernel" ? machine.permissions_of(path.substr(1)) : "";
  if (fd >= 0) {
    host.close(fd);
    return {.name = path, .text = permissions.empty() ? "opens" : "opens, " + permissions};
  }
  if (!permissions.empty()) permissions = ", " + permissions;
  return {.name = path,
          .status = Status::kFail,
          .text = errno_text(error_number) + permissions,
          .repair = open_repair(machine, path, error_number)};
}

// A step that throws an Error when it fails, and else returns what it found.
template <class Step>
Check attempt(std::string name, Step step) {
  try {
    std::string text = step();
    return {.name = std::move(name), .text = std::move(text)};
  } catch (const Error& error) {
    return {.name = std::move(name),
            .status = Status::kFail,
            .text = fmt::format("{}: {}", error.tried(), error.came_back()),
            .repair = error.advice()};
  }
}

Check skipped(std::string name, std::string why) {
  return {.name = std::move(name), .status = Status::kSkip, .text = std::move(why)};
}

Check check_init_apis(const kvm::Kvm& kvm) {
  const auto types = static_cast<unsigned>(kvm.capability(kvm::kCapVmTypes));
  const bool init2 = (types >> kvm::kVmTypeSevEs & 1) != 0;
  // Linux 7.2 drivers/crypto/ccp/sev-dev.c, sev_firmware_supported_vm_types(): with SNP and without SEV-ES.
  if ((types >> kvm::kVmTypeSnp & 1) != 0 && !init2) {
    return {
        .name = "init commands",
        .status = Status::kFail,
        .text = fmt::format("SEV-SNP is on, and this Secure Processor's firmware refuses SEV-ES then (VM types {:#x}; "
                            "AMD-SB-3023)",
                            types),
        .repair = "turn SEV-SNP off in the BIOS (docs/epyc.md, step 1)"};
  }
  return {.name = "init commands",
          .text = fmt::format("KVM_SEV_ES_INIT{} (VM types {:#x})", init2 ? ", KVM_SEV_INIT2" : "", types)};
}

Check check_kvm(kvm::Host& host, const Machine& machine, bool& encrypts) {
  Check device = check_open(host, machine, "/dev/kvm");
  if (device.status != Status::kPass) return device;
  device.children.push_back(attempt("KVM API", [&] {
    (void)kvm::Kvm::open(host);
    return std::string("version 12");
  }));
  if (device.children.back().status == Status::kPass) {
    const kvm::Kvm kvm = kvm::Kvm::open(host);
    device.children.push_back(attempt("encrypted guests", [&] {
      if (!kvm.create_vm().can_encrypt()) {
        throw Error(ExitCode::kHostCannot, "ask with KVM_MEMORY_ENCRYPT_OP", "SEV is off or absent in this kernel",
                    "see the checks of processor and kernel");
      }
      return std::string("offered");
    }));
    encrypts = device.children.back().status == Status::kPass;
    device.children.push_back(encrypts ? check_init_apis(kvm) : skipped("init commands", "no encrypted guests"));
    device.children.push_back({.name = "vCPUs of a guest", .text = fmt::format("up to {}", kvm.max_vcpus())});
  }
  const std::string text = device.text;
  device = group(device.name, std::move(device.children));
  device.text = text;
  return device;
}

Check check_sev(kvm::Host& host, const Machine& machine) {
  Check device = check_open(host, machine, "/dev/sev");
  if (device.status != Status::kPass) return device;
  device.children.push_back(attempt("Secure Processor", [&] {
    const sev_user_data_status status = kvm::SevDevice::open(host).platform_status();
    static constexpr const char* kStates[] = {"uninitialised", "initialised", "working"};
    const std::string state =
        status.state < std::size(kStates) ? kStates[status.state] : fmt::format("state {}", status.state);
    return fmt::format("API {}.{} build {}, {}, {} guest{}{}", status.api_major, status.api_minor, status.build, state,
                       status.guest_count, status.guest_count == 1 ? "" : "s",
                       (status.flags & SEV_STATUS_FLAGS_CONFIG_ES) != 0 ? ", SEV-ES configured" : "");
  }));
  const std::string text = device.text;
  device = group(device.name, std::move(device.children));
  device.text = text;
  return device;
}

}  // namespace

Check check_host(kvm::Host& host, const Machine& machine) {
  bool encrypts = false;
  Check kvm = check_kvm(host, machine, encrypts);
  return group("Devices", {std::move(kvm), check_sev(host, machine)});
}

Check check_launch(kvm::Host& host, const sev::FirmwareImage& firmware) {
  return attempt("Dry launch of a guest", [&] {
    const vmm::GuestRam ram(vmm::make_memory_map(vmm::kMinMemory));
    vmm::LaunchConfig config;
    config.policy = sev::kDefaultPolicy;
    config.cpu_signature = sev::cpu_signature(sev::find_cpu_type(sev::kDefaultCpuType));
    config.firmware = firmware;
    const vmm::LaunchedGuest guest = vmm::launch(host, ram, config);
    return fmt::format("{}, launch digest {}", guest.report.init_api, sev::to_hex(guest.report.digest));
  });
}

Examination examine(kvm::Host& host, const Machine& machine, const sev::FirmwareImage& firmware) {
  Examination examination;
  std::vector<Check>& checks = examination.checks;
  if (host.name() == "kernel") checks = {check_processor(machine), check_kernel(machine), check_memory(machine)};
  checks.push_back(check_host(host, machine));
  if (const Check* devices = &checks.back(); devices->status == Status::kPass) {
    checks.push_back(check_launch(host, firmware));
  } else {
    checks.push_back(skipped("Dry launch of a guest", "the devices are not there"));
  }
  examination.can_run = checks.back().status == Status::kPass;
  const Check* failure = first_failure(checks);
  if (examination.can_run) {
    examination.verdict = fmt::format("the {} host runs SEV-ES guests", host.name());
    if (failure != nullptr) {
      examination.verdict += fmt::format("; larger ones may fail ({}: {})", failure->name, failure->text);
    }
  } else {
    examination.verdict =
        fmt::format("the {} host cannot run SEV-ES guests: {}: {}", host.name(), failure->name, failure->text);
  }
  return examination;
}

}  // namespace sevisor::doctor
