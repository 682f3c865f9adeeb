#include "vmm/machine/memory_dump.hpp"

#include <catch2/catch.hpp>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <string>
#include <sys/stat.h>
#include <unistd.h>

#include "base/error.hpp"

using namespace sevisor;
using namespace sevisor::vmm;

TEST_CASE("a memory dump has each byte at its address, and holes for zero pages") {
  constexpr std::uint64_t kSize = 32 << 20;
  GuestRam ram(make_memory_map(kSize));
  const std::string text = "here";
  constexpr std::uint64_t kAt = 0x123456;
  REQUIRE(ram.write(Gpa(kAt), std::as_bytes(std::span(text))));
  std::string path = "/tmp/sevisor-dump.XXXXXX";
  const int fd = ::mkstemp(path.data());
  REQUIRE(fd >= 0);
  ::close(fd);

  MemoryDump(path).write(ram);
  struct stat status {};
  REQUIRE(::stat(path.c_str(), &status) == 0);
  CHECK(status.st_size == kSize);
  constexpr long kBlock = 512;
  CHECK(status.st_blocks * kBlock < (1 << 20));
  std::ifstream file(path, std::ios::binary);
  const std::string all((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  CHECK(all.substr(kAt, text.size()) == text);
  CHECK(all.find_first_not_of('\0') == kAt);
  CHECK(all.find_last_not_of('\0') == kAt + text.size() - 1);
  ::unlink(path.c_str());
}

TEST_CASE("a memory dump that cannot be written is refused before the run") {
  CHECK_THROWS_AS(MemoryDump("/nowhere/at/all"), Error);
}
