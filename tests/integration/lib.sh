# shellcheck shell=bash
# What the tests that run the `sevisor` binary share. CTest gives SEVISOR (the binary), GUEST_DIR (kernel and initrd as
# ./dev prepares them) and SLOW (how many times slower than a release build this one is).

set -u
: "${SEVISOR:?the path of the sevisor binary}" "${GUEST_DIR:?the folder with vmlinuz and initrd.cpio}"
SLOW=${SLOW:-1}
KERNEL=$GUEST_DIR/vmlinuz
INITRD=$GUEST_DIR/initrd.cpio
# shellcheck disable=SC2034 # used by the scripts that read this one
TESTS=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
WORK=$(mktemp -d "${TMPDIR:-/tmp}/sevisor-test.XXXXXX")
trap 'clean_up' EXIT
failures=0
guest_pid=

clean_up() {
  [ -z "$guest_pid" ] || kill -KILL "$guest_pid" 2>/dev/null
  rm -rf "$WORK"
}

# CTest takes 77 for "skipped" (SKIP_RETURN_CODE).
skip() {
  echo "SKIP: $*"
  exit 77
}

wrong() {
  echo "WRONG: $*"
  failures=$((failures + 1))
}

# Ends a test: 0 only if nothing was wrong.
verdict() {
  [ "$failures" -eq 0 ] || exit 1
  echo "all as expected"
  exit 0
}

need_guest() {
  [ -r "$KERNEL" ] && [ -r "$INITRD" ] || skip "no guest kernel in $GUEST_DIR; ./dev test downloads one"
}

# run CODE ARGS...: sevisor run ARGS with its output in $WORK/out and $WORK/err; the exit code must be CODE.
run() {
  local expected=$1 status=0
  shift
  timeout $((150 * SLOW)) "$SEVISOR" run --host emulated "$@" </dev/null >"$WORK/out" 2>"$WORK/err" || status=$?
  if [ "$status" -ne "$expected" ]; then
    wrong "exit code $status, expected $expected: sevisor run $*"
    tail -n 15 "$WORK/out" "$WORK/err"
    return 1
  fi
}

# console_has REGEX: the console of the last run matches (grep -E; a line ends in CR LF).
console_has() { grep -aqE "$1" "$WORK/out" || wrong "the console never said: $1"; }

need_terminal() {
  script --quiet --return --command true /dev/null </dev/null >/dev/null 2>&1 ||
    skip "no terminal can be made (script(1) of package bsdutils, /dev/pts)"
}

# A guest with a terminal for its console, which script(1) makes. Its screen goes to $WORK/screen.
start_on_terminal() {
  local command
  printf -v command '%q ' "$SEVISOR" run --host emulated --timeout $((150 * SLOW)) "$@"
  mkfifo "$WORK/keys"
  script --quiet --flush --return --command "exec $command" /dev/null <"$WORK/keys" >"$WORK/screen" 2>&1 &
  guest_pid=$!
  exec {keys}>"$WORK/keys"
}

type_text() { printf '%s' "$1" >&"$keys"; }
# Enter is a carriage return.
type_line() { type_text "$1"$'\r'; }

# wait_for REGEX SECONDS: the screen shows it before long, or the test ends.
wait_for() {
  local tenths=$(($2 * 10 * SLOW))
  until grep -aqE "$1" "$WORK/screen"; do
    if ! kill -0 "$guest_pid" 2>/dev/null || [ $((tenths -= 1)) -le 0 ]; then
      tail -n 20 "$WORK/screen"
      wrong "the screen never showed: $1"
      verdict
    fi
    sleep 0.1
  done
}

# wait_for_end CODE: the guest ends by itself with this exit code.
wait_for_end() {
  local tenths=$((60 * 10 * SLOW)) status=0
  while kill -0 "$guest_pid" 2>/dev/null && [ $((tenths -= 1)) -gt 0 ]; do sleep 0.1; done
  [ "$tenths" -gt 0 ] || wrong "the run did not end"
  [ "$tenths" -gt 0 ] || kill -KILL "$guest_pid"
  wait "$guest_pid" || status=$?
  guest_pid=
  [ "$status" -eq "$1" ] || {
    tail -n 20 "$WORK/screen"
    wrong "exit code $status, expected $1"
  }
}

# Reading another process's memory may be forbidden (Yama, containers).
need_guest_memory() {
  dd if="/proc/$guest_pid/mem" of=/dev/null bs=1 count=0 2>/dev/null || skip "the memory of a process of ours may not be read"
}

# in_guest_memory TEXT LOG: how often TEXT stands in the memory that the VMM mapped for the guest, as the log (at level
# debug) tells. grep -z: a line ends at a zero byte, so that empty memory does not become one long line.
in_guest_memory() {
  local start size count=0 found mappings=0
  while read -r size start; do
    found=$(dd if="/proc/$guest_pid/mem" bs=1M iflag=skip_bytes,count_bytes skip="$((start))" count="$size" 2>"$WORK/dd" |
      grep -azoF "$1" | tr '\0' '\n' | grep -c .)
    count=$((count + found)) mappings=$((mappings + 1))
  done < <(tr -d '\r' <"$2" | sed -n 's/^.*guest memory from .*: \([0-9]*\) bytes, mapped at \(0x[0-9a-f]*\).*$/\1 \2/p')
  [ "$mappings" -gt 0 ] || { echo "the VMM does not say where it maps guest memory" && return; }
  echo "$count"
}
