#!/bin/bash
# `sevisor run` with one call of the launch failing, each of them in turn as a record of a good launch names them: exit
# code 38 and one line that names the call.
. "$(dirname "$0")/lib.sh"
need_guest

run 0 --kernel "$KERNEL" --append console=ttyS0 --expect 'SEV-ES active' --record "$WORK/record"
# Up to the guest's first instruction; "open /dev/kvm" is one name.
sed -n '/"call":"KVM_RUN"/q; s/^{"n":[0-9]*,"call":"\([^"]*\)".*/\1/p' "$WORK/record" | awk '{ print $0 ":" ++n[$0] }' >"$WORK/calls"
[ "$(wc -l <"$WORK/calls")" -gt 25 ] || wrong "the record is short: $(wc -l <"$WORK/calls") calls"

while read -r call; do
  case $call in
    KVM_CHECK_EXTENSION:* | close:*) continue ;; # such a failure ends no launch
    KVM_GET_CLOCK:*) continue ;;       # a host without a clock is read on the process's own
  esac
  status=0
  timeout $((20 * SLOW)) "$SEVISOR" run --host emulated --kernel "$KERNEL" --append console=ttyS0 --log-level error --json "$WORK/report" \
    --inject-failure "$call:EIO:23" </dev/null >"$WORK/out" 2>"$WORK/err" || status=$?
  [ "$status" -eq 38 ] || wrong "$call fails: exit code $status"
  [ "$(wc -l <"$WORK/err")" -eq 1 ] || wrong "$call fails: not one line: $(cat "$WORK/err")"
  [ -s "$WORK/out" ] && wrong "$call fails: the guest printed something"
  name=${call%:*}
  [ "$name" = mmap ] && name="map the run area"
  grep -qF "$name" "$WORK/err" || wrong "$call fails: the message does not name it: $(cat "$WORK/err")"
done <"$WORK/calls"
# A child would have the same command line, which no other program has.
if command -v pgrep >/dev/null; then
  ! pgrep -f -- "$WORK/report" >"$WORK/left" || wrong "processes are left: $(cat "$WORK/left")"
fi
verdict
