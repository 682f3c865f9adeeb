#!/bin/bash
# The launch digest that a run reports is SHA-256(firmware || VMSAs), computed by an independent program.
. "$(dirname "$0")/lib.sh"
need_guest
command -v python3 >/dev/null || skip "no python3 for the independent computation"
[ -r "${FIRMWARE:-}" ] || skip "no firmware image in the build folder"

digest_of_report() { sed -n 's/.*"launch_digest": *"\([0-9a-f]*\)".*/\1/p' "$WORK/report.json"; }

# compare CPUS TYPE SIGNATURE ARGS...
compare() {
  local cpus=$1 type=$2 expected
  expected=$(python3 "$TESTS/launch_digest.py" "$FIRMWARE" "$cpus" "$3")
  shift 3
  run 36 --kernel "$KERNEL" --memory 512M --cpus "$cpus" --cpu-type "$type" --timeout 1 --json "$WORK/report.json" "$@" || return
  echo "$cpus x $type: $(digest_of_report)"
  [ "$(digest_of_report)" = "$expected" ] || wrong "$cpus x $type: the independent program says $expected"
}
compare 1 EPYC-v4 0x800f12
compare 1 EPYC-Milan 0xa00f11 --firmware "$FIRMWARE"
verdict
