// The built image as a VMM sees it.
#include "firmware/image.hpp"

#include <catch2/catch.hpp>
#include <cstring>
#include <optional>

#include "base/bytes.hpp"
#include "sev/footer_table.hpp"
#include "sev/guid.hpp"

namespace {
using sevisor::load;
using sevisor::firmware::image;
namespace sev = sevisor::sev;

TEST_CASE("the image fills 64 KiB and starts at the reset vector", "[firmware][image]") {
  REQUIRE(image().size() == 64 * 1024);
  REQUIRE(load<std::uint8_t>(image().data() + 0xfff0) == 0xe9);  // JMP rel16
  const auto distance = load<std::int16_t>(image().data() + 0xfff1);
  const int target = 0xfff3 + distance;
  REQUIRE(target >= 0xf000);
  REQUIRE(target < 0xffe0);
  REQUIRE(load<std::uint8_t>(image().data() + target) == 0xfa);  // CLI
}

TEST_CASE("the footer table names reset block, secret area and hashes area", "[firmware][image]") {
  const auto table = sev::parse_footer_table(image());
  REQUIRE(table.entries.size() == 3);
  const std::uint32_t reset = sev::require_ap_reset_address(table);
  REQUIRE(reset >> 12 == 0xffffe);  // the hold (docs/firmware.md), in the page before the reset page
  REQUIRE(load<std::uint8_t>(image().data() + (reset & 0xffff)) == 0xfa);  // CLI
  const auto hashes = sev::require_hashes_area(table);
  REQUIRE(hashes.size >= 176);
  REQUIRE(hashes.base % 16 == 0);
  const auto secret = table.secret_area();
  REQUIRE(secret);
  REQUIRE(secret->base % 4096 == 0);
  REQUIRE(secret->base + secret->size <= hashes.base);
  REQUIRE(hashes.base + hashes.size <= 0xa0000);
}

// The footer table as QEMU 7.2 and later read it (hw/i386/pc_sysfw_ovmf.c, target/i386/sev.c): the table ends 32 bytes
// before the image does, in its footer, whose length counts itself; entries are found from there backwards, each by its
// last 16 bytes, with its length, which counts all of it, before them. An independent reading, not the parser of sev/.
std::optional<std::span<const std::byte>> qemu_finds(const char* guid_text) {
  const auto guid = sev::Guid::parse(guid_text);
  const auto footer = sev::Guid::parse("96b582de-1fb2-45f7-baea-a366c55a082d");
  constexpr std::size_t kGuid = 16, kHead = kGuid + 2;
  std::size_t at = image().size() - 32 - kGuid;
  REQUIRE(std::memcmp(image().data() + at, &footer, kGuid) == 0);
  at -= 2;
  const std::size_t total = load<std::uint16_t>(image().data() + at);
  REQUIRE(total >= kHead);
  std::size_t left = total - kHead;
  while (left >= kHead) {
    const std::byte* entry_guid = image().data() + at - kGuid;
    const std::size_t length = load<std::uint16_t>(entry_guid - 2);
    REQUIRE(length >= kHead);
    REQUIRE(length <= left);
    if (std::memcmp(entry_guid, &guid, kGuid) == 0) return image().subspan(at - length, length - kHead);
    at -= length;
    left -= length;
  }
  return std::nullopt;
}

TEST_CASE("QEMU's SEV-ES launch finds what it needs", "[firmware][image][qemu]") {
  // x86_bios_rom_init() takes -bios in units of 64 KiB, loads it into RAM under SEV, and encrypts it in units of 16
  // bytes.
  CHECK(image().size() % 0x10000 == 0);

  // sev_es_save_reset_vector(): u32 address; CS gets its upper 16 bits as base, IP the lower ones.
  const auto reset = qemu_finds("00f771de-1a7e-4fcb-890e-68c77e2fb44e");
  REQUIRE(reset);
  REQUIRE(reset->size() == 4);
  CHECK(load<std::uint32_t>(reset->data()) >> 16 == 0xffff);

  // sev_add_kernel_loader_hashes(): u32 base, u32 size of at least the padded table of 176 bytes.
  const auto hashes = qemu_finds("7255371f-3a3b-4b04-927b-1da6efa8d454");
  REQUIRE(hashes);
  REQUIRE(hashes->size() == 8);
  CHECK(load<std::uint32_t>(hashes->data()) != 0);
  CHECK(load<std::uint32_t>(hashes->data()) % 16 == 0);
  CHECK(load<std::uint32_t>(hashes->data() + 4) >= 176);

  // qmp_sev_inject_launch_secret(): u32 base, u32 size.
  const auto secret = qemu_finds("4c2eb361-7d9b-4cc3-8081-127c90d3d294");
  REQUIRE(secret);
  REQUIRE(secret->size() == 8);
  CHECK(load<std::uint32_t>(secret->data()) % 16 == 0);
  CHECK(load<std::uint32_t>(secret->data() + 4) >= 1024);

  CHECK_FALSE(qemu_finds("dc886566-984a-4798-a75e-5585a7bf67cc"));  // SEV-SNP metadata, which would be another contract
}
}  // namespace
