#include "sev/snp_metadata.hpp"

#include <algorithm>
#include <fmt/format.h>
#include <iterator>

#include "base/bytes.hpp"
#include "base/error.hpp"

namespace sevisor::sev {

namespace {

constexpr std::uint32_t kSignature = 0x56455341;  // "ASEV"
constexpr std::uint32_t kVersion = 1;

struct Header {
  std::uint32_t signature;
  std::uint32_t size;  // bytes, with this header
  std::uint32_t version;
  std::uint32_t count;  // of sections behind it
};
static_assert(sizeof(Header) == 16 && sizeof(SnpSection) == 12);

struct SectionName {
  std::uint32_t type;
  std::string_view name;
};
constexpr SectionName kSectionNames[] = {{1, "memory the firmware starts with"},
                                         {2, "secrets page"},
                                         {3, "CPUID page"},
                                         {4, "SVSM calling area"},
                                         {0x10, "kernel hashes"}};

[[noreturn]] void refuse(std::string came_back) {
  throw Error(ExitCode::kBadUsage, "read the firmware's SNP metadata", std::move(came_back));
}

}  // namespace

std::string_view snp_section_name(std::uint32_t type) noexcept {
  const auto* found = std::find_if(std::begin(kSectionNames), std::end(kSectionNames),
                                   [type](const SectionName& entry) { return entry.type == type; });
  return found == std::end(kSectionNames) ? std::string_view() : found->name;
}

std::vector<SnpSection> parse_snp_metadata(std::span<const std::byte> image, const FooterTable& table) {
  const FooterEntry* entry = table.find(kSnpMetadataGuid);
  if (entry == nullptr) return {};
  const std::size_t from_end = load<std::uint32_t>(entry->data.data() + entry->data.size() - 4);
  if (from_end > image.size() || from_end < sizeof(Header)) {
    refuse(fmt::format("it begins {} bytes before the end of an image of {} bytes", from_end, image.size()));
  }
  const std::span<const std::byte> block = image.last(from_end);
  const auto header = load<Header>(block.data());
  if (header.signature != kSignature) refuse("it does not begin with 'ASEV'");
  if (header.version != kVersion) refuse(fmt::format("its version is {}, not {}", header.version, kVersion));
  const std::size_t room = block.size() - sizeof(Header);
  if (header.count > room / sizeof(SnpSection)) {
    refuse(fmt::format("it says it has {} sections, and {} bytes are left", header.count, room));
  }
  std::vector<SnpSection> sections;
  for (std::size_t i = 0; i < header.count; ++i) {
    sections.push_back(load<SnpSection>(block.data() + sizeof(Header) + i * sizeof(SnpSection)));
  }
  return sections;
}

}  // namespace sevisor::sev
