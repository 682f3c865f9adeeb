#!/bin/bash
# What a guest keeps in private memory is nowhere in the VMM's mapping of guest memory; what it shares is.
. "$(dirname "$0")/lib.sh"
secret=sevisor-test-secret:4f1d9c27ab

mkfifo "$WORK/keys"
"$SEVISOR" run --host emulated --firmware "$SECRET_GUEST" --memory 256M --timeout $((60 * SLOW)) \
  --log-level debug <"$WORK/keys" >"$WORK/screen" 2>"$WORK/err" &
guest_pid=$!
exec {keys}>"$WORK/keys"

wait_for 'the secret is private' 30
need_guest_memory
[ "$(in_guest_memory "$secret" "$WORK/err")" = 0 ] || wrong "the private secret stands in the VMM's mapping"
type_text x
wait_for 'the secret is shared' 30
[ "$(in_guest_memory "$secret" "$WORK/err")" = 1 ] || wrong "the shared secret does not stand in the VMM's mapping once"
type_text x
# The guest asks for termination, reason set 0, reason 0.
wait_for_end 37
verdict
