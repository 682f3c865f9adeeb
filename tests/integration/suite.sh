#!/bin/bash
# `sevisor test`: the ready suite's cases pass, and cases that must fail fail with a report that says why.
. "$(dirname "$0")/lib.sh"
need_guest
READY=$TESTS/../../share/suites/debian-boot.yaml

# suite CODE ARGS...: sevisor test ARGS; output in $WORK/out, $WORK/err.
suite() {
  local expected=$1 status=0
  shift
  timeout $((180 * SLOW)) "$SEVISOR" test --host emulated "$@" </dev/null >"$WORK/out" 2>"$WORK/err" || status=$?
  if [ "$status" -ne "$expected" ]; then
    wrong "exit code $status, expected $expected: sevisor test $*"
    tail -n 40 "$WORK/out" "$WORK/err"
  fi
}

# Those with many vCPUs take long; a person runs them.
suite 0 "$READY" --set KERNEL="$KERNEL" --set INITRD="$INITRD" \
  --filter '\[[12] vCPUs?\]|shell|told' --junit "$WORK/junit.xml" --json "$WORK/results.json" --logs "$WORK/logs"
console_has '^debian-boot: 6 passed, 0 failed, 0 could not run'
grep -q '<testsuite name="debian-boot" tests="6" failures="0" errors="0"' "$WORK/junit.xml" || wrong "the JUnit report"
[ "$(find "$WORK/logs" -name '*.log' -size +0 | wc -l)" -eq 6 ] || wrong "not six logs"
grep -q 'Linux version' "$WORK/logs/001-"* || wrong "the first log does not have the console"
suite 0 "$READY" --list
[ "$(wc -l <"$WORK/out")" -eq 13 ] || wrong "the ready suite has not 13 cases"

cat >"$WORK/bad.yaml" <<TEXT
defaults: {kernel: "$KERNEL", append: "console=ttyS0 panic=-1", timeout: $((60 * SLOW))}
cases:
  - {name: wrong kernel, kernel: /etc/passwd}
  - name: wrong measurement
    launch-digest: ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad
    steps: [{expect: "firmware: SEV-ES active"}, power-off]
  - name: hang
    append: console=ttyS0 panic=0 loglevel=0
    steps: [{expect: "sevisor firmware: kernel"}, {expect: "never said", timeout: 4}]
  - {name: panic, steps: [{expect: "login:"}]}
  - {name: reset, fail-on: [], steps: [{expect: "login:"}]}
  - {name: wrong exit, fail-on: []}
TEXT
HOME=$WORK suite 1 "$WORK/bad.yaml" --json "$WORK/results.json" --junit "$WORK/bad.xml"
if command -v xmllint >/dev/null; then
  for report in junit bad; do
    xmllint --noout --schema "$TESTS/../data/junit.xsd" "$WORK/$report.xml" 2>"$WORK/xmllint" || wrong "JUnit: $(cat "$WORK/xmllint")"
  done
fi
console_has 'bad: 0 passed, 5 failed, 1 could not run'
console_has 'could not run the guest \(exit code 35\): use the kernel ./etc/passwd.: it is '
console_has 'another guest was measured: launch digest [0-9a-f]{64}, expected ba7816bf'
console_has 'step 2 of 2 \(line 9: expect /never said/\) waited 4 s in vain'
console_has 'a line that matches /Kernel panic - not syncing/, during step 1 of 1'
console_has 'the line: .*Kernel panic - not syncing: VFS'
console_has 'exit code 32: the guest asked for a reset.*during step 1 of 1'
console_has 'exit code 32: the guest asked for a reset.*expected 0'

# The measurement that belongs to the guest, as `sevisor measure` computes it.
digest=$("$SEVISOR" measure --mode seves --vcpu-type EPYC-v4 --kernel "$KERNEL" --append 'console=ttyS0' --vcpus 1 )
cat >"$WORK/measured.yaml" <<TEXT
cases:
  - name: measured
    kernel: $KERNEL
    append: console=ttyS0
    launch-digest: $digest
    steps: [{expect: "firmware: SEV-ES active"}, power-off]
TEXT
HOME=$WORK suite 0 "$WORK/measured.yaml"

# Stopped from outside: nothing is left behind.
TMPDIR=$WORK "$SEVISOR" test --host emulated "$WORK/bad.yaml" --filter hang >"$WORK/out" 2>"$WORK/err" </dev/null &
test_pid=$!
until pgrep -P "$test_pid" -f 'append=.*loglevel=0' >"$WORK/child"; do
  kill -0 "$test_pid" 2>/dev/null || { wrong "it ended before it was stopped" && break; }
  sleep 0.1
done
child=$(head -n 1 "$WORK/child")
kill -TERM "$test_pid"
status=0
wait "$test_pid" || status=$?
[ "$status" -eq 143 ] || wrong "stopped by SIGTERM it ended with $status"
! kill -0 "$child" 2>/dev/null || wrong "a guest outlived SIGTERM"
[ -z "$(find "$WORK" -maxdepth 1 -name 'sevisor-case.*')" ] || wrong "temporary files are left"

"$SEVISOR" test --host emulated "$WORK/bad.yaml" --filter hang >"$WORK/out" 2>"$WORK/err" </dev/null &
test_pid=$!
until pgrep -P "$test_pid" -f 'append=.*loglevel=0' >"$WORK/child"; do sleep 0.1; done
child=$(head -n 1 "$WORK/child")
kill -KILL "$test_pid"
wait "$test_pid" 2>/dev/null
tenths=50
while kill -0 "$child" 2>/dev/null && [ $((tenths -= 1)) -gt 0 ]; do sleep 0.1; done
[ "$tenths" -gt 0 ] || wrong "a guest outlived SIGKILL of the suite"

# A guest that is killed: the report says by what, not what it said last.
"$SEVISOR" test --host emulated "$WORK/bad.yaml" --filter hang >"$WORK/out" 2>"$WORK/err" </dev/null &
test_pid=$!
until pgrep -P "$test_pid" -f 'append=.*loglevel=0' >"$WORK/child"; do sleep 0.1; done
kill -KILL "$(head -n 1 "$WORK/child")"
wait "$test_pid" 2>/dev/null
console_has 'exit code 137: ended by SIGKILL'

printf 'cases:\n  - name: a\n    kernal: x\n' >"$WORK/typo.yaml"
suite 35 "$WORK/typo.yaml"
grep -q "line 3, column 5: a case has no key 'kernal'" "$WORK/err" || wrong "a typo is not named"
suite 35 "$READY" --set KERNL="$KERNEL"
grep -q "has no variable 'KERNL'. There are: INITRD, KERNEL, MEMORY, POLICY" "$WORK/err" || wrong "an unknown variable is not named"
[ -s "$WORK/out" ] && wrong "an unknown variable: something was tested"
MEMORY=64 suite 0 "$READY" --list
grep -q 'MEMORY of the environment is not used' "$WORK/err" || wrong "a variable of the environment is left out without a word"
verdict
