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
# Made with KVM_SEV_INIT2, against our own tool, which known answers of others are for.
compare_init2() {
  local expected
  expected=$("$SEVISOR" measure --mode seves --vcpus 2 --vcpu-type EPYC-v4 --ovmf "$FIRMWARE" --init-api init2)
  run 36 --kernel "$KERNEL" --memory 512M --cpus 2 --timeout 1 --json "$WORK/report.json" --init-api "$1" || return
  [ "$(digest_of_report)" = "$expected" ] || wrong "--init-api $1: sevisor measure says $expected"
  grep -q '"init_api": "KVM_SEV_INIT2"' "$WORK/report.json" || wrong "the report does not say KVM_SEV_INIT2"
}
compare_init2 init2
compare_init2 auto
grep -q 'init-api auto: KVM_SEV_INIT2' "$WORK/err" || wrong "--init-api auto does not say what it chose"
compare 1 EPYC-Milan 0xa00f11 --firmware "$FIRMWARE"
verdict
