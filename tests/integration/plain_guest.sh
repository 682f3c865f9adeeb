#!/bin/bash
# A plain guest, on the emulated host and on this machine's /dev/kvm: the machine from the reset vector to its power-off,
# without SEV.
. "$(dirname "$0")/lib.sh"

status=0
"$SEVISOR" run --confidential none --policy 5 --firmware "$PLAIN_GUEST" </dev/null 2>"$WORK/err" || status=$?
[ "$status" -eq 35 ] || wrong "with a policy: exit code $status"

goes_through() {  # HOST IRQCHIP
  local status=0
  timeout $((30 * SLOW)) "$SEVISOR" run --confidential none --host "$1" --cpus 2 --memory 64M --firmware "$PLAIN_GUEST" \
    --irqchip "$2" --timeout $((25 * SLOW)) --json "$WORK/report.json" --record "$WORK/record" \
    </dev/null >"$WORK/out" 2>"$WORK/err" || status=$?
  echo "--host $1 --irqchip $2:"
  cat "$WORK/out"
  [ "$status" -eq 0 ] || wrong "on the $1 host: exit code $status: $(cat "$WORK/err")"
  [ "$(grep -c '^ok: ' "$WORK/out")" -eq 8 ] || wrong "on the $1 host: not all parts were gone through"
  console_has '^plain guest: PASS'
  grep -q '"confidential": "none"' "$WORK/report.json" || wrong "the report"
  grep -q "\"host\": \"$1\"" "$WORK/report.json" || wrong "the report's host"
  ! grep -q 'LAUNCH_\|MEMORY_ENCRYPT\|/dev/sev' "$WORK/record" || wrong "SEV calls for a plain guest"
}

goes_through emulated kernel
cp "$WORK/out" "$WORK/first"
goes_through emulated kernel
cmp "$WORK/out" "$WORK/first" || wrong "the second run differs from the first"
goes_through emulated split
if [ -r /dev/kvm ] && [ -w /dev/kvm ]; then
  goes_through kernel kernel
  goes_through kernel split
else
  echo "no /dev/kvm that this user may open: not on it"
fi

# The same guest as a suite of boot tests, on both hosts one after the other.
cat >"$WORK/plain.yaml" <<TEXT
defaults: {confidential: none, firmware: "$PLAIN_GUEST", memory: 64M, cpus: 2, timeout: $((60 * SLOW))}
cases:
  - {name: passes, steps: [{expect: "plain guest: PASS"}]}
TEXT
status=0
"$SEVISOR" test --host both "$WORK/plain.yaml" </dev/null >"$WORK/out" 2>"$WORK/err" || status=$?
[ "$status" -eq 0 ] || wrong "a suite on both hosts: exit code $status: $(cat "$WORK/out" "$WORK/err")"
console_has '^plain: 2 passed, 0 failed, 0 could not run'
verdict
