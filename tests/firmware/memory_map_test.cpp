#include "firmware/memory_map.hpp"

#include <catch2/catch.hpp>
#include <random>
#include <vector>

#include "base/bytes.hpp"

namespace {
using namespace sevisor::firmware;
using Ranges = std::vector<MemoryRange>;

Ranges ranges_of(const MemoryMap& map) { return {map.ranges().begin(), map.ranges().end()}; }

void add_entry(std::vector<std::byte>& table, std::uint64_t base, std::uint64_t length, std::uint32_t type) {
  const std::size_t at = table.size();
  table.resize(at + 20);
  sevisor::store(table.data() + at, base);
  sevisor::store(table.data() + at + 8, length);
  sevisor::store(table.data() + at + 16, type);
}

TEST_CASE("ranges split, merge and replace each other", "[firmware][memory]") {
  MemoryMap map;
  REQUIRE(map.set(0, 0x100000, MemoryType::kRam));
  REQUIRE(map.set(0x9f000, 0xa0000, MemoryType::kReserved));
  REQUIRE(ranges_of(map) == Ranges{{0, 0x9f000, MemoryType::kRam},
                                   {0x9f000, 0xa0000, MemoryType::kReserved},
                                   {0xa0000, 0x100000, MemoryType::kRam}});
  REQUIRE(map.set(0xa0000, 0x100000, MemoryType::kReserved));
  REQUIRE(ranges_of(map) == Ranges{{0, 0x9f000, MemoryType::kRam}, {0x9f000, 0x100000, MemoryType::kReserved}});
  REQUIRE(map.set(0, 0x100000, MemoryType::kRam));
  REQUIRE(ranges_of(map) == Ranges{{0, 0x100000, MemoryType::kRam}});
  REQUIRE(map.set(5, 5, MemoryType::kAcpi));
  REQUIRE(map.ranges().size() == 1);
}

TEST_CASE("the map equals a byte array", "[firmware][memory]") {
  std::mt19937 random(7);  // NOLINT(cert-msc32-c,cert-msc51-cpp): the same ranges on every run
  MemoryMap map;
  std::vector<std::uint32_t> bytes(64, 0);
  for (int step = 0; step < 2000; ++step) {
    std::uint64_t begin = random() % 65;
    std::uint64_t end = random() % 65;
    if (begin > end) std::swap(begin, end);
    const auto type = static_cast<std::uint32_t>(1 + random() % 5);
    REQUIRE(map.set(begin, end, static_cast<MemoryType>(type)));
    for (std::uint64_t i = begin; i < end; ++i) bytes[i] = type;
    std::vector<std::uint32_t> seen(64, 0);
    std::uint64_t last_end = 0;
    for (const auto& range : map.ranges()) {
      REQUIRE(range.begin >= last_end);
      REQUIRE(range.begin < range.end);
      last_end = range.end;
      for (std::uint64_t i = range.begin; i < range.end; ++i) seen[i] = static_cast<std::uint32_t>(range.type);
    }
    REQUIRE(seen == bytes);
  }
}

TEST_CASE("a full map refuses and stays as it is", "[firmware][memory]") {
  MemoryMap map;
  for (std::uint64_t i = 0; i < MemoryMap::kCapacity; ++i) {
    REQUIRE(map.set(i * 0x2000, i * 0x2000 + 0x1000, MemoryType::kRam));
  }
  const auto before = ranges_of(map);
  REQUIRE_FALSE(map.set(1ull << 40, 2ull << 40, MemoryType::kRam));
  REQUIRE_FALSE(map.set(0x100, 0x200, MemoryType::kReserved));
  REQUIRE(ranges_of(map) == before);
}

TEST_CASE("a reservation beats RAM whatever their order", "[firmware][memory]") {
  std::vector<std::byte> table;
  add_entry(table, 0xf0000, 0x10000, 2);
  add_entry(table, 0, 0x20000000, 1);
  add_entry(table, 0x1000, 0x1000, 99);  // unknown: reserved
  MemoryMap map;
  REQUIRE(map.add_e820(table) == Failure::kNone);
  REQUIRE(ranges_of(map) == Ranges{{0, 0x1000, MemoryType::kRam},
                                   {0x1000, 0x2000, MemoryType::kReserved},
                                   {0x2000, 0xf0000, MemoryType::kRam},
                                   {0xf0000, 0x100000, MemoryType::kReserved},
                                   {0x100000, 0x20000000, MemoryType::kRam}});
}

TEST_CASE("a malformed e820 table is refused", "[firmware][memory]") {
  std::vector<std::byte> table;
  MemoryMap map;
  REQUIRE(map.add_e820(table) == Failure::kMemoryMap);
  add_entry(table, 0, 0x1000, 1);
  table.pop_back();
  REQUIRE(map.add_e820(table) == Failure::kMemoryMap);
  table.clear();
  add_entry(table, 0xfffffffffffff000, 0x2000, 1);
  REQUIRE(map.add_e820(table) == Failure::kMemoryMap);
  table.clear();
  for (std::uint64_t i = 0; i < 200; ++i) add_entry(table, i * 0x2000, 0x1000, 1);
  REQUIRE(map.add_e820(table) == Failure::kMemoryMap);
}

TEST_CASE("room is found from the top and from the bottom", "[firmware][memory]") {
  MemoryMap map;
  REQUIRE(map.set(0x100000, 0x8000000, MemoryType::kRam));
  REQUIRE(map.set(0x7fff000, 0x8000000, MemoryType::kAcpi));
  REQUIRE(map.find_top(0x1234, 0x1000, 0x100000, 0xc0000000) == 0x7ffd000u);
  REQUIRE(map.find_top(0x1000, 0x200000, 0x100000, 0xc0000000) == 0x7e00000u);
  REQUIRE(map.find_top(0x1000, 0x1000, 0x100000, 0x200000) == 0x1ff000u);
  REQUIRE_FALSE(map.find_top(0x8000000, 0x1000, 0, 0xc0000000));
  REQUIRE_FALSE(map.find_top(~0ull, 0x1000, 0, 0xc0000000));
  REQUIRE(map.find_bottom(0x1000, 0x200000, 0x100000, 0xc0000000) == 0x200000u);
  REQUIRE_FALSE(map.find_bottom(0x7f00000, 0x200000, 0, 0xc0000000));
  REQUIRE(map.is_ram(0x100000, 0x7fff000));
  REQUIRE_FALSE(map.is_ram(0x100000, 0x7fff001));
  REQUIRE_FALSE(map.is_ram(0xfffff, 0x200000));
}
}  // namespace
