// The #VC handler with an instruction, registers and replies as the input has them.
#include <cstring>

#include "../ghcb_guest/fake_platform.hpp"
#include "check.hpp"
#include "input.hpp"

using namespace sevisor;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  fuzz::Input input(data, size);
  test::FakePlatform platform;
  const auto version = static_cast<std::uint16_t>(1 + input.take<std::uint8_t>() % 2);
  const auto exit_code = input.take<std::uint16_t>();
  ghcb::guest::Registers registers;
  for (auto& value : registers.general) {
    const auto kind = input.take<std::uint8_t>();
    const auto low = input.take<std::uint16_t>();
    constexpr std::uint64_t kBases[] = {0, test::FakePlatform::kMemory, test::FakePlatform::kDevice,
                                        ~std::uint64_t{0} - 0xffff};
    value = kBases[kind % 4] + low;
  }
  registers.rflags = input.take<std::uint8_t>() % 2 != 0 ? ghcb::guest::kFlagDirection : 0;
  registers.rip = test::FakePlatform::kCode;
  for (const std::byte byte : input.bytes(15)) platform.code.push_back(std::to_integer<std::uint8_t>(byte));
  platform.hypervisor = [&](ghcb::Page& page) {
    page.exit_info_1 = input.take<std::uint8_t>() % 4;
    page.exit_info_2 = input.take<std::uint64_t>();
    page.valid.word[0] = input.take<std::uint64_t>();
    page.valid.word[1] = input.take<std::uint64_t>();
    page.rax = page.rbx = page.rcx = page.rdx = input.take<std::uint64_t>();
    const auto bytes = input.bytes(64);
    if (!bytes.empty()) std::memcpy(page.shared_buffer, bytes.data(), bytes.size());
  };

  ghcb::guest::VcHandler handler(platform, version);
  const ghcb::guest::Registers before = registers;
  const auto result = handler.handle(registers, exit_code);
  using Outcome = ghcb::guest::VcResult::Outcome;
  if (result.outcome != Outcome::kResume) {
    FUZZ_CHECK(std::memcmp(&registers, &before, sizeof before) == 0);
  } else {
    // A repeated instruction may have more to do: then it stays.
    FUZZ_CHECK(registers.rip - before.rip <= 15);
  }
  if (result.outcome == Outcome::kException) {
    // #DB and #AC that came as #VC are passed on without asking; of a reply only #GP and #UD are taken.
    const bool own =
        (exit_code == ghcb::kExitExceptionDb || exit_code == ghcb::kExitExceptionAc) && platform.exits == 0;
    FUZZ_CHECK(own || result.event.vector == ghcb::kVectorGp || result.event.vector == ghcb::kVectorUd);
  }
  // Nothing valid stays in the page for another VMGEXIT to send.
  FUZZ_CHECK(platform.exits == 0 || platform.page().valid == ghcb::ValidBitmap{});
  return 0;
}
