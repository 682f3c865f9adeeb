#!/bin/bash
# Without a terminal, what comes on standard input is typed into the guest, from its first byte on.
# shellcheck disable=SC2016 # the guest expands them
. "$(dirname "$0")/lib.sh"
need_guest

printf 'echo sum-$((40+2))\npoweroff -f\n' >"$WORK/commands"
status=0
timeout $((150 * SLOW)) "$SEVISOR" run --host emulated --cpus 2 --memory 512M --kernel "$KERNEL" --initrd "$INITRD" \
  --append "console=ttyS0 sevisor.mode=shell" <"$WORK/commands" >"$WORK/out" 2>"$WORK/err" || status=$?
[ "$status" -eq 0 ] || wrong "exit code $status, expected 0"
console_has '^sum-42'
console_has '^Linux .*, 2 CPU\(s\)'
[ "$failures" -eq 0 ] || tail -n 20 "$WORK/out" "$WORK/err"
verdict
