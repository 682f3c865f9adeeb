#!/bin/bash
# Time on the emulated host is virtual and its random numbers are seeded: two runs of a guest print the same, byte for
# byte, kernel times and random numbers included. With one vCPU and with two.
. "$(dirname "$0")/lib.sh"
need_guest

for guest in "1 check" "2 bench"; do
  read -r cpus mode <<<"$guest"
  for turn in first second; do
    # The second run has company, so that the host's scheduler makes its own way through it.
    [ "$turn" = first ] || (for ((n = 0; n < 200000; n++)); do :; done) &
    run 0 --kernel "$KERNEL" --initrd "$INITRD" --memory 512M --cpus "$cpus" \
      --append "console=ttyS0 panic=-1 sevisor.mode=$mode" || verdict
    cp "$WORK/out" "$WORK/$turn"
  done
  console_has '^sevisor-(self-check: PASS|bench: userspace)'
  cmp "$WORK/first" "$WORK/second" || {
    diff "$WORK/first" "$WORK/second" | head -n 20
    wrong "two runs with $cpus vCPUs differ"
  }
done
verdict
