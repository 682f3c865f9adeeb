// The footer table of a firmware image: the input is the image.
#include "sev/footer_table.hpp"

#include <algorithm>

#include "base/error.hpp"
#include "check.hpp"

using namespace sevisor;

namespace {

// What may be asked of a table that was read; refusals are Errors.
template <class Ask>
void ask(Ask question) {
  try {
    (void)question();
  } catch (const Error&) {
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::span image(reinterpret_cast<const std::byte*>(data), size);
  sev::FooterTable table;
  try {
    table = sev::parse_footer_table(image);
  } catch (const Error&) {
    return 0;
  }
  for (const sev::FooterEntry& entry : table.entries) {
    FUZZ_CHECK(entry.offset <= size && entry.data.size() <= size - entry.offset);
    FUZZ_CHECK(std::ranges::equal(entry.data, image.subspan(entry.offset, entry.data.size())));
    FUZZ_CHECK(table.find(entry.guid) == &entry);
  }
  ask([&] { return table.ap_reset_address(); });
  ask([&] { return table.secret_area(); });
  ask([&] { return table.hashes_area(); });
  ask([&] { return sev::require_ap_reset_address(table); });
  ask([&] { return sev::require_hashes_area(table); });
  return 0;
}
