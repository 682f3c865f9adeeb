// A guest of a few bytes of machine code, run through KVM's ioctls. With SEVISOR_TEST_HOST=kernel in the environment it
// is this machine's /dev/kvm that runs it, so that what the tests expect can be compared with the real one. Tests with
// [native] want one that runs ring 0 natively: KVM's emulator has no IRET of protected mode, and steps over no OUT.
#pragma once

#include <catch2/catch.hpp>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <fcntl.h>
#include <initializer_list>
#include <string_view>
#include <sys/mman.h>
#include <vector>

#include "base/bytes.hpp"
#include "base/mapping.hpp"
#include "emulator/kvm/emulated_host.hpp"
#include "kvm/abi.hpp"
#include "kvm/kernel_host.hpp"

namespace sevisor::test {

inline bool on_kernel() {
  const char* name = std::getenv("SEVISOR_TEST_HOST");
  return name != nullptr && std::string_view(name) == "kernel";
}

// One vCPU, 32-bit flat code without paging or tables: an exception ends it with a triple fault unless the test gives
// it an IDT. 1 MiB of RAM at 0, nothing at kDevice, a read-only page at kRom.
struct Guest {
  static constexpr std::uint64_t kCode = 0x1000;
  static constexpr std::uint64_t kStack = 0x8000;
  static constexpr std::uint64_t kData = 0x10000;
  static constexpr std::uint64_t kDevice = 0xd000'0000;
  static constexpr std::uint64_t kRom = 0xe000'0000;
  enum class Irqchip { kNone, kKernel };

  std::unique_ptr<kvm::Host> host = on_kernel() ? kvm::make_kernel_host() : emulator::make_emulated_host({});
  int kvm_fd = host->open("/dev/kvm", O_RDWR);
  Mapping ram = Mapping::anonymous(1 << 20, PROT_READ | PROT_WRITE);
  Mapping rom = Mapping::anonymous(4096, PROT_READ | PROT_WRITE);
  int vm = -1;
  int vcpu = -1;
  kvm_run* run_area = nullptr;

  explicit Guest(Irqchip irqchip = Irqchip::kNone) {
    vm = call(kvm_fd, KVM_CREATE_VM, 0ul);
    REQUIRE(vm >= 0);
    if (irqchip == Irqchip::kKernel) REQUIRE(call(vm, KVM_CREATE_IRQCHIP) == 0);
    slot(0, 0, ram, 0);
    slot(1, kRom, rom, KVM_MEM_READONLY);
    vcpu = call(vm, KVM_CREATE_VCPU, 0ul);
    REQUIRE(vcpu >= 0);
    run_area = static_cast<kvm_run*>(host->mmap(vcpu, kvm::kVcpuMmapSize));
    REQUIRE(run_area != nullptr);
    enter_protected_mode();
  }
  ~Guest() {
    host->munmap(run_area, kvm::kVcpuMmapSize);
    host->close(vcpu);
    host->close(vm);
    host->close(kvm_fd);
  }
  Guest(const Guest&) = delete;
  Guest& operator=(const Guest&) = delete;

  // The result, or a negative errno.
  int call(int fd, unsigned long request, void* argument = nullptr) {
    const int result = host->ioctl(fd, request, argument);
    return result < 0 ? -errno : result;
  }
  int call(int fd, unsigned long request, unsigned long argument) {
    return call(fd, request, reinterpret_cast<void*>(argument));
  }
  template <class T>
  int set(unsigned long request, T value) {
    return call(vcpu, request, &value);
  }
  template <class T>
  T get(unsigned long request) {
    T value{};
    REQUIRE(call(vcpu, request, &value) == 0);
    return value;
  }

  void slot(std::uint32_t id, std::uint64_t gpa, Mapping& memory, std::uint32_t flags) {
    kvm_userspace_memory_region region{.slot = id,
                                       .flags = flags,
                                       .guest_phys_addr = gpa,
                                       .memory_size = memory.size(),
                                       .userspace_addr = reinterpret_cast<std::uintptr_t>(memory.data())};
    REQUIRE(call(vm, KVM_SET_USER_MEMORY_REGION, &region) == 0);
  }

  void enter_protected_mode() {
    auto sregs = get<kvm_sregs>(KVM_GET_SREGS);
    kvm_segment flat{};
    flat.limit = 0xffff'ffff;
    flat.present = flat.s = flat.db = flat.g = 1;
    flat.type = 3;
    flat.selector = 0x10;
    sregs.ds = sregs.es = sregs.fs = sregs.gs = sregs.ss = flat;
    sregs.cs = flat;
    sregs.cs.type = 11;
    sregs.cs.selector = 8;
    sregs.cr0 |= 1;
    sregs.idt.limit = 0;
    REQUIRE(set(KVM_SET_SREGS, sregs) == 0);
    kvm_regs regs{};
    regs.rip = kCode;
    regs.rsp = kStack;
    regs.rflags = 2;
    REQUIRE(set(KVM_SET_REGS, regs) == 0);
  }

  // The code, which goes on where the guest now is.
  void code(std::initializer_list<unsigned> bytes) {
    std::vector<std::byte> image;
    for (const unsigned byte : bytes) image.push_back(static_cast<std::byte>(byte));
    const std::uint64_t at = regs().rip;
    std::memcpy(ram.data() + at, image.data(), image.size());
  }
  kvm_regs regs() { return get<kvm_regs>(KVM_GET_REGS); }
  void set_regs(auto change) {
    kvm_regs r = regs();
    change(r);
    REQUIRE(set(KVM_SET_REGS, r) == 0);
  }
  // KVM_RUN; the exit reason.
  std::uint32_t run() {
    const int result = call(vcpu, KVM_RUN);
    REQUIRE(result == 0);
    return run_area->exit_reason;
  }
  std::byte* port_data() { return reinterpret_cast<std::byte*>(run_area) + run_area->io.data_offset; }

  void expect_port(bool in, unsigned size, unsigned port, unsigned count = 1) {
    REQUIRE(run() == KVM_EXIT_IO);
    CHECK(run_area->io.direction == (in ? KVM_EXIT_IO_IN : KVM_EXIT_IO_OUT));
    CHECK(run_area->io.size == size);
    CHECK(run_area->io.port == port);
    CHECK(run_area->io.count == count);
    CHECK(run_area->io.data_offset == kvm::kPioDataOffset);
  }
  void expect_mmio(bool write, std::uint64_t gpa, unsigned size) {
    REQUIRE(run() == KVM_EXIT_MMIO);
    CHECK(run_area->mmio.is_write == write);
    CHECK(run_area->mmio.phys_addr == gpa);
    CHECK(run_area->mmio.len == size);
  }
  std::uint64_t mmio_value() { return load<std::uint64_t>(reinterpret_cast<std::byte*>(run_area->mmio.data)); }
  void answer_mmio(std::uint64_t value) { store(reinterpret_cast<std::byte*>(run_area->mmio.data), value); }
};

}  // namespace sevisor::test
