// Guests with SEV and without SEV-ES: memory as the C-bit says, exits as of an ordinary guest. APM vol. 2, 15.34; Linux
// arch/x86/kvm/svm/sev.c, svm.c svm_check_emulate_instruction().
#include "kvm/abi.hpp"
#include "tests/emulator_ordinary/guest.hpp"

using namespace sevisor;
using namespace sevisor::test;

namespace {

// 64-bit code. Everything is private but the page at kShared.
struct SevGuest {
  static constexpr std::uint64_t kCBit = std::uint64_t{1} << 51;
  static constexpr std::uint64_t kPml4 = 0x2000;
  static constexpr std::uint64_t kPdp = 0x3000;
  static constexpr std::uint64_t kPd = 0x4000;
  static constexpr std::uint64_t kPt = 0x5000;
  static constexpr std::uint64_t kCode = 0x10000;
  static constexpr std::uint64_t kPrivate = 0x11000;
  static constexpr std::uint64_t kShared = 0x12000;
  static constexpr std::uint64_t kStack = 0x18000;
  static constexpr std::uint64_t kDevice = 0xd000'0000;  // linear and physical, shared

  std::unique_ptr<kvm::Host> host = emulator::make_emulated_host({});
  int kvm_fd = host->open("/dev/kvm", O_RDWR);
  int sev_fd = host->open("/dev/sev", O_RDWR);
  Mapping ram = Mapping::anonymous(1 << 20, PROT_READ | PROT_WRITE);
  int vm = -1;
  int vcpu = -1;
  kvm_run* run_area = nullptr;

  explicit SevGuest(bool init2) {
    vm = call(kvm_fd, KVM_CREATE_VM, init2 ? kvm::kVmTypeSev : kvm::kVmTypeDefault);
    kvm::SevInit init{};
    REQUIRE(sev(init2 ? kvm::kSevInit2 : std::uint32_t{KVM_SEV_INIT}, &init) == 0);
    kvm_userspace_memory_region region{.slot = 0,
                                       .flags = 0,
                                       .guest_phys_addr = 0,
                                       .memory_size = ram.size(),
                                       .userspace_addr = reinterpret_cast<std::uintptr_t>(ram.data())};
    REQUIRE(call(vm, KVM_SET_USER_MEMORY_REGION, &region) == 0);
    for (std::uint64_t page = 0; page < 256; ++page) {
      const std::uint64_t at = page << 12;
      store(ram.data() + kPt + page * 8, at | 3 | (at == kShared ? 0 : kCBit));
    }
    store(ram.data() + kPml4, kPdp | 3 | kCBit);
    store(ram.data() + kPdp, kPd | 3 | kCBit);
    store(ram.data() + kPd, kPt | 3 | kCBit);
    store(ram.data() + kPdp + 3 * 8, std::uint64_t{0xc000'0000} | 0x83);  // 1 GiB with the device, C=0
  }
  ~SevGuest() {
    if (run_area != nullptr) host->munmap(run_area, kvm::kVcpuMmapSize);
    for (const int fd : {vcpu, vm, sev_fd, kvm_fd}) host->close(fd);
  }
  SevGuest(const SevGuest&) = delete;
  SevGuest& operator=(const SevGuest&) = delete;

  int call(int fd, unsigned long request, void* argument = nullptr) {
    const int result = host->ioctl(fd, request, argument);
    return result < 0 ? -errno : result;
  }
  int call(int fd, unsigned long request, unsigned long argument) {
    return call(fd, request, reinterpret_cast<void*>(argument));
  }
  int sev(std::uint32_t id, void* data = nullptr) {
    kvm_sev_cmd command{};
    command.id = id;
    command.data = reinterpret_cast<std::uintptr_t>(data);
    command.sev_fd = static_cast<std::uint32_t>(sev_fd);
    return call(vm, KVM_MEMORY_ENCRYPT_OP, &command);
  }
  void launch(std::initializer_list<unsigned> code) {
    std::byte* at = ram.data() + kCode;
    for (const unsigned byte : code) *at++ = static_cast<std::byte>(byte);
    kvm_sev_launch_start start{};
    REQUIRE(sev(KVM_SEV_LAUNCH_START, &start) == 0);
    kvm_sev_launch_update_data update{};
    update.uaddr = reinterpret_cast<std::uintptr_t>(ram.data());
    update.len = kShared;
    REQUIRE(sev(KVM_SEV_LAUNCH_UPDATE_DATA, &update) == 0);
    make_vcpu();
    CHECK(sev(KVM_SEV_LAUNCH_UPDATE_VMSA) == -ENOTTY);
    std::byte blob[48];
    kvm_sev_launch_measure measure{};
    measure.uaddr = reinterpret_cast<std::uintptr_t>(blob);
    measure.len = sizeof blob;
    REQUIRE(sev(KVM_SEV_LAUNCH_MEASURE, &measure) == 0);
    REQUIRE(sev(KVM_SEV_LAUNCH_FINISH) == 0);
  }
  void make_vcpu() {
    vcpu = call(vm, KVM_CREATE_VCPU, 0ul);
    run_area = static_cast<kvm_run*>(host->mmap(vcpu, kvm::kVcpuMmapSize));
    REQUIRE(run_area != nullptr);
    std::vector<std::byte> bytes(sizeof(kvm_cpuid2) + sizeof(kvm_cpuid_entry2));
    auto* table = reinterpret_cast<kvm_cpuid2*>(bytes.data());
    table->nent = 1;
    table->entries[0] = {
        .function = 0x8000001f, .index = 0, .flags = 0, .eax = 2, .ebx = 51, .ecx = 0, .edx = 0, .padding = {}};
    REQUIRE(call(vcpu, KVM_SET_CPUID2, table) == 0);
    kvm_sregs sregs{};
    REQUIRE(call(vcpu, KVM_GET_SREGS, &sregs) == 0);
    kvm_segment flat{};
    flat.limit = 0xffff'ffff;
    flat.present = flat.s = flat.g = 1;
    flat.type = 3;
    flat.db = 1;
    sregs.ds = sregs.es = sregs.ss = flat;
    sregs.cs = flat;
    sregs.cs.type = 11;
    sregs.cs.selector = 8;
    sregs.cs.db = 0;
    sregs.cs.l = 1;
    sregs.cr0 = 0x80000011;
    sregs.cr3 = kPml4 | kCBit;
    sregs.cr4 = 0x20;
    sregs.efer = 0x500;
    sregs.idt.limit = 0;
    REQUIRE(call(vcpu, KVM_SET_SREGS, &sregs) == 0);
    kvm_regs regs{};
    regs.rip = kCode;
    regs.rsp = kStack;
    regs.rflags = 2;
    REQUIRE(call(vcpu, KVM_SET_REGS, &regs) == 0);
  }
  std::uint32_t run() {
    REQUIRE(call(vcpu, KVM_RUN) == 0);
    return run_area->exit_reason;
  }
  kvm_regs regs() {
    kvm_regs r{};
    REQUIRE(call(vcpu, KVM_GET_REGS, &r) == 0);
    return r;
  }
};

}  // namespace

TEST_CASE("a guest with SEV: private memory is ciphertext, its exits show registers") {
  const bool init2 = GENERATE(false, true);
  SevGuest guest(init2);
  guest.launch({0xb9, 0x31, 0x01, 0x01, 0xc0, 0x0f, 0x32,                          // rdmsr SEV_STATUS
                0x89, 0xc3,                                                        // mov ebx, eax
                0xc7, 0x04, 0x25, 0,    0x10, 1,    0,    0x44, 0x33, 0x22, 0x11,  // mov dword [kPrivate], 0x11223344
                0xc7, 0x04, 0x25, 0,    0x20, 1,    0,    0x44, 0x33, 0x22, 0x11,  // mov dword [kShared], 0x11223344
                0x0f, 0xae, 0x3c, 0x25, 0,    0x10, 1,    0,                       // clflush [kPrivate]
                0x8b, 0x0c, 0x25, 0,    0x10, 1,    0,                             // mov ecx, [kPrivate]
                0xb0, 0x55, 0xe6, 0x80,                                            // mov al, 0x55; out 0x80, al
                0xb8, 0,    0,    0,    0xd0, 0x48, 0x8b, 0x10,                    // mov eax, kDevice; mov rdx, [rax]
                0xf3, 0x0f, 0x01, 0xd9,                                            // VMGEXIT is VMMCALL here
                0xf4});
  REQUIRE(guest.run() == KVM_EXIT_IO);
  CHECK(guest.run_area->io.port == 0x80);
  CHECK(guest.regs().rbx == 1);
  CHECK(guest.regs().rcx == 0x11223344);
  CHECK(load<std::uint32_t>(guest.ram.data() + SevGuest::kShared) == 0x11223344);
  CHECK(load<std::uint32_t>(guest.ram.data() + SevGuest::kPrivate) != 0x11223344);
  CHECK(load<std::uint32_t>(guest.ram.data() + SevGuest::kPrivate) != 0);
  REQUIRE(guest.run() == KVM_EXIT_MMIO);
  CHECK(guest.run_area->mmio.phys_addr == SevGuest::kDevice);
  CHECK(guest.run_area->mmio.len == 8);
  store(reinterpret_cast<std::byte*>(guest.run_area->mmio.data), std::uint64_t{0x123456789abcdef0});
  REQUIRE(guest.run() == KVM_EXIT_HLT);
  CHECK(guest.regs().rdx == 0x123456789abcdef0);
  CHECK(guest.regs().rax == static_cast<std::uint64_t>(-1000));  // KVM_ENOSYS
}

TEST_CASE("KVM cannot emulate port strings of a guest with SEV: #UD") {
  SevGuest guest(true);
  guest.launch({0x66, 0xba, 0x80, 0, 0xbe, 0, 0x20, 1, 0, 0x6e, 0xf4});  // mov dx, 0x80; mov esi, kShared; outsb
  CHECK(guest.run() == KVM_EXIT_SHUTDOWN);
}

TEST_CASE("nor instructions that need the guest's page tables beyond the access that failed") {
  SevGuest guest(true);
  guest.launch({0xbe, 0, 0, 0, 0xd0, 0xbf, 0, 0x10, 1, 0, 0xa4, 0xf4});  // mov esi, kDevice; mov edi, kPrivate; movsb
  REQUIRE(guest.run() == KVM_EXIT_INTERNAL_ERROR);
  CHECK(guest.run_area->internal.suberror == KVM_INTERNAL_ERROR_EMULATION);
}
