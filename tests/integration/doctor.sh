#!/bin/bash
# `sevisor doctor` explains this machine, whatever it is, to any user, and finds the emulated host in order.
. "$(dirname "$0")/lib.sh"

# doctor ARGS...: its exit code in $status, its output in $WORK/out.
doctor() {
  status=0
  timeout $((60 * SLOW)) "$@" </dev/null >"$WORK/out" 2>"$WORK/err" || status=$?
}

doctor "$SEVISOR" doctor --host emulated --json "$WORK/report.json"
[ "$status" -eq 0 ] || wrong "the emulated host: exit code $status"
console_has '^\[ PASS \] - Dry launch of a guest: KVM_SEV_'
console_has '^the emulated host runs SEV-ES guests'
grep -q '"can_run": true' "$WORK/report.json" || wrong "the JSON report"

doctor "$SEVISOR" doctor --host neither
[ "$status" -eq 35 ] || wrong "an unknown host: exit code $status"

doctor "$SEVISOR" doctor
case $status in
  0) console_has '^the kernel host runs SEV-ES guests' ;;
  38)
    console_has '^\[ FAIL \] '
    console_has '^the kernel host cannot run SEV-ES guests: .+: .+'
    console_has 'sevisor run --host emulated'
    ;;
  *) wrong "exit code $status" ;;
esac
cat "$WORK/out"

# As a user who may do nothing.
if [ "$(id -u)" -eq 0 ] && [ -e /dev/kvm ] && command -v setpriv >/dev/null; then
  install -m 755 "$SEVISOR" "$WORK/sevisor"
  chmod 755 "$WORK"
  if setpriv --reuid nobody --regid nogroup --clear-groups test -w /dev/kvm; then
    echo "everybody may open /dev/kvm here: the advice for others was not looked at"
  else
    doctor setpriv --reuid nobody --regid nogroup --clear-groups "$WORK/sevisor" doctor
    [ "$status" -eq 38 ] || wrong "as nobody: exit code $status"
    console_has '/dev/kvm: Permission denied \(EACCES\), mode'
    console_has 'to repair: (sudo chgrp kvm .*; )?sudo usermod -aG kvm nobody'
    console_has 'FAIL .*locked memory'
  fi
fi
verdict
