#!/bin/bash
# A plain guest on this machine's /dev/kvm: the machine from the reset vector to its power-off, without SEV.
. "$(dirname "$0")/lib.sh"

status=0
"$SEVISOR" run --confidential none --host emulated --firmware "$PLAIN_GUEST" </dev/null 2>"$WORK/err" || status=$?
[ "$status" -eq 38 ] || wrong "on the emulated host: exit code $status"
status=0
"$SEVISOR" run --confidential none --policy 5 --firmware "$PLAIN_GUEST" </dev/null 2>"$WORK/err" || status=$?
[ "$status" -eq 35 ] || wrong "with a policy: exit code $status"

[ -r /dev/kvm ] && [ -w /dev/kvm ] || skip "no /dev/kvm that this user may open"

for irqchip in kernel split; do
  status=0
  timeout $((30 * SLOW)) "$SEVISOR" run --confidential none --host kernel --cpus 2 --memory 64M --firmware "$PLAIN_GUEST" \
    --irqchip $irqchip --timeout $((25 * SLOW)) --json "$WORK/report.json" --record "$WORK/record" \
    </dev/null >"$WORK/out" 2>"$WORK/err" || status=$?
  echo "--irqchip $irqchip:"
  cat "$WORK/out"
  [ "$status" -eq 0 ] || wrong "exit code $status: $(cat "$WORK/err")"
  [ "$(grep -c '^ok: ' "$WORK/out")" -eq 8 ] || wrong "not all parts were gone through"
  console_has '^plain guest: PASS'
  grep -q '"confidential": "none"' "$WORK/report.json" || wrong "the report"
  grep -q '"host": "kernel"' "$WORK/report.json" || wrong "the report's host"
  ! grep -q 'LAUNCH_\|MEMORY_ENCRYPT\|/dev/sev' "$WORK/record" || wrong "SEV calls for a plain guest"
done
verdict
