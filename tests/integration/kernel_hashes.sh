#!/bin/bash
# --kernel-hashes: the run's digest is that of `sevisor measure` with kernel, initrd and command line, and the firmware, which
# compares the hashes, boots on.
. "$(dirname "$0")/lib.sh"
need_guest

cmdline="console=ttyS0 sevisor.mode=poweroff"
run 0 --kernel "$KERNEL" --initrd "$INITRD" --append "$cmdline" --memory 512M --kernel-hashes --json "$WORK/report.json" \
  --expect 'Run /init'
console_has 'firmware: kernel, initrd and command line must have the measured hashes'
console_has 'Linux version'
digest=$(sed -n 's/.*"launch_digest": *"\([0-9a-f]*\)".*/\1/p' "$WORK/report.json")
expected=$("$SEVISOR" measure --mode seves --vcpus 1 --vcpu-type EPYC-v4 --kernel "$KERNEL" --initrd "$INITRD" --append "$cmdline")
[ "$digest" = "$expected" ] || wrong "the run's digest is $digest, sevisor measure says $expected"

# Without an initrd and a command line: the hashes of nothing and of a zero.
run 0 --kernel "$KERNEL" --memory 512M --kernel-hashes --json "$WORK/report.json" --expect 'firmware: kernel [0-9]+ MiB'
digest=$(sed -n 's/.*"launch_digest": *"\([0-9a-f]*\)".*/\1/p' "$WORK/report.json")
expected=$("$SEVISOR" measure --mode seves --vcpus 1 --vcpu-type EPYC-v4 --kernel "$KERNEL")
[ "$digest" = "$expected" ] || wrong "without an initrd the run's digest is $digest, sevisor measure says $expected"

# OVMF as Debian builds it has no hashes area: refused before the guest exists.
if [ -r /usr/share/OVMF/OVMF_CODE.fd ]; then
  run 35 --firmware /usr/share/OVMF/OVMF_CODE.fd --kernel "$KERNEL" --kernel-hashes
  grep -q 'hash' "$WORK/err" || wrong "the message does not speak of hashes: $(cat "$WORK/err")"
fi
run 35 --firmware "$FIRMWARE" --kernel-hashes
verdict
