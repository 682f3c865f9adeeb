// The parts of add_multiply().
#pragma once

#include "emulator/cpu/code/decoder.hpp"

namespace sevisor::emulator {

void add_decimal(SelectorTable& table);  // exec/multiply_decimal.cpp: DAA DAS AAA AAS AAM AAD

}  // namespace sevisor::emulator
