#include "vmm/doctor/machine_checks.hpp"

#include <algorithm>
#include <charconv>
#include <fmt/format.h>
#include <sstream>

#include "vmm/text/size_text.hpp"

namespace sevisor::doctor {

namespace {

constexpr std::uint32_t kLeafVendor = 0;
constexpr std::uint32_t kLeafSignature = 1;
constexpr std::uint32_t kLeafEncryption = 0x8000001f;
constexpr std::uint32_t kHypervisorPresent = 1U << 31;  // Fn1 ECX
constexpr std::uint32_t kSev = 1U << 1;                 // Fn8000_001F EAX
constexpr std::uint32_t kSevEs = 1U << 3;
constexpr std::uint32_t kDebugSwap = 1U << 14;

constexpr std::string_view kAmd = "AuthenticAMD";

constexpr unsigned kLeastMajor = 5;  // KVM_SEV_ES_INIT came with Linux 5.11
constexpr unsigned kLeastMinor = 11;
// A guest of the default size, its firmware, and what LAUNCH_UPDATE_DATA pins for a moment.
constexpr std::uint64_t kLeastMemlock = (512ULL + 64) << 20;

constexpr const char* kBiosSev =
    "in the BIOS: CPU Common Options > SMEE = Enable, SEV Control = Enable (names differ by vendor; docs/epyc.md)";
constexpr const char* kBiosAsids =
    "in the BIOS: SEV-ES ASID Space Limit Control = Manual, SEV-ES ASID Space Limit = 100 (any number above 1)";
constexpr const char* kReload =
    "echo 'options kvm_amd sev=1 sev_es=1' | sudo tee /etc/modprobe.d/sevisor.conf && sudo modprobe -r kvm_amd && sudo "
    "modprobe kvm_amd";

Check pass(std::string name, std::string text) { return {.name = std::move(name), .text = std::move(text)}; }
Check fail(std::string name, std::string text, std::string repair) {
  return {.name = std::move(name), .status = Status::kFail, .text = std::move(text), .repair = std::move(repair)};
}
Check skip(std::string name, std::string why) {
  return {.name = std::move(name), .status = Status::kSkip, .text = std::move(why)};
}

std::string vendor_of(const CpuidResult& leaf) {
  std::string vendor;
  for (const std::uint32_t word : {leaf.ebx, leaf.edx, leaf.ecx}) {
    for (unsigned byte = 0; byte < 4; ++byte) vendor += static_cast<char>(word >> (8 * byte) & 0xff);
  }
  return vendor;
}

bool has_word(const std::string& text, const std::string& word) {
  std::istringstream words(text);
  for (std::string each; words >> each;) {
    if (each == word) return true;
  }
  return false;
}

// What the kernel made of the processor's feature: it hides it when the BIOS did not enable it.
Check check_kernel_flag(const Machine& machine, const std::string& flag) {
  const std::string name = fmt::format("the kernel uses it ({} in /proc/cpuinfo)", flag);
  const auto flags = machine.cpuinfo("flags");
  if (!flags) return skip(name, "/proc/cpuinfo has no flags");
  if (has_word(*flags, flag)) return pass(name, "yes");
  return fail(name, "no: the processor has the feature, but the BIOS has not enabled it, or the kernel was told not to",
              kBiosSev);
}

Check check_asids(const CpuidResult& encryption) {
  const std::uint32_t all = encryption.ecx;        // ASIDs that can be encrypted guests'
  const std::uint32_t least_sev = encryption.edx;  // least of a guest without SEV-ES
  const std::string name = "ASIDs for SEV-ES guests";
  const std::string split = fmt::format("1 to {} for SEV-ES, {} to {} for plain SEV", least_sev - 1, least_sev, all);
  if (all == 0) return fail(name, "the processor can encrypt no guest", kBiosSev);
  if (least_sev <= 1) return fail(name, fmt::format("none: all {} are for plain SEV", all), kBiosAsids);
  return pass(name, split);
}

Check check_parameter(const Machine& machine, const std::string& module, const std::string& parameter,
                      const std::string& repair) {
  const std::string name = fmt::format("{}.{}", module, parameter);
  const auto value = machine.line_of(fmt::format("sys/module/{}/parameters/{}", module, parameter));
  if (!value) return skip(name, "this kernel has no such parameter");
  if (*value == "Y" || *value == "1") return pass(name, *value);
  return fail(name, *value, repair);
}

Check check_version(const Machine& machine) {
  const std::string name = "Linux 5.11 or later";
  const auto release = machine.line_of("proc/sys/kernel/osrelease");
  unsigned major = 0;
  unsigned minor = 0;
  if (!release) return skip(name, "/proc/sys/kernel/osrelease cannot be read");
  const char* end = release->data() + release->size();
  const auto first = std::from_chars(release->data(), end, major);
  if (first.ptr != end) std::from_chars(first.ptr + 1, end, minor);
  if (major > kLeastMajor || (major == kLeastMajor && minor >= kLeastMinor)) return pass(name, *release);
  return fail(name, *release, "sudo apt-get install -t bookworm-backports linux-image-amd64, or any newer kernel");
}

// "[always] madvise never": the one in brackets.
std::string chosen(const std::string& text) {
  const std::size_t begin = text.find('[');
  const std::size_t end = text.find(']', begin);
  if (begin == std::string::npos || end == std::string::npos) return text;
  return text.substr(begin + 1, end - begin - 1);
}

}  // namespace

bool is_amd(const Machine& machine) { return vendor_of(machine.cpuid(kLeafVendor, 0)) == kAmd; }

bool has_sev(const Machine& machine) { return (machine.cpuid(kLeafEncryption, 0).eax & kSev) != 0; }

// AMD "Revision Guide" of each family; Linux arch/x86/kernel/cpu/amd.c.
std::string processor_generation(std::uint32_t signature) {
  const std::uint32_t family = (signature >> 8 & 0xf) + (signature >> 20 & 0xff);
  const std::uint32_t model = (signature >> 4 & 0xf) | (signature >> 12 & 0xf0);
  struct Generation {
    std::uint32_t family, first_model, last_model;
    const char* name;
  };
  static constexpr Generation kGenerations[] = {
      {0x17, 0x00, 0x0f, "EPYC Naples"},
      {0x17, 0x30, 0x3f, "EPYC Rome"},
      {0x19, 0x00, 0x0f, "EPYC Milan"},
      {0x19, 0x10, 0x1f, "EPYC Genoa"},
      {0x19, 0xa0, 0xaf, "EPYC Bergamo or Siena"},
      {0x1a, 0x00, 0x1f, "EPYC Turin"},
  };
  for (const Generation& generation : kGenerations) {
    if (family == generation.family && model >= generation.first_model && model <= generation.last_model) {
      return generation.name;
    }
  }
  return {};
}

Check check_processor(const Machine& machine) {
  const CpuidResult basic = machine.cpuid(kLeafVendor, 0);
  const CpuidResult signature = machine.cpuid(kLeafSignature, 0);
  const CpuidResult encryption = machine.cpuid(kLeafEncryption, 0);
  const bool in_vm = (signature.ecx & kHypervisorPresent) != 0;
  const std::string vendor = vendor_of(basic);
  const std::string generation = vendor == kAmd ? processor_generation(signature.eax) : "";
  const std::string model = machine.cpuinfo("model name").value_or("unknown model");
  const std::string described =
      fmt::format("{}{}{}, signature {:#x}{}", model, generation.empty() ? "" : ", ", generation, signature.eax,
                  in_vm ? "; this is itself a virtual machine" : "");
  const std::string use_other = in_vm ? "use a physical EPYC machine: a virtual one cannot run SEV guests of its own"
                                      : "use a machine with AMD EPYC Rome (7002) or later";

  std::vector<Check> checks;
  if (vendor != kAmd) {
    checks.push_back(fail("AMD processor", fmt::format("it is {}'s ({})", vendor, described), use_other));
    checks.push_back(skip("SEV, SEV-ES, C-bit, ASIDs", "only AMD's processors have them"));
    return group("Processor", std::move(checks));
  }
  checks.push_back(pass("AMD processor", described));
  const std::string leaf = fmt::format("CPUID 0x8000001F EAX {:#x}", encryption.eax);
  if ((encryption.eax & kSev) == 0) {
    checks.push_back(fail("SEV", "absent, " + leaf, in_vm ? use_other : kBiosSev));
    checks.push_back(skip("SEV-ES, C-bit, ASIDs", "they need SEV"));
    return group("Processor", std::move(checks));
  }
  checks.push_back(pass("SEV", "present, " + leaf));
  if ((encryption.eax & kSevEs) == 0) {
    checks.push_back(fail("SEV-ES", "absent: this processor encrypts memory, but not registers", use_other));
    return group("Processor", std::move(checks));
  }
  Check es = group("SEV-ES", {check_kernel_flag(machine, "sev"), check_kernel_flag(machine, "sev_es"),
                              pass("C-bit", fmt::format("bit {}; guests lose {} physical address bits",
                                                        encryption.ebx & 0x3f, encryption.ebx >> 6 & 0x3f)),
                              check_asids(encryption)});
  es.text = (encryption.eax & kDebugSwap) != 0 ? "present, with DebugSwap" : "present";
  checks.push_back(std::move(es));
  return group("Processor", std::move(checks));
}

Check check_kernel(const Machine& machine) {
  std::vector<Check> checks = {check_version(machine)};
  if (!is_amd(machine)) {
    checks.push_back(skip("modules kvm_amd and ccp", "they are for AMD's processors"));
    return group("Kernel", std::move(checks));
  }
  if (machine.has("sys/module/kvm_amd")) {
    Check module = group("module kvm_amd", {check_parameter(machine, "kvm_amd", "sev", kReload),
                                            check_parameter(machine, "kvm_amd", "sev_es", kReload),
                                            check_parameter(machine, "kvm_amd", "npt", kReload),
                                            check_parameter(machine, "kvm", "mmio_caching",
                                                            "remove mmio_caching=0 from the options of kvm, and "
                                                            "reload kvm_amd")});
    module.text = "loaded";
    checks.push_back(std::move(module));
  } else {
    checks.push_back(fail("module kvm_amd",
                          machine.has("dev/kvm") ? "not loaded: /dev/kvm is another module's" : "not loaded",
                          "sudo modprobe kvm_amd; if that fails, enable SVM in the BIOS"));
  }
  if (machine.has("sys/module/ccp")) {
    checks.push_back(pass("module ccp (the Secure Processor's driver)", "loaded"));
  } else if (machine.has("dev/sev")) {
    checks.push_back(pass("module ccp (the Secure Processor's driver)", "built in"));
  } else if (!has_sev(machine)) {
    checks.push_back(skip("module ccp (the Secure Processor's driver)", "it needs SEV"));
  } else {
    checks.push_back(fail("module ccp (the Secure Processor's driver)", "not loaded", "sudo modprobe ccp"));
  }
  return group("Kernel", std::move(checks));
}

Check check_memory(const Machine& machine) {
  std::vector<Check> checks;
  const std::string name = "locked memory";
  const std::string limit = machine.memlock == UINT64_MAX ? "no limit" : vmm::size_text(machine.memlock & ~0xfffULL);
  if (machine.may_lock_memory) {
    checks.push_back(pass(name, fmt::format("limit {}, which does not hold for CAP_IPC_LOCK", limit)));
  } else if (machine.memlock >= kLeastMemlock) {
    checks.push_back(pass(name, fmt::format("limit {}", limit)));
  } else {
    checks.push_back(fail(
        name, fmt::format("limit {}; an encrypted guest's whole memory is pinned, and counts", limit),
        fmt::format("echo '{} - memlock unlimited' | sudo tee /etc/security/limits.d/sevisor.conf, and log in again",
                    machine.user)));
  }
  const std::string huge = "sys/kernel/mm/hugepages/hugepages-2048kB/";
  const auto total = machine.line_of(huge + "nr_hugepages");
  const auto free = machine.line_of(huge + "free_hugepages");
  checks.push_back(total && free
                       ? pass("huge pages of 2 MiB", fmt::format("{} reserved, {} of them free", *total, *free))
                       : skip("huge pages of 2 MiB", "this kernel has none"));
  const auto transparent = machine.line_of("sys/kernel/mm/transparent_hugepage/enabled");
  checks.push_back(transparent ? pass("transparent huge pages", chosen(*transparent))
                               : skip("transparent huge pages", "this kernel has none"));
  return group("Memory", std::move(checks));
}

}  // namespace sevisor::doctor
