#!/bin/bash
# A PE executable that is no bzImage goes to UEFI firmware as it is; sevisor's own firmware starts none, and measure agrees.
. "$(dirname "$0")/lib.sh"
need_guest
OVMF=/usr/share/OVMF/OVMF_CODE.fd
[ -r "$OVMF" ] || skip "no $OVMF (package ovmf)"

# Debian's kernel is both: without the setup header's magic number it is an EFI executable alone.
cp "$KERNEL" "$WORK/kernel.efi"
printf 'none' | dd of="$WORK/kernel.efi" bs=1 seek=$((0x202)) conv=notrunc status=none

run 35 --kernel "$WORK/kernel.efi"
grep -q 'it is an EFI application (PE), which only UEFI firmware starts' "$WORK/err" || wrong "not said what it is: $(cat "$WORK/err")"
measure=("$SEVISOR" measure --mode seves --vcpus 1 --vcpu-type EPYC-v4 --kernel "$WORK/kernel.efi")
! "${measure[@]}" 2>"$WORK/err" || wrong "measure has a digest of a guest that does not start"
grep -q 'it is an EFI application' "$WORK/err" || wrong "measure does not say what it is: $(cat "$WORK/err")"

run 0 --firmware "$OVMF" --kernel "$WORK/kernel.efi" --initrd "$INITRD" --append "console=ttyS0 sevisor.mode=check" \
  --timeout $((120 * SLOW))
console_has 'Memory Encryption Features active: AMD SEV SEV-ES'
console_has 'sevisor-self-check: PASS'
verdict
