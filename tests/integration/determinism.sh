#!/bin/bash
# Time on the emulated host is virtual and its random numbers are seeded: two runs of a guest print the same, byte for
# byte, kernel times and random numbers included; they ask the host for the same in the same order (--trace), and leave
# the same memory behind (--dump-memory). With one vCPU, two and four.
. "$(dirname "$0")/lib.sh"
need_guest

for guest in "1 check" "2 bench" "4 bench"; do
  read -r cpus mode <<<"$guest"
  for turn in first second; do
    # The second run has company, so that the host's scheduler makes its own way through it.
    [ "$turn" = first ] || (for ((n = 0; n < 200000; n++)); do :; done) &
    mkdir -p "$WORK/$turn"
    run 0 --kernel "$KERNEL" --initrd "$INITRD" --memory 256M --cpus "$cpus" --trace "$WORK/$turn/trace" \
      --dump-memory "$WORK/$turn/memory" --append "console=ttyS0 panic=-1 sevisor.mode=$mode" || verdict
    cp "$WORK/out" "$WORK/$turn/console"
  done
  console_has '^sevisor-(self-check: PASS|bench: userspace)'
  vmgexits=$(grep -c '"ev":"vmgexit"' "$WORK/first/trace")
  [ "$vmgexits" -gt 1000 ] || wrong "$vmgexits VMGEXITs are in the trace"
  [ "$(tr -d '\0' <"$WORK/first/memory" | head -c 10000000 | wc -c)" -eq 10000000 ] || wrong "the memory is all but empty"
  for what in console trace memory; do
    cmp "$WORK/first/$what" "$WORK/second/$what" || wrong "two runs with $cpus vCPUs differ in their $what"
  done
  [ "$failures" -eq 0 ] || {
    diff "$WORK/first/console" "$WORK/second/console" | head -n 20
    verdict
  }
  echo "$cpus vCPUs: $vmgexits VMGEXITs, memory $(sha256sum <"$WORK/first/memory" | cut -c -16)"
done
verdict
