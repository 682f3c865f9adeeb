#include "sev/footer_table.hpp"

#include <algorithm>
#include <fmt/format.h>

#include "base/bytes.hpp"
#include "base/error.hpp"
#include "sev/hashes_table.hpp"

namespace sevisor::sev {

namespace {

constexpr std::size_t kLengthSize = 2;
constexpr std::size_t kEntryOverhead = Guid::kSize + kLengthSize;

constexpr const char* kOtherFirmware =
    "Use a firmware built for SEV-ES, such as sevisor's own (leave out --firmware) or Debian's OVMF_CODE.fd.";

[[noreturn]] void refuse(std::string came_back) {
  throw Error(ExitCode::kBadUsage, "read the firmware's footer table", std::move(came_back), kOtherFirmware);
}

Guid guid_at(std::span<const std::byte> image, std::size_t offset) {
  return Guid::from_bytes(image.subspan(offset).first<Guid::kSize>());
}

// Data bytes that an entry of a known kind must have.
std::size_t least_data(const Guid& guid) {
  if (guid == kSecretAreaGuid || guid == kHashesAreaGuid) return 8;
  if (guid == kSevEsResetGuid || guid == kSnpMetadataGuid || guid == kTdxMetadataGuid || guid == kIgvmMetadataGuid ||
      guid == kSvsmInfoGuid) {
    return 4;
  }
  return 0;
}

// Reads the entry whose last byte is at `end` - 1 and which must not reach below `begin`. Returns where it begins.
std::size_t read_entry(std::span<const std::byte> image, std::size_t begin, std::size_t end, FooterTable& table) {
  if (end - begin < kEntryOverhead) {
    refuse(fmt::format("{} bytes are left before an entry, which takes at least {}", end - begin, kEntryOverhead));
  }
  const Guid guid = guid_at(image, end - Guid::kSize);
  const std::size_t length = load<std::uint16_t>(&image[end - kEntryOverhead]);
  if (length < kEntryOverhead || length > end - begin) {
    refuse(fmt::format("entry {} says it has {} bytes, {} to {} are possible", guid.to_string(), length, kEntryOverhead,
                       end - begin));
  }
  const std::size_t data_size = length - kEntryOverhead;
  if (data_size < least_data(guid)) {
    refuse(fmt::format("entry {} has {} bytes of data, {} are needed", guid.to_string(), data_size, least_data(guid)));
  }
  if (table.find(guid) != nullptr) refuse(fmt::format("entry {} stands twice", guid.to_string()));
  const std::size_t offset = end - length;
  const std::span<const std::byte> data = image.subspan(offset, data_size);
  table.entries.push_back({guid, offset, {data.begin(), data.end()}});
  return offset;
}

// The fields of an entry are counted from the end of its data.
std::optional<FooterArea> area_of(const FooterEntry* entry) {
  if (entry == nullptr) return std::nullopt;
  const std::byte* fields = entry->data.data() + entry->data.size() - 8;
  const FooterArea area{load<std::uint32_t>(fields), load<std::uint32_t>(fields + 4)};
  if (area.base == 0) return std::nullopt;
  return area;
}

}  // namespace

const FooterEntry* FooterTable::find(const Guid& guid) const noexcept {
  const auto found =
      std::find_if(entries.begin(), entries.end(), [&guid](const FooterEntry& entry) { return entry.guid == guid; });
  return found == entries.end() ? nullptr : &*found;
}

std::optional<std::uint32_t> FooterTable::ap_reset_address() const {
  const FooterEntry* entry = find(kSevEsResetGuid);
  if (entry == nullptr) return std::nullopt;
  return load<std::uint32_t>(entry->data.data() + entry->data.size() - 4);
}

std::optional<FooterArea> FooterTable::secret_area() const { return area_of(find(kSecretAreaGuid)); }
std::optional<FooterArea> FooterTable::hashes_area() const { return area_of(find(kHashesAreaGuid)); }

FooterTable parse_footer_table(std::span<const std::byte> image) {
  if (image.size() < kFooterToEnd + kEntryOverhead) {
    refuse(fmt::format("the image has {} bytes, too few to hold one", image.size()));
  }
  FooterTable table;
  const std::size_t table_end = image.size() - kFooterToEnd;
  const Guid footer = guid_at(image, table_end - Guid::kSize);
  if (footer == kSevEsResetGuid) {
    read_entry(image, 0, table_end, table);
    table.bare_reset_block = true;
    return table;
  }
  if (footer != kFooterGuid) {
    refuse(fmt::format("there is none: 48 bytes before the end stands {}, not {}", footer.to_string(),
                       kFooterGuid.to_string()));
  }
  // The length counts from the first entry to the end of the footer's GUID.
  const std::size_t total = load<std::uint16_t>(&image[table_end - kEntryOverhead]);
  if (total < kEntryOverhead || total > table_end) {
    refuse(fmt::format("it says it has {} bytes, {} to {} are possible", total, kEntryOverhead, table_end));
  }
  const std::size_t begin = table_end - total;
  // Each entry takes at least 18 bytes of at most 65535, so this ends.
  for (std::size_t end = table_end - kEntryOverhead; end > begin;) end = read_entry(image, begin, end, table);
  return table;
}

std::uint32_t require_ap_reset_address(const FooterTable& table) {
  const std::optional<std::uint32_t> address = table.ap_reset_address();
  if (!address) refuse("it has no SEV-ES reset block, which says where further vCPUs start");
  if (*address == 0) refuse("its SEV-ES reset block is empty (address 0), so further vCPUs could not start");
  return *address;
}

FooterArea require_hashes_area(const FooterTable& table) {
  const std::optional<FooterArea> area = table.hashes_area();
  if (!area) refuse("it names no area for kernel hashes: this firmware cannot verify kernel, initrd and command line");
  if (area->size < kHashesTableSize || area->base % 16 != 0) {
    refuse(fmt::format("its area for kernel hashes ({} bytes at {:#x}) cannot hold the {} bytes of the table",
                       area->size, area->base, kHashesTableSize));
  }
  return *area;
}

}  // namespace sevisor::sev
