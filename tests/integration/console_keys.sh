#!/bin/bash
# A line at the start tells how to leave; Ctrl-a h lists the keys of the console, Ctrl-a x leaves.
. "$(dirname "$0")/lib.sh"
need_guest
need_terminal

start_on_terminal --kernel "$KERNEL" --memory 256M --append "console=ttyS0"
wait_for "this terminal is the guest's console: Ctrl-a x leaves" 60
wait_for 'Linux version' 60
type_text $'\001h'
wait_for 'Ctrl-a b' 10
type_text $'\001x'
wait_for_end 0
verdict
