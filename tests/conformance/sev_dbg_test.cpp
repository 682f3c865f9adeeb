// The points of the kernel's sev_dbg_test: any address and length of DBG_DECRYPT and DBG_ENCRYPT.
#include <algorithm>
#include <array>
#include <cstring>
#include <sys/mman.h>

#include "guests.hpp"
#include "sev_rig.hpp"

using namespace sevisor;
using namespace sevisor::conformance;

namespace {

struct Debugged : SevRig {
  explicit Debugged(Kind of) : SevRig(of, has_es(of) ? kPolicyEs : 0) {
    std::memset(ram.data(), 0xaa, kShared);
    load(hlt_guest());
    launch();
  }
  int debug(std::uint32_t id, const std::byte* from, std::byte* to, std::size_t size) {
    kvm_sev_dbg params{};
    params.src_uaddr = reinterpret_cast<std::uintptr_t>(from);
    params.dst_uaddr = reinterpret_cast<std::uintptr_t>(to);
    params.len = static_cast<std::uint32_t>(size);
    return command(vm, id, &params);
  }
  int decrypt(const std::byte* from, std::byte* to, std::size_t size) {
    return debug(KVM_SEV_DBG_DECRYPT, from, to, size);
  }
  int encrypt(const std::byte* from, std::byte* to, std::size_t size) {
    return debug(KVM_SEV_DBG_ENCRYPT, from, to, size);
  }
};

constexpr std::size_t kPage = 4096;
constexpr std::array<std::size_t, 7> kSmall = {1, 8, 15, 16, 17, 32, 33};

std::vector<std::size_t> sizes() {
  std::vector<std::size_t> all(kSmall.begin(), kSmall.end());
  all.push_back(kPage);
  for (const std::size_t each : kSmall) {
    all.push_back(kPage - each);
    all.push_back(kPage + each);
    all.push_back(2 * kPage - each);
  }
  return all;
}
std::vector<std::size_t> offsets() {
  const std::array<std::size_t, 6> first = {0, 1, 8, 15, 16, 23};
  std::vector<std::size_t> all(first.begin(), first.end());
  for (const std::size_t each : first) all.push_back(4072 + each);
  return all;
}

}  // namespace

TEST_CASE("guest memory is read and written through the firmware, with any address and length", "[sev]") {
  const Kind kind = GENERATE(Kind::kSev, Kind::kSevEs);
  INFO(name_of(kind));
  Debugged rig(kind);
  std::byte* const guest = rig.ram.data() + 0x100000;
  const Mapping outside = Mapping::anonymous(4 * kPage, PROT_READ | PROT_WRITE);
  std::byte* const clear = outside.data();
  const auto reads = [&](std::byte value, std::size_t size) {
    std::memset(clear, 0, 3 * kPage);
    return rig.decrypt(guest, clear, size) == 0 &&
           std::all_of(clear, clear + size, [value](std::byte b) { return b == value; });
  };
  CHECK(reads(std::byte{0xaa}, 2 * kPage));  // what was there before the launch
  std::memset(clear, 0x55, kPage);
  CHECK(rig.encrypt(clear, guest, kPage) == 0);
  CHECK(reads(std::byte{0x55}, kPage));

  std::vector<std::byte> expected(3 * kPage);
  std::vector<std::byte> source(3 * kPage);
  std::vector<std::byte> got(3 * kPage);
  for (std::size_t i = 0; i < source.size(); ++i) source[i] = static_cast<std::byte>(i * 7 + i / 251);
  int wrong = 0;
  for (const std::size_t size : sizes()) {
    for (const std::size_t from : offsets()) {
      for (const std::size_t to : offsets()) {
        if (size + from > 3 * kPage || size + to > 2 * kPage) continue;
        std::ranges::fill(expected, std::byte{0});
        const std::vector<std::byte> zeros(2 * kPage);
        wrong += rig.encrypt(zeros.data(), guest, 2 * kPage) != 0;
        wrong += rig.encrypt(source.data() + from, guest + to, size) != 0;
        std::memcpy(expected.data() + to, source.data() + from, size);
        wrong += rig.decrypt(guest, got.data(), 2 * kPage) != 0;
        wrong += std::memcmp(got.data(), expected.data(), 2 * kPage) != 0;
        std::ranges::fill(got, std::byte{0x11});
        wrong += rig.decrypt(guest + to, got.data() + from, size) != 0;
        wrong += std::memcmp(got.data() + from, source.data() + from, size) != 0;
        wrong += from > 0 && got[from - 1] != std::byte{0x11};
        if (from + size < got.size()) wrong += got[from + size] != std::byte{0x11};
      }
    }
  }
  CHECK(wrong == 0);
}

TEST_CASE("what the debug commands refuse", "[sev]") {
  Debugged rig(Kind::kSevEs);
  std::array<std::byte, 64> clear{};
  CHECK(rig.decrypt(rig.ram.data(), clear.data(), 0) == -EINVAL);
  CHECK(rig.decrypt(rig.ram.data(), nullptr, 16) == -EINVAL);
  CHECK(rig.decrypt(reinterpret_cast<std::byte*>(~std::uintptr_t{7}), clear.data(), 16) == -EINVAL);
  SevRig closed(Kind::kSevEs, kPolicyEs | kPolicyNoDebug);
  closed.load(hlt_guest());
  closed.launch();
  kvm_sev_dbg params{};
  params.src_uaddr = reinterpret_cast<std::uintptr_t>(closed.ram.data());
  params.dst_uaddr = reinterpret_cast<std::uintptr_t>(clear.data());
  params.len = 16;
  for (const std::uint32_t id : {KVM_SEV_DBG_DECRYPT, KVM_SEV_DBG_ENCRYPT}) {
    CHECK(closed.command(closed.vm, id, &params) == -EIO);
    CHECK(closed.firmware_error == 7);  // POLICY_FAILURE
  }
}
