#!/bin/sh
# boot_on_qemu.sh FIRMWARE: boots a kernel through the firmware on QEMU's pc and q35 machines, without SEV.
# The kernel is $GUEST_KERNEL, which ./dev test downloads, or the newest /boot/vmlinuz-*. Exit code 77: nothing to test with.
set -eu
firmware=$1
kernel=${GUEST_KERNEL:-}
# shellcheck disable=SC2012 # names of kernels have no newlines, and ls sorts by time
[ -r "$kernel" ] || kernel=$(ls -t /boot/vmlinuz-* 2>/dev/null | head -n 1 || true)
command -v qemu-system-x86_64 >/dev/null || { echo "SKIP: qemu-system-x86_64 is not installed (package qemu-system-x86)"; exit 77; }
# shellcheck disable=SC2012 # names of kernels have no newlines, and ls sorts by time
[ -r "$kernel" ] || { echo "SKIP: no readable kernel in build/guest or /boot"; exit 77; }
log=$(mktemp)
trap 'rm -f "$log"' EXIT

boot() {
  # -no-reboot and panic=-1 end the machine when the kernel finds no root.
  timeout 50 qemu-system-x86_64 -accel tcg -m 256M -display none -serial "file:$log" -no-reboot -bios "$firmware" "$@" \
    </dev/null || true
}
expect() {
  grep -aq "$1" "$log" || { echo "not on the console: $1"; cat "$log"; exit 1; }
}

for machine in pc q35; do
  boot -machine "$machine" -kernel "$kernel" -append "console=ttyS0 panic=-1 sevisor.mark=$machine"
  expect "sevisor firmware: no memory encryption"
  expect "sevisor firmware: kernel .* initrd"
  expect "Linux version"
  expect "Command line: .*sevisor.mark=$machine"
  expect "BIOS-e820: .*usable"
  expect "ACPI: RSDP 0x"
  expect "Kernel panic - not syncing: VFS"
done
