#!/bin/bash
# The other ways in which a run ends: a panic, an awaited line, a time limit; and that the same run prints the same.
. "$(dirname "$0")/lib.sh"
need_guest

# A console line that comes early: the awaited text ends the run at once.
until_line() { run 0 --kernel "$KERNEL" --memory 512M --append "console=ttyS0" --expect "$@"; }

until_line 'Linux version [0-9.]+'
until_line 'Kernel command line: .*console'
cp "$WORK/out" "$WORK/first"
until_line 'Kernel command line: .*console'
cmp "$WORK/first" "$WORK/out" || wrong "two runs of the same guest differ"

# No root file system is a panic; panic=-1 makes it a reset, which SEV-ES state does not survive.
run 32 --kernel "$KERNEL" --memory 512M --append "console=ttyS0 panic=-1"
console_has 'Kernel panic - not syncing'

# Without panic=-1 the kernel spins for ever: the limit ends it.
run 36 --kernel "$KERNEL" --memory 512M --append "console=ttyS0 loglevel=0 panic=0" --timeout 2
verdict
