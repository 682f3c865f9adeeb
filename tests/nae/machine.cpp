#include "machine.hpp"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fmt/format.h>
#include <fstream>
#include <iterator>
#include <sys/mman.h>
#include <thread>

#include "base/bytes.hpp"
#include "base/error.hpp"
#include "layout.h"

namespace sevisor::nae {

namespace {

constexpr std::uint64_t kPresent = 1 << 0;
constexpr std::uint64_t kWritable = 1 << 1;
constexpr std::uint64_t kUser = 1 << 2;
constexpr std::uint64_t kLarge = 1 << 7;
constexpr std::uint64_t kCBit = std::uint64_t{1} << 51;
constexpr std::uint64_t kTable = kPresent | kWritable | kUser | kCBit;
constexpr std::uint64_t kPage = kPresent | kWritable | kUser | kLarge;
constexpr std::size_t kDeviceBytes = 256;
constexpr std::uint64_t kExitLimit = 1'000'000;

std::vector<std::byte> read_image() {
  std::ifstream file(NAE_GUEST_IMAGE, std::ios::binary);
  const std::string text{std::istreambuf_iterator<char>(file), {}};
  if (text.empty()) throw std::runtime_error("the guest image is not there: " NAE_GUEST_IMAGE);
  const auto bytes = std::as_bytes(std::span(text));
  return {bytes.begin(), bytes.end()};
}

kvm_segment segment(std::uint16_t selector, std::uint8_t type, bool code) {
  kvm_segment s{};
  s.selector = selector;
  s.limit = 0xffffffff;
  s.type = type;
  s.present = 1;
  s.s = 1;
  s.g = 1;
  s.l = code;
  s.db = !code;
  return s;
}

}  // namespace

bool End::passed() const {
  return error_number == 0 && reason == KVM_EXIT_SYSTEM_EVENT &&
         data == (0x100 | NAE_DONE_SET << 12 | NAE_DONE_REASON << 16);
}

std::string End::text() const {
  std::string text =
      fmt::format("errno {}, exit {}, data {:#x}, stage {}, {} exits", error_number, reason, data, result.stage, exits);
  if (result.line != 0) {
    text += fmt::format("; the check in line {} got {:#x} instead of {:#x} (exception {:#x})", result.line,
                        result.actual, result.expected, result.values[15]);
  }
  return text;
}

Machine::Machine(Program program, const Setting& setting)
    : ram_(Mapping::anonymous(NAE_RAM_BYTES, PROT_READ | PROT_WRITE)),
      read_only_(Mapping::anonymous(kPageSize, PROT_READ | PROT_WRITE)),
      own_host_(setting.host != nullptr
                    ? nullptr
                    : emulator::make_emulated_host(
                          {.slice = 10'000, .watch_memory = setting.watch_memory, .observer = setting.observer})),
      host_(setting.host != nullptr ? *setting.host : *own_host_),
      kvm_(kvm::Kvm::open(host_)),
      sev_(kvm::SevDevice::open(host_)),
      vm_(kvm_.create_vm(setting.init_api == InitApi::kInit2 ? kvm::kVmTypeSevEs : kvm::kVmTypeDefault)),
      cpuid_(kvm_.supported_cpuid()),
      device_(kDeviceBytes) {
  setting.init_api == InitApi::kInit2 ? vm_.sev_init2() : vm_.sev_es_init();
  vm_.create_irqchip();
  put_tables();
  const std::vector<std::byte> image = read_image();
  std::ranges::copy(image, ram_.data() + NAE_IMAGE);
  set_parameters(setting.parameters);
  vm_.set_memory_slot(0, Gpa(0), ram_.bytes());
  if (setting.init_api == InitApi::kEsInit) {
    vm_.set_memory_slot(1, Gpa(NAE_READ_ONLY_GPA), read_only_.bytes(), kvm::Vm::SlotAccess::kReadOnly);
  }
  vm_.register_encrypted_region(ram_.bytes());
  constexpr std::uint32_t kPolicy = 5;
  vm_.launch_start(sev_, kPolicy);
  vm_.launch_update_data(ram_.bytes().subspan(NAE_PML4, NAE_TSS + kPageSize - NAE_PML4));
  vm_.launch_update_data(ram_.bytes().subspan(NAE_IMAGE, align_up(image.size(), kPageSize)));
  for (unsigned i = 0; i < setting.vcpus; ++i) {
    vcpus_.push_back(vm_.create_vcpu(i));
    vcpus_.back().set_cpuid(cpuid_);
    set_registers(vcpus_.back(), program);
  }
  vm_.launch_update_vmsa();
  (void)vm_.launch_measure();
  vm_.launch_finish();
}

Machine::~Machine() = default;

void Machine::set_parameters(const std::vector<std::uint64_t>& values) {
  for (std::size_t i = 0; i < values.size(); ++i) store(ram_.data() + NAE_PARAMETERS + 8 * i, values[i]);
}

void Machine::put_tables() {
  const auto put = [this](std::uint64_t at, std::size_t index, std::uint64_t value) {
    store(ram_.data() + at + index * 8, value);
  };
  constexpr std::uint64_t kBig = 0x200000;
  put(NAE_PML4, 0, NAE_PDPT | kTable);
  put(NAE_PDPT, 0, NAE_PD_LOW | kTable);
  put(NAE_PDPT, 3, NAE_PD_HIGH | kTable);
  put(NAE_PD_LOW, 0, 0 | kPage | kCBit);
  put(NAE_PD_LOW, NAE_SHARED / kBig, NAE_SHARED | kPage);
  put(NAE_PD_LOW, NAE_PRIVATE_ALIAS / kBig, NAE_SHARED | kPage | kCBit);
  put(NAE_PD_LOW, NAE_PRIVATE_MMIO / kBig, std::uint64_t{NAE_MMIO} | kPage | kCBit);
  put(NAE_PD_LOW, NAE_READ_ONLY / kBig, NAE_READ_ONLY_GPA | kPage);
  put(NAE_PD_LOW, NAE_WINDOW / kBig, NAE_WINDOW_GPA | kPage | kCBit);
  for (std::size_t i = 0; i < 512; ++i) put(NAE_PD_HIGH, i, (0xc0000000 + i * kBig) | kPage);
  // APM vol. 2 section 4.8; user data before user code, as SYSRET would have it.
  const std::uint64_t gdt[] = {0,
                               0x00af9b000000ffff,
                               0x00cf93000000ffff,
                               0x00cff3000000ffff,
                               0x00affb000000ffff,
                               0x0000890000000067 | std::uint64_t{NAE_TSS & 0xffff} << 16,
                               0};
  for (std::size_t i = 0; i < std::size(gdt); ++i) put(NAE_GDT, i, gdt[i]);
  store(ram_.data() + NAE_TSS + 4, std::uint64_t{NAE_RING0_STACK_TOP});  // RSP0
}

void Machine::set_registers(const kvm::Vcpu& vcpu, Program program) const {
  kvm_sregs sregs = vcpu.sregs();
  sregs.cs = segment(NAE_CODE, 0xb, true);
  sregs.ds = sregs.es = sregs.fs = sregs.gs = sregs.ss = segment(NAE_DATA, 3, false);
  sregs.tr = {};
  sregs.tr.base = NAE_TSS;
  sregs.tr.limit = 0x67;
  sregs.tr.selector = NAE_TASK;
  sregs.tr.type = 0xb;
  sregs.tr.present = 1;
  sregs.gdt.base = NAE_GDT;
  sregs.gdt.limit = 7 * 8 - 1;
  sregs.idt = {};
  sregs.cr0 = 0x80000033;  // PG, NE, ET, MP, PE
  sregs.cr3 = NAE_PML4;
  sregs.cr4 = 0x620;   // OSXMMEXCPT, OSFXSR, PAE
  sregs.efer = 0x500;  // LMA, LME
  vcpu.set_sregs(sregs);
  kvm_regs regs{};
  regs.rip = NAE_IMAGE;
  regs.rflags = 2;
  regs.rsp = NAE_STACK_TOP - std::uint64_t{NAE_STACK_BYTES} * vcpu.index();
  regs.rdi = static_cast<std::uint64_t>(program);
  regs.rsi = vcpu.index();
  vcpu.set_regs(regs);
}

// The two devices of these tests.
void Machine::serve(kvm_run& run, End& end) {
  if (run.exit_reason == KVM_EXIT_IO) {
    auto* data = reinterpret_cast<std::uint8_t*>(&run) + run.io.data_offset;
    for (std::size_t i = 0; i < std::size_t{run.io.size} * run.io.count; ++i) {
      if (run.io.direction == KVM_EXIT_IO_IN) {
        data[i] = ++next_byte_;
      } else {
        end.port_bytes.push_back(data[i]);
      }
    }
    return;
  }
  const std::uint64_t at = run.mmio.phys_addr - NAE_MMIO;
  if (at > kDeviceBytes - sizeof run.mmio.data) {
    if (!run.mmio.is_write) std::memset(run.mmio.data, 0xff, sizeof run.mmio.data);
  } else if (run.mmio.is_write) {
    std::memcpy(&device_[at], run.mmio.data, run.mmio.len);
  } else {
    std::memcpy(run.mmio.data, &device_[at], run.mmio.len);
  }
}

End Machine::run() {
  End end;
  std::vector<std::thread> others;
  for (std::size_t i = 1; i < vcpus_.size(); ++i) {
    others.emplace_back([this, i] {
      // The others exit to user space for nothing but the signal to stop, and while they are told to start.
      int error_number = 0;
      do {
        error_number = vcpus_[i].run();
      } while (error_number == EAGAIN);
    });
  }
  const kvm::Vcpu& first = vcpus_[0];
  kvm_run& run = first.state();
  while (end.exits < kExitLimit) {
    end.error_number = first.run();
    end.reason = end.error_number == 0 ? run.exit_reason : 0;
    if (end.error_number != 0 || (end.reason != KVM_EXIT_IO && end.reason != KVM_EXIT_MMIO)) break;
    ++end.exits;
    serve(run, end);
  }
  if (end.reason == KVM_EXIT_SYSTEM_EVENT) end.data = run.system_event.data[0];
  if (end.reason == KVM_EXIT_INTERNAL_ERROR) end.data = run.internal.data[0];
  for (std::size_t i = 1; i < vcpus_.size(); ++i) vcpus_[i].set_immediate_exit(true);
  for (std::thread& thread : others) thread.join();
  end.result = load<Result>(ram_.data() + NAE_RESULT);
  return end;
}

}  // namespace sevisor::nae
