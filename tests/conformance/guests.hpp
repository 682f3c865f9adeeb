// The pieces of guest code in guests.S, which says what each does.
#pragma once

#include "rig.hpp"

#define CONFORMANCE_GUEST(name)                                                             \
  extern "C" const std::byte guest_##name[], guest_##name##_end[];                          \
  namespace sevisor::conformance {                                                          \
  inline Code name##_guest() { return {.begin = guest_##name, .end = guest_##name##_end}; } \
  }                                                                                         \
  static_assert(true)

CONFORMANCE_GUEST(cpuid);
CONFORMANCE_GUEST(hlt);
CONFORMANCE_GUEST(interrupts);
CONFORMANCE_GUEST(jump);
CONFORMANCE_GUEST(lapic);
CONFORMANCE_GUEST(mmio);
CONFORMANCE_GUEST(msr);
CONFORMANCE_GUEST(ports);
CONFORMANCE_GUEST(sev_es_status);
CONFORMANCE_GUEST(sev_shutdown);
CONFORMANCE_GUEST(sev_status);
CONFORMANCE_GUEST(sev_xsave);
CONFORMANCE_GUEST(shutdown);
CONFORMANCE_GUEST(spin);
CONFORMANCE_GUEST(start_other);
CONFORMANCE_GUEST(started);
CONFORMANCE_GUEST(steps);
CONFORMANCE_GUEST(store_and_load);
CONFORMANCE_GUEST(strings);
CONFORMANCE_GUEST(ud2);
#undef CONFORMANCE_GUEST
