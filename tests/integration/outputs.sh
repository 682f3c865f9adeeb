#!/bin/bash
# Files that commands write: through links and descriptors, each its own, and none is lost without a word.
. "$(dirname "$0")/lib.sh"
cd "$WORK" || exit 1
export XDG_DATA_HOME=$WORK/data

# lost CODE WORD COMMAND...: with standard output to the file $to it ends with CODE and says WORD on stderr.
to=out
lost() {
  local expected=$1 word=$2 status=0
  shift 2
  "$@" </dev/null >"$to" 2>err || status=$?
  [ "$status" -eq "$expected" ] || wrong "exit code $status, expected $expected: $*"
  [ -z "$word" ] || grep -qF -- "$word" err || wrong "no word of '$word' by: $* ($(tail -n 1 err))"
}
measure=("$SEVISOR" measure --mode seves --vcpus 1 --vcpu-type EPYC-v4)

# Standard output of each command on a full disk.
to=/dev/full
for command in '--help' '--version' 'run --help' 'firmware' 'firmware --json' 'doctor --host emulated' \
  'certs show --host emulated' 'measure --mode sev'; do
  # shellcheck disable=SC2086 # words
  lost 35 'standard output' "$SEVISOR" $command
done
lost 35 'standard output' "${measure[@]}"
to=out
# Whoever reads no further is no error.
for command in '--help' 'firmware' 'run --help'; do
  # shellcheck disable=SC2086
  "$SEVISOR" $command 2>err | head -n 1 >/dev/null
  status=${PIPESTATUS[0]}
  [ "$status" -eq 0 ] || [ "$status" -eq 141 ] || wrong "exit code $status: $command | head -1"
  [ ! -s err ] || wrong "$command | head -1 complains: $(cat err)"
done

# Through a link and a descriptor.
printf 'an old report' >real
ln -s real link
ln -s /proc/self/fd/1 out_link
"$SEVISOR" doctor --host emulated --json link >/dev/null || wrong "doctor --json link"
[ -L link ] && grep -q '"can_run"\|"verdict"\|{' real || wrong "a link was replaced"
"$SEVISOR" doctor --host emulated --json out_link >both || wrong "doctor --json out_link"
[ -L out_link ] || wrong "a link to standard output was replaced"
grep -q '^{' both && grep -q 'SEV-ES guests' both || wrong "standard output has not both, the report and the text"
"$SEVISOR" doctor --host emulated --json - >both || wrong "doctor --json -"
grep -q '^{' both || wrong "--json - does not go to standard output"
[ ! -e ./- ] || wrong "a file named - was made"

# One file cannot be two things, by whatever name.
printf 'x' >kernel
ln kernel hard
ln -s kernel soft
for name in kernel ./kernel "$WORK/kernel" hard soft; do
  lost 35 'it is the file of --kernel too' "$SEVISOR" run --host emulated --kernel kernel --json "$name"
  [ "$(cat kernel)" = x ] || wrong "the kernel was written to: $name"
done
lost 35 'it is the file of --json too' "$SEVISOR" run --host emulated --kernel kernel --json new --trace ./new
[ ! -e new ] || wrong "a file was made for nothing"
lost 35 'it is the file of FILE too' "$SEVISOR" trace kernel --html soft
lost 35 'it is the file of --junit too' "$SEVISOR" test kernel --junit r --json r
lost 35 'it is the file of suite too' "$SEVISOR" test kernel --junit kernel
to=both
lost 35 'it is the file of standard output too' "$SEVISOR" doctor --host emulated --json both
to=out

# A run that fails to start tells so in its report.
echo stale >report.json
lost 35 'use the kernel' "$SEVISOR" run --host emulated --kernel kernel --json report.json
grep -q '"code": 35' report.json || wrong "the report of a run without a guest: $(cat report.json)"
lost 38 'LAUNCH_START' "$SEVISOR" run --host emulated --firmware "$FIRMWARE" --inject-failure LAUNCH_START:1:EIO:7 --json report.json
grep -q '"code": 38' report.json && grep -q 'LAUNCH_START' report.json || wrong "the report of a failed launch: $(cat report.json)"

# Each output of a run on a full disk. The firmware alone ends by itself: it finds no kernel (37).
alone=("$SEVISOR" run --host emulated --firmware "$FIRMWARE" --memory 64M)
for option in --json --record --trace --launch-report; do
  lost 35 "$option" "${alone[@]}" "$option" /dev/full
done
lost 35 'record' "${alone[@]}" --record /dev/full --json report.json
grep -q '"code": 35' report.json && grep -q 'SEV termination.*record' report.json || wrong "the report of a lost record: $(cat report.json)"

need_guest
cat >suite.yaml <<TEXT
defaults: {kernel: "$KERNEL", append: console=ttyS0}
cases:
  - {name: a, steps: [{expect: "Linux version"}, power-off]}
TEXT
mkdir logs
ln -s /dev/full "logs/001-a-emulated.log"
lost 1 '' "$SEVISOR" test suite.yaml --host emulated --logs logs
grep -q 'its log could not be written: No space left' out || wrong "a log that was lost: $(cat out)"
lost 35 '--junit' "$SEVISOR" test suite.yaml --host emulated --junit /dev/full
"$SEVISOR" run --host emulated --kernel "$KERNEL" --append console=ttyS0 --timeout 60 </dev/null 2>err | head -n 5 >/dev/null
[ "${PIPESTATUS[0]}" -eq 141 ] || wrong "run | head -5: $(tail -n 1 err)"
verdict
