// Public-key cryptography with a memory, in place of the library's own: the linker finds remembered_keys.cpp first. The
// operations are the real ones, but each is done once: a millisecond each they are all that a Secure Processor's
// commands take, and from input to input they are nearly always the same.
#pragma once

namespace sevisor::fuzz {

// New EC keys come from a pool, in order. From its start again: an input's run depends on the input alone.
void restart_new_keys();

}  // namespace sevisor::fuzz
