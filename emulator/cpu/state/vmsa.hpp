#pragma once
// The VMSA's layout is shared with the launch-digest code.
#include "sev/vmsa.hpp"

namespace sevisor::emulator {
using Vmsa = sev::Vmsa;
}
