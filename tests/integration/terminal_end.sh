#!/bin/bash
# A run on a terminal that is ended from outside, by SIGTERM, by SIGKILL, by its terminal's closing: the terminal is as
# it was, and no process is left.
. "$(dirname "$0")/lib.sh"
need_guest
need_terminal
command -v pgrep >/dev/null || skip "no pgrep (package procps)"

# A shell without job control, which does not put the terminal back itself. What the terminal was before and after is in
# $WORK/before and $WORK/after, the guest's exit code in $WORK/status.
cat >"$WORK/shell" <<TEXT
stty -g >"$WORK/before"
sh -c 'echo \$\$ >"$WORK/pid"; exec "$SEVISOR" run --host emulated --kernel "$KERNEL" --append "console=ttyS0 panic=0 loglevel=0"'
echo \$? >"$WORK/status"
sleep 1
stty -g >"$WORK/after"
TEXT

# Waits until the guest prints, so that the terminal is raw.
start_shell() {
  rm -f "$WORK"/{before,after,status,pid,screen}
  mkfifo "$WORK/keys-$1"
  script --quiet --flush --return --command "sh '$WORK/shell'" /dev/null <"$WORK/keys-$1" >"$WORK/screen" 2>&1 &
  guest_pid=$!
  exec {keys}>"$WORK/keys-$1"
  wait_for 'sevisor firmware: kernel' 60
  run_pid=$(cat "$WORK/pid")
  processes="$run_pid $(pgrep -P "$run_pid" | tr '\n' ' ')"
}

# No process of the run is there any more.
check_gone() {
  local tenths=$((50 * SLOW)) pid
  for pid in $processes; do
    while kill -0 "$pid" 2>/dev/null && [ $((tenths -= 1)) -gt 0 ]; do sleep 0.1; done
    ! kill -0 "$pid" 2>/dev/null || wrong "$1: process $pid is left: $(ps -o pid,stat,comm,args -p "$pid" | tail -n 1)"
  done
}

for signal in TERM KILL; do
  start_shell "$signal"
  [ "$(wc -w <<<"$processes")" -eq 2 ] || wrong "there is no process that guards the terminal: $processes"
  kill "-$signal" "$run_pid"
  wait_for_end 0
  exec {keys}>&-
  check_gone "SIG$signal"
  [ "$(cat "$WORK/status")" -eq $((128 + $(kill -l "$signal"))) ] || wrong "SIG$signal: exit code $(cat "$WORK/status")"
  cmp "$WORK/before" "$WORK/after" || wrong "SIG$signal: the terminal is not as it was"
done

# Closing the terminal: the program that holds its other end dies.
start_shell HUP
kill -KILL "$guest_pid"
wait "$guest_pid" 2>/dev/null
guest_pid=
exec {keys}>&-
check_gone "the terminal closed"

# Left by its own key: nothing of the guard remains.
start_shell key
type_text $'\x01x'
wait_for_end 0
check_gone "Ctrl-a x"
[ "$(cat "$WORK/status")" -eq 0 ] || wrong "Ctrl-a x: exit code $(cat "$WORK/status")"
cmp "$WORK/before" "$WORK/after" || wrong "Ctrl-a x: the terminal is not as it was"
verdict
