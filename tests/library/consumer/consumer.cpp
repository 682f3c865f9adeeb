// Prints the launch digest of a guest with this firmware and so many vCPUs of type EPYC-v4.
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <iterator>
#include <sev/sev.hpp>
#include <string>
#include <vector>

int main(int argc, char** argv) {
  using namespace sevisor;
  if (argc != 3) return 2;
  std::ifstream file(argv[1], std::ios::binary);
  const std::vector<char> image{std::istreambuf_iterator<char>(file), {}};
  try {
    sev::ExpectedGuest guest;
    guest.firmware = std::as_bytes(std::span(image));
    guest.vcpus = static_cast<unsigned>(std::atoi(argv[2]));
    guest.vmsa_kind.cpu_signature = sev::cpu_signature(sev::find_cpu_type("EPYC-v4"));
    guest.ap_reset_address = sev::require_ap_reset_address(sev::parse_footer_table(guest.firmware));
    std::cout << sev::to_hex(sev::expected_digest(guest)) << '\n';
  } catch (const Error& error) {
    std::cerr << error.what() << '\n';
    return 1;
  }
}
