#!/bin/bash
# What a guest keeps in private memory is nowhere in the VMM's mapping of guest memory; what it shares is.
. "$(dirname "$0")/lib.sh"
need_guest
secret=sevisor-test-secret:4f1d9c27ab

# in_guest_memory: how often the secret stands in the mapping that the VMM gave to the host as guest memory.
# grep -z: a line ends at a zero byte, so that empty memory does not become one long line.
in_guest_memory() {
  local range start end count=0 found mappings=0
  while read -r range _; do
    start=$((16#${range%-*})) end=$((16#${range#*-}))
    found=$(dd if="/proc/$guest_pid/mem" bs=1M iflag=skip_bytes,count_bytes skip="$start" count=$((end - start)) 2>"$WORK/dd" |
      grep -azoF "$secret" | tr '\0' '\n' | grep -c .)
    count=$((count + found)) mappings=$((mappings + 1))
  done < <(grep sevisor-guest-ram "/proc/$guest_pid/maps")
  [ "$mappings" -gt 0 ] || { echo "the VMM has no mapping that is named sevisor-guest-ram" && return; }
  echo "$count"
}

mkfifo "$WORK/keys"
"$SEVISOR" run --host emulated --firmware "$SECRET_GUEST" --kernel "$KERNEL" --memory 256M --timeout $((60 * SLOW)) \
  <"$WORK/keys" >"$WORK/screen" 2>"$WORK/err" &
guest_pid=$!
exec {keys}>"$WORK/keys"

wait_for 'the secret is private' 30
dd if="/proc/$guest_pid/mem" bs=1 count=0 2>/dev/null || skip "this user may not read the memory of its own processes"
[ "$(in_guest_memory)" = 0 ] || wrong "the private secret stands in the VMM's mapping: $(in_guest_memory)"
type_text x
wait_for 'the secret is shared' 30
[ "$(in_guest_memory)" = 1 ] || wrong "the shared secret stands in the VMM's mapping: $(in_guest_memory), expected 1"
type_text x
# The guest asks for termination, reason set 0, reason 0.
wait_for_end 37
verdict
