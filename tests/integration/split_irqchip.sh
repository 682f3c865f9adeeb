#!/bin/bash
# split_irqchip.sh N: Debian's kernel boots to the self-check with N vCPUs, the IOAPIC in user space, and neither PICs nor a
# PIT; its console works by interrupts. The launch digest is the one with all controllers in the host.
. "$(dirname "$0")/lib.sh"
vcpus=$1
need_guest

run 0 --kernel "$KERNEL" --initrd "$INITRD" --memory 512M --cpus "$vcpus" --irqchip split --json "$WORK/report.json" \
  --record "$WORK/record" --append "console=ttyS0 panic=-1 sevisor.mode=check"
console_has '^sevisor-self-check: PASS'
console_has 'Using NULL legacy PIC'
console_has "smp: Brought up 1 node, $vcpus CPUs?"
console_has '16550A'
! grep -q 'KVM_CREATE_IRQCHIP\|KVM_CREATE_PIT2\|KVM_IRQ_LINE' "$WORK/record" || wrong "the host has more than local APICs"
grep -q 'KVM_SIGNAL_MSI' "$WORK/record" || wrong "no interrupt of a device was sent"

digest=$(sed -n 's/.*"launch_digest": *"\([0-9a-f]*\)".*/\1/p' "$WORK/report.json")
expected=$("$SEVISOR" measure --mode seves --vcpus "$vcpus" --vcpu-type EPYC-v4)
[ "$digest" = "$expected" ] || wrong "the run's digest is $digest, sevisor measure says $expected"
[ "$failures" -eq 0 ] || tail -n 25 "$WORK/out" "$WORK/err"

status=0
"$SEVISOR" run --irqchip none --kernel "$KERNEL" </dev/null >/dev/null 2>"$WORK/err" || status=$?
[ "$status" -eq 35 ] || wrong "an unknown --irqchip: exit code $status"
verdict
