#!/bin/bash
# `sevisor run` as a service: what a service manager is told and when, lines for the journal, SIGTERM that presses the
# guest's power button, a guest that does not listen, and a second SIGTERM.
. "$(dirname "$0")/lib.sh"
need_guest
command -v python3 >/dev/null || skip "no python3"
grep -aq 'lib/modules/button.ko' "$INITRD" || skip "the initrd has no power button's modules (it was made without the kernel's package)"

# A service manager: each datagram becomes a line of $WORK/told.
cat >"$WORK/manager.py" <<'TEXT'
import socket, sys
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
s.bind(sys.argv[1])
print("bound", flush=True)
while True:
    print(s.recv(4096).decode().replace("\n", "|"), flush=True)
TEXT
: >"$WORK/told"
python3 "$WORK/manager.py" "$WORK/notify" >>"$WORK/told" &
manager_pid=$!
trap 'kill "$manager_pid" 2>/dev/null; clean_up' EXIT

# wait_for_file REGEX FILE: before long a line of the file matches.
wait_for_file() {
  local tenths=$((600 * SLOW))
  until grep -aqE "$1" "$2"; do
    if [ $((tenths -= 1)) -le 0 ] || { [ -n "$guest_pid" ] && ! kill -0 "$guest_pid" 2>/dev/null; }; then
      tail -n 20 "$WORK"/{told,out,err}
      wrong "$2 never had: $1"
      verdict
    fi
    sleep 0.1
  done
}
wait_for_file bound "$WORK/told"

ln -s out "$WORK/screen"
: >"$WORK/err"
journal=$(stat -c %d:%i "$WORK/err")

# start APPEND ARGS...: a guest as a service manager starts it, with a journal for its standard error.
start() {
  local append=$1
  shift
  : >"$WORK/err"
  : >"$WORK/told"
  : >"$WORK/out"
  NOTIFY_SOCKET=$WORK/notify JOURNAL_STREAM=$journal \
    "$SEVISOR" run --host emulated --kernel "$KERNEL" --initrd "$INITRD" --append "console=ttyS0 $append" --on-term poweroff "$@" \
    </dev/null >"$WORK/out" 2>>"$WORK/err" &
  guest_pid=$!
}

start "" --stop-timeout 100
wait_for_file '^READY=1\|STATUS=' "$WORK/told"
wait_for_file 'A shell in the guest' "$WORK/out"
grep -q STOPPING "$WORK/told" && wrong "it says that it stops while it runs"
kill -TERM "$guest_pid"
wait_for_end 0
wait_for_file '^STOPPING=1\|STATUS=.*asked to power off' "$WORK/told"
console_has 'reboot: Power down'
grep -q '^<6>the guest powered off (exit code 0)' "$WORK/err" || wrong "the journal was not told how it ended"
grep -qvE '^<[0-7]>' "$WORK/err" && wrong "a line without priority: $(grep -vE '^<[0-7]>' "$WORK/err" | head -n 1)"
grep -qE '^<.>sevisor:' "$WORK/err" && wrong "the name is in the line, which the journal has already"
[ "$(head -n 1 "$WORK/told")" = "READY=1|STATUS=The guest runs." ] || wrong "READY=1 was not the first: $(head -n 1 "$WORK/told")"

# A guest that does not listen: a shell is all that it runs.
start "rdinit=/bin/sh" --stop-timeout 1.5
wait_for_file 'Run /bin/sh as init' "$WORK/out"
kill -TERM "$guest_pid"
wait_for_end 143
grep -q '^<3>the guest did not power off within 1.5 s of SIGTERM (exit code 143)' "$WORK/err" || wrong "it says: $(tail -n 1 "$WORK/err")"

# A second SIGTERM does not wait.
start "rdinit=/bin/sh" --stop-timeout 100000
wait_for_file 'Run /bin/sh as init' "$WORK/out"
kill -TERM "$guest_pid"
wait_for_file 'asked to power off' "$WORK/err"
kill -TERM "$guest_pid"
wait_for_end 143

# An error before there is a guest, for the journal too.
status=0
JOURNAL_STREAM=$journal "$SEVISOR" run --kernel /nonexistent </dev/null 2>>"$WORK/err" || status=$?
[ "$status" -eq 35 ] || wrong "exit code $status without a kernel"
tail -n 1 "$WORK/err" | grep -q '^<3>.*/nonexistent' || wrong "the journal is told: $(tail -n 1 "$WORK/err")"
verdict
