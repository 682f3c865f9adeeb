#!/bin/bash
# A kernel with the pvpanic driver reports its panic, which ends the run with 34; the reason is on the console by then.
# shellcheck disable=SC2016 # the guest expands them
. "$(dirname "$0")/lib.sh"
need_guest
command -v cpio >/dev/null || skip "no cpio (package cpio)"
package=$(find "$GUEST_DIR/deb" -name 'linux-image-*.deb' 2>/dev/null | head -n 1)
[ -n "$package" ] || skip "no kernel package in $GUEST_DIR/deb"

mkdir "$WORK/unpacked" "$WORK/modules"
dpkg-deb --fsys-tarfile "$package" | tar -C "$WORK/unpacked" -x --wildcards '*/pvpanic.ko' '*/pvpanic-mmio.ko' ||
  skip "no pvpanic modules in $package"
find "$WORK/unpacked" -name '*.ko' -exec cp {} "$WORK/modules" ';'

# The kernel unpacks one archive after another.
(cd "$WORK" && find modules | cpio --quiet -o -H newc >modules.cpio) || wrong "cpio failed"
cat "$INITRD" "$WORK/modules.cpio" >"$WORK/initrd"

{
  echo 'insmod /modules/pvpanic.ko && insmod /modules/pvpanic-mmio.ko'
  echo 'echo "events-$(cat /sys/bus/platform/devices/QEMU0001:00/capability)"'
  echo 'echo c >/proc/sysrq-trigger'
} >"$WORK/commands"
status=0
timeout $((150 * SLOW)) "$SEVISOR" run --host emulated --kernel "$KERNEL" --initrd "$WORK/initrd" --memory 512M \
  --append "console=ttyS0 panic=-1 sevisor.mode=shell" <"$WORK/commands" >"$WORK/out" 2>"$WORK/err" || status=$?
[ "$status" -eq 34 ] || wrong "exit code $status, expected 34"
console_has '^events-3'
console_has 'Kernel panic - not syncing'
grep -q 'panicked' "$WORK/err" || wrong "the reason is not told"
[ "$failures" -eq 0 ] || tail -n 25 "$WORK/out" "$WORK/err"
verdict
