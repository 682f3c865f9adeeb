#include "sev_rig.hpp"

#include <algorithm>
#include <array>
#include <iterator>
#include <sys/mman.h>

#include "base/bytes.hpp"
#include "kvm/exit_name.hpp"

namespace sevisor::conformance {

namespace {
constexpr std::uint64_t kPml4 = 0x80000;
constexpr std::uint64_t kPdpt = 0x81000;
constexpr std::uint64_t kDirectory = 0x82000;
constexpr std::uint64_t kPresentWritable = 3;
constexpr std::uint64_t kLarge = 1 << 7;
constexpr std::uint32_t kSevLeaf = 0x8000001f;

unsigned c_bit_of(const kvm::Kvm& kvm) {
  const kvm::CpuidTable table = kvm.supported_cpuid();
  const auto leaf = std::ranges::find(table, kSevLeaf, &kvm_cpuid_entry2::function);
  REQUIRE(leaf != table.end());
  return leaf->ebx & 0x3f;
}
}  // namespace

bool kernel_has(Kind kind) {
  if (!by_init2(kind)) return true;
  const auto host = make_host();
  return kvm::Kvm::open(*host).has_vm_type(has_es(kind) ? kvm::kVmTypeSevEs : kvm::kVmTypeSev);
}

std::string name_of(Kind kind) {
  return std::string(has_es(kind) ? "SEV-ES" : "SEV") + (by_init2(kind) ? " by INIT2" : "");
}

SevHost::SevHost() : host(make_host()), kvm(kvm::Kvm::open(*host)), sev(kvm::SevDevice::open(*host)) {}

kvm::Vm SevHost::make_vm(Kind kind) const {
  if (!by_init2(kind)) return kvm.create_vm();
  return kvm.create_vm(has_es(kind) ? kvm::kVmTypeSevEs : kvm::kVmTypeSev);
}

int SevHost::command(const kvm::Vm& vm, std::uint32_t id, void* data) {
  kvm_sev_cmd command{};
  command.id = id;
  command.data = reinterpret_cast<std::uintptr_t>(data);
  command.sev_fd = static_cast<std::uint32_t>(sev.fd());
  const int result = answer(vm.descriptor(), KVM_MEMORY_ENCRYPT_OP, &command);
  firmware_error = command.error;
  return result;
}

int SevHost::init(const kvm::Vm& vm, Kind kind) {
  if (by_init2(kind)) return command_with(vm, kvm::kSevInit2, kvm::SevInit{});
  return command(vm, has_es(kind) ? KVM_SEV_ES_INIT : KVM_SEV_INIT);
}

int SevHost::start(const kvm::Vm& vm, std::uint32_t policy) {
  kvm_sev_launch_start params{};
  params.policy = policy;
  return command(vm, KVM_SEV_LAUNCH_START, &params);
}

int SevHost::update(const kvm::Vm& vm, std::span<std::byte> memory) {
  kvm_sev_launch_update_data params{};
  params.uaddr = reinterpret_cast<std::uintptr_t>(memory.data());
  params.len = static_cast<std::uint32_t>(memory.size());
  return command(vm, KVM_SEV_LAUNCH_UPDATE_DATA, &params);
}

kvm_sev_guest_status SevHost::status(const kvm::Vm& vm) {
  kvm_sev_guest_status status{};
  REQUIRE(command(vm, KVM_SEV_GUEST_STATUS, &status) == 0);
  return status;
}

int SevHost::measure(const kvm::Vm& vm) {
  std::array<std::byte, 256> blob{};  // larger than needed
  kvm_sev_launch_measure params{};
  params.uaddr = reinterpret_cast<std::uintptr_t>(blob.data());
  params.len = sizeof blob;
  const int result = command(vm, KVM_SEV_LAUNCH_MEASURE, &params);
  if (result == 0) CHECK(params.len == kvm::kLaunchMeasureSize);
  return result;
}

int SevHost::take_context(int capability, const kvm::Vm& to, const kvm::Vm& from) const {
  kvm_enable_cap cap{};
  cap.cap = static_cast<std::uint32_t>(capability);
  cap.args[0] = static_cast<std::uint64_t>(from.descriptor().get());
  return answer(to.descriptor(), KVM_ENABLE_CAP, &cap);
}
int SevHost::mirror(const kvm::Vm& to, const kvm::Vm& from) const {
  return take_context(KVM_CAP_VM_COPY_ENC_CONTEXT_FROM, to, from);
}
int SevHost::move(const kvm::Vm& to, const kvm::Vm& from) const {
  return take_context(KVM_CAP_VM_MOVE_ENC_CONTEXT_FROM, to, from);
}

SevRig::SevRig(Kind of, std::uint32_t guest_policy)
    : kind(of), policy(guest_policy), ram(Mapping::anonymous(kRamBytes, PROT_READ | PROT_WRITE)), vm(make_vm(of)) {
  REQUIRE(init(vm, kind) == 0);
  CHECK(firmware_error == 0);
  vm.create_irqchip();
  vm.set_memory_slot(0, Gpa(0), ram.bytes());
  vcpus.push_back(vm.create_vcpu(0));
  vcpus[0].set_cpuid(kvm.supported_cpuid());
}

void SevRig::load(Code code) {
  std::ranges::copy(code.bytes(), ram.data() + kCode);
  const std::uint64_t private_bit = std::uint64_t{1} << c_bit_of(kvm);
  store(ram.data() + kPml4, kPdpt | kPresentWritable | private_bit);
  store(ram.data() + kPdpt, kDirectory | kPresentWritable | private_bit);
  store(ram.data() + kDirectory, kPresentWritable | kLarge | private_bit);
  store(ram.data() + kDirectory + 8, kShared | kPresentWritable | kLarge);
  kvm_sregs sregs = vcpus[0].sregs();
  sregs.cs.selector = 8;
  sregs.cs.base = 0;
  sregs.cs.limit = 0xffffffff;
  sregs.cs.l = sregs.cs.g = 1;
  for (kvm_segment* each : {&sregs.ds, &sregs.es, &sregs.fs, &sregs.gs, &sregs.ss}) {
    each->selector = 16;
    each->limit = 0xffffffff;
    each->db = each->g = 1;
  }
  sregs.idt.limit = 0;
  sregs.cr0 = 0x80000011;  // PG, ET, PE
  sregs.cr3 = kPml4 | private_bit;
  sregs.cr4 = 0x40620;  // OSXSAVE, OSXMMEXCPT, OSFXSR, PAE
  sregs.efer = 0x500;   // LMA, LME
  vcpus[0].set_sregs(sregs);
  kvm_regs regs{};
  regs.rip = kCode;
  regs.rsp = 0x8000;
  regs.rflags = 2;
  vcpus[0].set_regs(regs);
}

void SevRig::launch() {
  REQUIRE(start(vm, policy) == 0);
  CHECK(status(vm).policy == policy);
  CHECK(status(vm).state == kLaunchUpdate);
  vm.register_encrypted_region(ram.bytes());
  REQUIRE(update(vm, ram.bytes().first(kShared)) == 0);
  if (has_es(kind)) REQUIRE(command(vm, KVM_SEV_LAUNCH_UPDATE_VMSA) == 0);
  CHECK(status(vm).state == kLaunchUpdate);
  REQUIRE(measure(vm) == 0);
  CHECK(status(vm).state == kLaunchSecret);
  REQUIRE(command(vm, KVM_SEV_LAUNCH_FINISH) == 0);
  CHECK(status(vm).state == kRunning);
}

kvm_run& SevRig::run_to(std::uint32_t reason) {
  const int error_number = vcpus[0].run();
  kvm_run& state = vcpus[0].state();
  INFO("KVM_RUN: errno " << error_number << ", " << kvm::exit_reason_name(state.exit_reason));
  REQUIRE(error_number == 0);
  REQUIRE(state.exit_reason == reason);
  return state;
}

}  // namespace sevisor::conformance
