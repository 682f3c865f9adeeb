// The parts of add_bits().
#pragma once

#include "emulator/cpu/code/decoder.hpp"

namespace sevisor::emulator {

void add_vex_bits(SelectorTable& table);  // exec/bits_vex.cpp: BMI1 and BMI2 but for MULX

}  // namespace sevisor::emulator
