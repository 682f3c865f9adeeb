// Everything that is said of a firmware image: the input is the image.
#include "sev/firmware_facts.hpp"

#include "check.hpp"

using namespace sevisor;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::span image(reinterpret_cast<const std::byte*>(data), size);
  const sev::FirmwareFacts facts = sev::examine_firmware(image);
  FUZZ_CHECK(facts.table.has_value() == facts.table_error.empty());
  FUZZ_CHECK(!facts.sev_es.can || facts.table);
  FUZZ_CHECK(!facts.more_vcpus.can || facts.sev_es.can);
  FUZZ_CHECK(!facts.sev_es.why.empty() && !facts.more_vcpus.why.empty() && !facts.direct_boot.why.empty() &&
             !facts.launch_secret.why.empty());
  FUZZ_CHECK(facts.snp_sections.size() <= size / 12);
  return 0;
}
