// How handlers read and write their command buffers. Part of the Secure Processor's implementation.
#pragma once

#include "base/bytes.hpp"
#include "emulator/psp/secure_processor.hpp"

namespace sevisor::emulator {

// The table has checked the buffer's size.
template <class Buffer>
Buffer SecureProcessor::Call::in() const {
  return load<Buffer>(buffer.data());
}
template <class Buffer>
void SecureProcessor::Call::out(const Buffer& value) const {
  sevisor::store(buffer.data(), value);
}

}  // namespace sevisor::emulator
