// The parts of add_integer().
#pragma once

#include "emulator/cpu/code/decoder.hpp"

namespace sevisor::emulator {

void add_moves(SelectorTable& table);            // exec/integer_move.cpp: MOV, extensions, LEA, CMOVcc, SETcc, XLAT
void add_exchanges(SelectorTable& table);        // exec/integer_exchange.cpp: XCHG, XADD, CMPXCHG, 8B, 16B
void add_stack(SelectorTable& table);            // exec/integer_stack.cpp: PUSH, POP, PUSHA, POPA, ENTER, LEAVE
void add_control(SelectorTable& table);          // exec/control.cpp: near JMP, Jcc, CALL, RET, LOOP, JCXZ, BOUND, UDn
void add_flag_operations(SelectorTable& table);  // exec/integer_flags.cpp: LAHF, SAHF, CLC .. STD, NOPs, RDRAND

}  // namespace sevisor::emulator
