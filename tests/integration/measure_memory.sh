#!/bin/bash
# `sevisor measure` takes little memory, however large the initrd is.
. "$(dirname "$0")/lib.sh"
[ "$SLOW" -eq 1 ] || skip "sanitizers take memory of their own"

head -c 1M /dev/zero >"$WORK/kernel"
truncate -s 1G "$WORK/initrd" # takes no room on the disk
"$SEVISOR" measure --mode seves --vcpus 64 --vcpu-type EPYC-v4 --kernel "$WORK/kernel" --initrd "$WORK/initrd" >"$WORK/digest" &
guest_pid=$!
taken=0
# VmHWM: the largest resident size so far. What was the shell's before exec() is in none of these.
while now=$(awk '/^VmHWM/ { print $2 }' "/proc/$guest_pid/status" 2>/dev/null) && [ -n "$now" ]; do taken=$now; done
wait "$guest_pid" || wrong "no digest was computed"
guest_pid=
[ -s "$WORK/digest" ] || wrong "no digest was printed"
echo "at most $taken KiB"
[ "$taken" -gt 1024 ] || wrong "that cannot be"
[ "$taken" -lt 16384 ] || wrong "it took $taken KiB for an initrd of 1 GiB"
verdict
