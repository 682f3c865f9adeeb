#!/bin/bash
# smp.sh N [KERNEL]: Debian's kernel with N vCPUs brings all of them up, the second and the last go offline and come back, poweroff
# ends with 0, and what was measured is what `sevisor measure` says of a guest with N vCPUs.
# KERNEL: whose KVM the emulated host is, as `run --kvm` has it.
# shellcheck disable=SC2016 # the guest expands them
. "$(dirname "$0")/lib.sh"
vcpus=$1
kvm=${2:+--kvm=$2}
need_guest

{
  echo 'cd /sys/devices/system/cpu'
  for cpu in 1 $((vcpus - 1)); do
    [ "$vcpus" -gt 1 ] || break
    echo "for on in 0 1; do echo \$on >cpu$cpu/online; echo \"cpu$cpu-\$(cat cpu$cpu/online)-of-\$(nproc)\"; done"
  done
  # Each CPU runs something once more.
  echo 'for cpu in $(seq 0 $(($(nproc) - 1))); do taskset -c $cpu true && ran=$((ran + 1)); done; echo ran-on-$ran'
  echo 'poweroff -f'
} >"$WORK/commands"
status=0
timeout $((180 * SLOW)) "$SEVISOR" run --host emulated ${kvm:+"$kvm"} --cpus "$vcpus" --memory 1G --kernel "$KERNEL" --initrd "$INITRD" \
  --append "console=ttyS0 sevisor.mode=shell" --json "$WORK/report.json" <"$WORK/commands" >"$WORK/out" 2>"$WORK/err" || status=$?
[ "$status" -eq 0 ] || wrong "exit code $status, expected 0"
console_has "smp: Brought up 1 node, $vcpus CPUs?"
for cpu in 1 $((vcpus - 1)); do
  [ "$vcpus" -gt 1 ] || break
  console_has "^cpu$cpu-0-of-$((vcpus - 1))"
  console_has "^cpu$cpu-1-of-$vcpus"
done
console_has "^ran-on-$vcpus"
# A processor that the firmware could not start, or left with other memory types than the first.
! grep -aE 'application processors started|BIOS bug|MTRRs? (had|disabled)|mtrr: your CPUs' "$WORK/out" || wrong "the firmware left something undone"

digest=$(sed -n 's/.*"launch_digest": *"\([0-9a-f]*\)".*/\1/p' "$WORK/report.json")
expected=$("$SEVISOR" measure --mode seves --vcpus "$vcpus" --vcpu-type EPYC-v4)
[ "$digest" = "$expected" ] || wrong "the run's digest is $digest, sevisor measure says $expected"
[ "$failures" -eq 0 ] || tail -n 25 "$WORK/out" "$WORK/err"
verdict
