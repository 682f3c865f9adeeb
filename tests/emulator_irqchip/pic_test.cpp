// Intel 8259A datasheet: initialisation, priorities, rotation, masks, poll, cascade.
#include "emulator/irqchip/pic.hpp"

#include <array>
#include <catch2/catch.hpp>

using sevisor::emulator::PicPair;

namespace {

// As Linux's init_8259A does: vectors 0x30 and 0x38.
PicPair initialised(std::uint8_t icw4 = 0x01) {
  PicPair pic;
  pic.write_port(0x20, 0x11);
  pic.write_port(0x21, 0x30);
  pic.write_port(0x21, 0x04);
  pic.write_port(0x21, icw4);
  pic.write_port(0xa0, 0x11);
  pic.write_port(0xa1, 0x38);
  pic.write_port(0xa1, 0x02);
  pic.write_port(0xa1, 0x01);
  return pic;
}

std::uint8_t in_service(PicPair& pic, std::uint16_t port = 0x20) {
  pic.write_port(port, 0x0b);
  return pic.read_port(port);
}

std::uint8_t requests(PicPair& pic, std::uint16_t port = 0x20) {
  pic.write_port(port, 0x0a);
  return pic.read_port(port);
}

void pulse(PicPair& pic, unsigned irq) {
  pic.set_level(irq, true);
  pic.set_level(irq, false);
}

}  // namespace

TEST_CASE("PIC ports") {
  for (const std::uint16_t port : std::array<std::uint16_t, 6>{0x20, 0x21, 0xa0, 0xa1, 0x4d0, 0x4d1})
    CHECK(PicPair::owns_port(port));
  for (const std::uint16_t port : std::array<std::uint16_t, 5>{0x1f, 0x22, 0xa2, 0x4d2, 0x40})
    CHECK_FALSE(PicPair::owns_port(port));
}

TEST_CASE("IR0 has the highest priority, IR7 the lowest") {
  PicPair pic = initialised();
  CHECK_FALSE(pic.output());
  pulse(pic, 7);
  pulse(pic, 1);
  CHECK(pic.output());
  CHECK(requests(pic) == 0x82);
  CHECK(pic.acknowledge() == 0x31);
  CHECK(in_service(pic) == 0x02);
  CHECK(requests(pic) == 0x80);
  CHECK_FALSE(pic.output());  // 7 is below 1
  pulse(pic, 0);
  CHECK(pic.output());  // 0 is above
  CHECK(pic.acknowledge() == 0x30);
  CHECK(in_service(pic) == 0x03);
  pic.write_port(0x20, 0x20);  // non-specific: ends the highest
  CHECK(in_service(pic) == 0x02);
  pic.write_port(0x20, 0x61);  // specific: 1
  CHECK(in_service(pic) == 0x00);
  CHECK(pic.acknowledge() == 0x37);
}

TEST_CASE("The cascade gives the slave's vector, both need their EOI") {
  PicPair pic = initialised();
  pulse(pic, 12);
  CHECK(requests(pic) == 0x04);
  CHECK(pic.acknowledge() == 0x3c);
  CHECK(in_service(pic) == 0x04);
  CHECK(in_service(pic, 0xa0) == 0x10);
  pulse(pic, 3);
  CHECK_FALSE(pic.output());  // below IR2
  pulse(pic, 8);
  CHECK_FALSE(pic.output());  // the master does not know that it is above 12
  pic.write_port(0xa0, 0x20);
  pic.write_port(0x20, 0x20);
  CHECK(pic.acknowledge() == 0x38);
  pic.write_port(0xa0, 0x20);
  pic.write_port(0x20, 0x20);
  CHECK(pic.acknowledge() == 0x33);
}

TEST_CASE("In special fully nested mode the slave's higher levels interrupt") {
  PicPair pic = initialised(0x11);
  pulse(pic, 12);
  CHECK(pic.acknowledge() == 0x3c);
  pulse(pic, 8);
  CHECK(pic.output());
  CHECK(pic.acknowledge() == 0x38);
}

TEST_CASE("A masked line requests nothing until unmasked") {
  PicPair pic = initialised();
  pic.write_port(0x21, 0xfb);
  pic.write_port(0xa1, 0xff);
  CHECK(pic.read_port(0x21) == 0xfb);
  CHECK(pic.masked(0));
  CHECK_FALSE(pic.masked(2));
  CHECK(pic.masked(8));
  pulse(pic, 4);
  CHECK_FALSE(pic.output());
  pic.write_port(0x21, 0xeb);
  CHECK(pic.acknowledge() == 0x34);
}

TEST_CASE("With nothing requested the vector is the spurious one") {
  PicPair pic = initialised();
  CHECK(pic.acknowledge() == 0x37);
  CHECK(in_service(pic) == 0);
}

TEST_CASE("Level-triggered lines follow their level") {
  PicPair pic = initialised();
  pic.write_port(0x4d0, 0xff);
  pic.write_port(0x4d1, 0xff);
  CHECK(pic.read_port(0x4d0) == 0xf8);  // 0, 1 and 2 are edge-triggered for good
  CHECK(pic.read_port(0x4d1) == 0xde);  // so are 8 and 13
  CHECK(pic.set_level(5, true));
  CHECK_FALSE(pic.set_level(5, true));
  CHECK(pic.acknowledge() == 0x35);
  pic.write_port(0x20, 0x20);
  CHECK(pic.acknowledge() == 0x35);  // still high
  pic.set_level(5, false);
  pic.write_port(0x20, 0x20);
  CHECK_FALSE(pic.output());
}

TEST_CASE("An edge-triggered line needs to fall before it requests again") {
  PicPair pic = initialised();
  CHECK(pic.set_level(4, true));
  CHECK_FALSE(pic.set_level(4, true));
  CHECK(pic.acknowledge() == 0x34);
  pic.write_port(0x20, 0x20);
  CHECK_FALSE(pic.set_level(4, true));
  CHECK_FALSE(pic.output());
  pic.set_level(4, false);
  CHECK(pic.set_level(4, true));
  CHECK(pic.output());
}

TEST_CASE("Automatic EOI leaves nothing in service") {
  PicPair pic = initialised(0x03);
  pulse(pic, 1);
  CHECK(pic.acknowledge() == 0x31);
  CHECK(in_service(pic) == 0);
  // Rotation on automatic EOI: the line just served becomes the lowest.
  pic.write_port(0x20, 0x80);
  pulse(pic, 1);
  CHECK(pic.acknowledge() == 0x31);
  pulse(pic, 1);
  pulse(pic, 5);
  CHECK(pic.acknowledge() == 0x35);
  CHECK(pic.acknowledge() == 0x31);
}

TEST_CASE("Rotation and set priority") {
  PicPair pic = initialised();
  pulse(pic, 0);
  CHECK(pic.acknowledge() == 0x30);
  pic.write_port(0x20, 0xa0);  // rotate on non-specific EOI
  pulse(pic, 0);
  pulse(pic, 7);
  CHECK(pic.acknowledge() == 0x37);
  pic.write_port(0x20, 0x20);
  CHECK(pic.acknowledge() == 0x30);
  pic.write_port(0x20, 0x20);
  pic.write_port(0x20, 0xc4);  // set priority: 4 is the lowest, so 5 the highest
  pulse(pic, 1);
  pulse(pic, 5);
  CHECK(pic.acknowledge() == 0x35);
}

TEST_CASE("Special mask mode lets lower levels through a masked one in service") {
  PicPair pic = initialised();
  pulse(pic, 1);
  CHECK(pic.acknowledge() == 0x31);
  pulse(pic, 6);
  CHECK_FALSE(pic.output());
  pic.write_port(0x21, 0x02);
  CHECK_FALSE(pic.output());
  pic.write_port(0x20, 0x68);
  CHECK(pic.output());
  CHECK(pic.acknowledge() == 0x36);
  pic.write_port(0x20, 0x20);  // ends 6, not the masked 1
  CHECK(in_service(pic) == 0x02);
}

TEST_CASE("A poll acknowledges and names the level") {
  PicPair pic = initialised();
  pic.write_port(0x20, 0x0c);
  CHECK(pic.read_port(0x20) == 0x00);
  pulse(pic, 6);
  pic.write_port(0x20, 0x0c);
  CHECK(pic.read_port(0x20) == 0x86);
  CHECK(in_service(pic) == 0x40);
  CHECK_FALSE(pic.output());
}

TEST_CASE("ICW1 clears masks, requests and services") {
  PicPair pic = initialised();
  pulse(pic, 3);
  pic.acknowledge();
  pulse(pic, 2 + 8);
  pic.write_port(0x21, 0xaa);
  pic.write_port(0x20, 0x11);
  pic.write_port(0x21, 0x47);  // the low three bits are not used
  pic.write_port(0x21, 0x04);
  pic.write_port(0x21, 0x01);
  CHECK(pic.read_port(0x21) == 0);
  CHECK(in_service(pic) == 0);
  CHECK(requests(pic) == 0x04);  // the slave still asks
  CHECK(pic.acknowledge() == 0x3a);
  pulse(pic, 0);
  pic.write_port(0x20, 0x20);
  CHECK(pic.acknowledge() == 0x40);
}
