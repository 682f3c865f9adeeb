#!/bin/sh
# boot_on_qemu.sh FIRMWARE: boots a kernel through the firmware on QEMU's pc and q35 machines, without SEV, with one and four
# processors. The kernel is $GUEST_KERNEL, which ./dev test downloads, or the newest /boot/vmlinuz-*. With $GUEST_INITRD the guest
# must come to its shell, without to the panic for want of a root. Exit code 77: nothing to test with.
set -eu
firmware=$1
kernel=${GUEST_KERNEL:-}
initrd=${GUEST_INITRD:-}
# shellcheck disable=SC2012 # names of kernels have no newlines, and ls sorts by time
[ -r "$kernel" ] || kernel=$(ls -t /boot/vmlinuz-* 2>/dev/null | head -n 1 || true)
command -v qemu-system-x86_64 >/dev/null || { echo "SKIP: qemu-system-x86_64 is not installed (package qemu-system-x86)"; exit 77; }
[ -r "$kernel" ] || { echo "SKIP: no readable kernel in build/guest or /boot"; exit 77; }
log=$(mktemp)
qemu=
trap '[ -z "$qemu" ] || kill -KILL "$qemu" 2>/dev/null || true; rm -f "$log"' EXIT

last='Kernel panic - not syncing: VFS'
[ ! -r "$initrd" ] || last='guest:.*# '

# boot ARGS...: runs QEMU until the console shows what ends the boot, at most a minute.
boot() {
  : >"$log"
  # -no-reboot and panic=-1 end the machine when the kernel finds no root.
  qemu-system-x86_64 -accel tcg -m 256M -display none -serial "file:$log" -no-reboot -bios "$firmware" "$@" </dev/null &
  qemu=$!
  tenths=600
  until grep -aq "$last" "$log" || [ $((tenths -= 1)) -eq 0 ] || ! kill -0 "$qemu" 2>/dev/null; do sleep 0.1; done
  kill -KILL "$qemu" 2>/dev/null || true
  wait "$qemu" || true
  qemu=
}
expect() {
  grep -aq "$1" "$log" || { echo "not on the console: $1"; cat "$log"; exit 1; }
}

for machine in pc q35; do
  for processors in 1 4; do
    set -- -machine "$machine" -smp "$processors" -kernel "$kernel" -append "console=ttyS0 panic=-1 sevisor.mark=$machine"
    [ ! -r "$initrd" ] || set -- "$@" -initrd "$initrd"
    boot "$@"
    expect "sevisor firmware: no memory encryption"
    expect "sevisor firmware: kernel .* initrd"
    expect "Linux version"
    expect "Command line: .*sevisor.mark=$machine"
    expect "BIOS-e820: .*usable"
    expect "ACPI: RSDP 0x"
    expect "Brought up 1 node, $processors CPU"
    expect "$last"
    echo "$machine, $processors: as expected"
  done
done
