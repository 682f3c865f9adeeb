#!/bin/bash
# plain_linux.sh VCPUS: Debian's kernel boots as an ordinary guest on the emulated host, finds itself sound, and powers off.
# shellcheck disable=SC2154  # run() sets status
. "$(dirname "$0")/lib.sh"
need_guest
vcpus=$1

run 0 --confidential none --kernel "$KERNEL" --initrd "$INITRD" --memory 256M --cpus "$vcpus" --json "$WORK/report.json" \
  --append "console=ttyS0 panic=-1 sevisor.mode=check sevisor.sev=none"
console_has "^Linux .*, $vcpus CPU"
console_has '^Memory Encryption Features active: none'
console_has '^sevisor-self-check: PASS'
grep -q '"host": "emulated"' "$WORK/report.json" || wrong "the report's host"
if [ "$vcpus" -eq 2 ]; then
  cp "$WORK/out" "$WORK/first"
  run 0 --confidential none --kernel "$KERNEL" --initrd "$INITRD" --memory 256M --cpus "$vcpus" \
    --append "console=ttyS0 panic=-1 sevisor.mode=check sevisor.sev=none"
  cmp "$WORK/out" "$WORK/first" || wrong "the second run differs from the first"
fi
verdict
