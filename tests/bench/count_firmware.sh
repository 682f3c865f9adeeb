#!/bin/bash
# count_firmware.sh FIRMWARE: instructions from reset to the kernel's first one, in QEMU's q35 without SEV, for this firmware,
# SeaBIOS and OVMF. The kernel is as small as can be: wherever a firmware enters it, it leaves QEMU by isa-debug-exit.
set -euo pipefail
firmware=$1
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

cc -shared -fPIC -O2 -o "$work/count.so" "$here/count_instructions.c"
python3 - "$work/kernel" <<'PYTHON'
# A bzImage (Linux Documentation/arch/x86/boot.rst) that is a PE file as well (Microsoft's PE format), as OVMF wants it.
import struct, sys
SETUP, ENTRY_64 = 1024, 0x200
image = bytearray(SETUP + 1024)
def put(form, at, *values):
    struct.pack_into('<' + form, image, at, *values)
LEAVE = bytes([0xba, 0x01, 0x05, 0xb0, 0x31, 0xee, 0xf4])  # mov dx, 0x501; mov al, 0x31; out dx, al; hlt
LEAVE_WIDE = bytes([0x66, 0xba, 0x01, 0x05, 0xb0, 0x31, 0xee, 0xf4])
put('B', 0x1f1, SETUP // 512 - 1)
put('I', 0x1f4, (len(image) - SETUP) // 16)
put('H', 0x1fe, 0xaa55)
image[0x200:0x206] = bytes([0xeb, 0x6a]) + b'HdrS'
put('H', 0x206, 0x020c)
put('B', 0x211, 1)
put('I', 0x22c, 0x7fffffff)
put('I', 0x230, 0x200000)
put('B', 0x234, 1)
put('H', 0x236, 3)
put('I', 0x238, 2047)
put('Q', 0x258, 0x1000000)
put('I', 0x260, 0x800000)
image[0x26c:0x26c + len(LEAVE)] = LEAVE  # 16 bits: SeaBIOS
for at in (SETUP, SETUP + ENTRY_64):     # 32 and 64 bits
    image[at:at + len(LEAVE_WIDE)] = LEAVE_WIDE
image[0:2] = b'MZ'
put('I', 0x3c, 0x40)
put('4sHHIIIHH', 0x40, b'PE\0\0', 0x8664, 1, 0, 0, 0, 160, 0x206)
put('HBBIIIII', 0x58, 0x20b, 0, 0, 1024, 0, 0, SETUP + ENTRY_64, SETUP)
put('QIIHHHHHHIIIIHH', 0x70, 0, 0x20, 0x20, 0, 0, 0, 0, 0, 0, 0, len(image), SETUP, 0, 10, 0)
put('QQQQII', 0xa0, 0, 0, 0, 0, 0, 6)
put('8sIIIIIIHHI', 0xf8, b'.text', 1024, SETUP, 1024, SETUP, 0, 0, 0, 0, 0x60000020)
open(sys.argv[1], 'wb').write(image)
PYTHON

# count NAME QEMU_OPTIONS...
count() {
  local name=$1 status=0
  shift
  timeout 300 qemu-system-x86_64 -accel tcg -machine q35 -m 512M -display none -no-reboot -net none -plugin "$work/count.so" \
    -d plugin -device isa-debug-exit,iobase=0x501,iosize=1 -kernel "$work/kernel" "$@" </dev/null 2>"$work/log" || status=$?
  # 0x31 << 1 | 1: what isa-debug-exit makes of the byte.
  [ "$status" -eq 99 ] || { echo "$name never reached the kernel: $(tail -n 3 "$work/log")" && return; }
  echo "$name: $(sed -n 's/^instructions: //p' "$work/log")"
}
count "sevisor's firmware" -bios "$firmware"
count SeaBIOS
cp /usr/share/OVMF/OVMF_VARS.fd "$work/vars"
count OVMF -drive if=pflash,format=raw,readonly=on,file=/usr/share/OVMF/OVMF_CODE.fd -drive "if=pflash,format=raw,file=$work/vars"
