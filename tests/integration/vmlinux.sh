#!/bin/bash
# An ELF kernel, the vmlinux inside Debian's bzImage: boots as an SEV-ES guest, measured, with the digest of `sevisor measure`;
# and in QEMU without SEV, where it is entered by PVH. A damaged one is refused with one line.
. "$(dirname "$0")/lib.sh"
need_guest

vmlinux=$WORK/vmlinux
status=0
"$EXTRACT_VMLINUX" "$KERNEL" "$vmlinux" || status=$?
[ "$status" -ne 77 ] || skip "the kernel in $GUEST_DIR is not compressed by LZ4"
[ "$status" -eq 0 ] || { wrong "extract_vmlinux ended with $status" && verdict; }

cmdline="console=ttyS0 panic=-1 sevisor.mode=check"
run 0 --kernel "$vmlinux" --initrd "$INITRD" --append "$cmdline" --memory 512M --cpus 2 --kernel-hashes --json "$WORK/report.json"
console_has 'firmware: kernel, initrd and command line must have the measured hashes'
console_has 'smp: Brought up 1 node, 2 CPUs'
console_has '^sevisor-self-check: PASS'
digest=$(sed -n 's/.*"launch_digest": *"\([0-9a-f]*\)".*/\1/p' "$WORK/report.json")
expected=$("$SEVISOR" measure --mode seves --vcpus 2 --vcpu-type EPYC-v4 --kernel "$vmlinux" --initrd "$INITRD" --append "$cmdline")
[ "$digest" = "$expected" ] || wrong "the run's digest is $digest, sevisor measure says $expected"

# refused WORD: one line that has WORD in it.
refused() {
  run 35 --kernel "$WORK/bad" --memory 512M
  grep -qF "$1" "$WORK/err" || wrong "the message does not say '$1': $(cat "$WORK/err")"
  [ "$(grep -c . "$WORK/err")" -eq 1 ] || wrong "more than one line: $(cat "$WORK/err")"
}
head -c 1000000 "$vmlinux" >"$WORK/bad"
refused 'ELF headers are malformed'
{ head -c 18 "$vmlinux"; printf '\267\0'; tail -c +21 "$vmlinux" | head -c 1000; } >"$WORK/bad"
refused 'not a static ELF executable for x86'

if command -v qemu-system-x86_64 >/dev/null; then
  # The guest's own kernel line ends it: QEMU has no --expect.
  timeout $((100 * SLOW)) qemu-system-x86_64 -accel tcg -machine q35 -smp 2 -m 512M -display none -serial "file:$WORK/out" -no-reboot \
    -bios "$FIRMWARE" -kernel "$vmlinux" -initrd "$INITRD" -append "console=ttyS0 panic=-1" </dev/null >"$WORK/err" 2>&1 &
  guest_pid=$!
  tenths=$((900 * SLOW))
  until grep -aq 'guest:.*# ' "$WORK/out" 2>/dev/null || [ $((tenths -= 1)) -eq 0 ] || ! kill -0 "$guest_pid" 2>/dev/null; do sleep 0.1; done
  # TERM, which 'timeout' passes on; KILL would leave QEMU behind.
  kill -TERM "$guest_pid" 2>/dev/null
  wait "$guest_pid"
  guest_pid=
  console_has 'sevisor firmware: no memory encryption'
  console_has 'smp: Brought up 1 node, 2 CPUs'
  console_has 'guest:.*# '
else
  echo "no qemu-system-x86_64: the PVH entry of a whole Linux was not tested"
fi
verdict
