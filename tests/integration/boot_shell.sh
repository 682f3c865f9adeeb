#!/bin/bash
# On a terminal the guest ends in a shell, what is typed reaches it, and `reboot -f` ends the run with 32.
# shellcheck disable=SC2016 # the guest expands them
. "$(dirname "$0")/lib.sh"
need_guest
need_terminal

start_on_terminal --kernel "$KERNEL" --initrd "$INITRD" --memory 512M --log-level debug \
  --append "console=ttyS0 sevisor.mode=shell"
wait_for 'guest:.*# ' 120
type_line 'echo six-times-seven-is-$((6*7))'
wait_for 'six-times-seven-is-42' 30
# Job control needs a controlling terminal: Ctrl-C ends the sleep and not the shell.
type_line 'sleep 100000000 || echo interrupted-with-$?'
sleep 1
type_text $'\003'
type_line 'echo still-$((40+2))'
wait_for 'still-42' 30

# What Linux keeps in its memory is private: in the shell, in the page cache. It is typed in disguise, because what is typed
# passes through shared memory.
type_line 'secret=$(echo yvahk-xrrcf-n-frperg | tr a-z n-za-m); echo $secret >/root/file; echo length-${#secret}'
wait_for 'length-20' 30
need_guest_memory
[ "$(in_guest_memory linux-keeps-a-secret "$WORK/screen")" = 0 ] || wrong "a secret of Linux stands in the VMM's mapping"

type_line 'reboot -f'
wait_for_end 32
verdict
