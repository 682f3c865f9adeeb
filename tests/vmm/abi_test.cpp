// The ABI header, seen from C++: the numbers that the kernel dispatches on, as a C program has them.
#include "kvm/abi.hpp"

#include <catch2/catch.hpp>

TEST_CASE("arrays at the end of the kernel's structs lie where C puts them") {
  alignas(kvm_cpuid2) unsigned char room[sizeof(kvm_cpuid2) + 2 * sizeof(kvm_cpuid_entry2)] = {};
  auto* cpuid = reinterpret_cast<kvm_cpuid2*>(room);
  CHECK(reinterpret_cast<unsigned char*>(&cpuid->entries[1]) - room == 8 + 40);
}

TEST_CASE("ioctl numbers are those of C") {
  CHECK(KVM_GET_MSR_INDEX_LIST == 0xc004ae02);
  CHECK(KVM_SET_SIGNAL_MASK == 0x4004ae8b);
  CHECK(KVM_SET_PMU_EVENT_FILTER == 0x4020aeb2);
}
