#!/usr/bin/env python3
"""Computes an SEV-ES launch digest without sevisor: SHA-256(firmware || one VMSA page a vCPU).

usage: launch_digest.py FIRMWARE VCPUS SIGNATURE     (SIGNATURE: CPUID Fn0000_0001 EAX of the CPU type, as 0x800f12)

The VMSA is what KVM makes of the reset state for a guest of KVM_SEV_ES_INIT (Linux, sev_es_sync_vmsa: x87 and SSE state stay
zero); offsets from AMD's APM volume 2, table B-4.
"""
import hashlib
import struct
import sys


def guid(text):
    """A GUID as it stands in memory: the first three fields are little-endian."""
    a, b, c, d, e = text.split("-")
    return b"".join(bytes.fromhex(field)[::-1] for field in (a, b, c)) + bytes.fromhex(d + e)


FOOTER = guid("96b582de-1fb2-45f7-baea-a366c55a082d")
RESET_BLOCK = guid("00f771de-1a7e-4fcb-890e-68c77e2fb44e")


def reset_address(firmware):
    """Where application processors start, from the footer table that ends 32 bytes before the image's end."""
    end = len(firmware) - 32
    assert firmware[end - 16:end] == FOOTER, "no footer table"
    start = end - struct.unpack_from("<H", firmware, end - 18)[0]
    at = end - 18
    while at > start:
        length = struct.unpack_from("<H", firmware, at - 18)[0]
        if firmware[at - 16:at] == RESET_BLOCK:
            return struct.unpack_from("<I", firmware, at - 22)[0]
        at -= length
    raise AssertionError("no SEV-ES reset block")


def vmsa(signature, cs_base, rip):
    page = bytearray(4096)

    def segment(offset, selector, attributes, base=0):
        struct.pack_into("<HHIQ", page, offset, selector, attributes, 0xFFFF, base)

    for offset in (0x00, 0x20, 0x30, 0x40, 0x50):  # ES SS DS FS GS
        segment(offset, 0, 0x93)
    segment(0x10, 0xF000, 0x9B, cs_base)  # CS
    segment(0x60, 0, 0)  # GDTR
    segment(0x70, 0, 0x82)  # LDTR
    segment(0x80, 0, 0)  # IDTR
    segment(0x90, 0, 0x8B)  # TR
    quadwords = {
        0x0D0: 0x1000,  # EFER: SVME
        0x148: 0x40,  # CR4: MCE
        0x158: 0x10,  # CR0: ET
        0x160: 0x400,  # DR7
        0x168: 0xFFFF0FF0,  # DR6
        0x170: 2,  # RFLAGS
        0x178: rip,
        0x268: 0x0007040600070406,  # G_PAT
        0x310: signature,  # RDX
        0x3E8: 1,  # XCR0
    }
    for offset, value in quadwords.items():
        struct.pack_into("<Q", page, offset, value)
    return bytes(page)


def main():
    path, vcpus, signature = sys.argv[1], int(sys.argv[2]), int(sys.argv[3], 0)
    with open(path, "rb") as file:
        firmware = file.read()
    digest = hashlib.sha256(firmware)
    digest.update(vmsa(signature, 0xFFFF0000, 0xFFF0))
    if vcpus > 1:
        reset = reset_address(firmware)
        digest.update(vmsa(signature, reset & 0xFFFF0000, reset & 0xFFFF) * (vcpus - 1))
    print(digest.hexdigest())


main()
