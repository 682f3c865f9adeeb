#!/bin/bash
# ovmf_boot.sh N [SUITE]: Debian's unmodified OVMF starts as an SEV-ES guest with N vCPUs, boots Debian's kernel with an
# initrd (handed over by fw_cfg), and the guest's digest is that of `sevisor measure --ovmf`. It is the machine's own, or
# that of another Debian release (trixie, sid), whose package lies unpacked in build/matrix/SUITE.
. "$(dirname "$0")/lib.sh"
vcpus=$1
suite=${2:-}
if [ -n "$suite" ]; then
  ovmf=$(compgen -G "$MATRIX_DIR/$suite/*/usr/share/OVMF/OVMF_CODE_4M.fd" | head -n 1)
  [ -n "$ovmf" ] || skip "no OVMF_CODE_4M.fd of Debian $suite in $MATRIX_DIR"
else
  ovmf=/usr/share/OVMF/OVMF_CODE.fd
  [ -r "$ovmf" ] || ovmf=/usr/share/OVMF/OVMF_CODE_4M.fd # there is no other from Debian 13 on
fi
variables=${ovmf/_CODE/_VARS}
[ -r "$ovmf" ] && [ -r "$variables" ] || skip "no $ovmf and $variables (package ovmf)"
need_guest

boot() {
  run 0 --firmware "$ovmf" --cpus "$vcpus" --memory 512M --kernel "$KERNEL" --initrd "$INITRD" --json "$WORK/report.json" \
    --append "console=ttyS0 panic=-1 sevisor.mode=check" "$@"
}

# One's own variables are kept, the package's are copied.
if [ "$vcpus" -eq 1 ]; then
  cp "$variables" "$WORK/vars.fd"
  boot --vars "$WORK/vars.fd"
else
  before=$(sha256sum <"$variables")
  boot
  [ "$(sha256sum <"$variables")" = "$before" ] || wrong "the run changed $variables"
fi
console_has 'efi: EFI v2\.[0-9]+ by (Debian distribution of )?EDK II'
console_has 'Memory Encryption Features active: AMD SEV SEV-ES'
[ "$vcpus" -eq 1 ] || console_has "smp: Brought up 1 node, $vcpus CPUs"
console_has '^sevisor-self-check: PASS'

digest=$(sed -n 's/.*"launch_digest": *"\([0-9a-f]*\)".*/\1/p' "$WORK/report.json")
expected=$("$SEVISOR" measure --mode seves --vcpus "$vcpus" --vcpu-type EPYC-v4 --ovmf "$ovmf")
[ "$digest" = "$expected" ] || wrong "the run's digest is $digest, sevisor measure says $expected"

# The firmware finds its variables again: the second boot writes less.
if [ "$vcpus" -eq 1 ]; then
  # Names are UTF-16.
  tr -d '\0' <"$WORK/vars.fd" | grep -aq BootOrder || wrong "there is no BootOrder in the variables after a boot"
  fresh=$(cmp -l "$variables" "$WORK/vars.fd" | wc -l)
  cp "$WORK/vars.fd" "$WORK/first.fd"
  boot --vars "$WORK/vars.fd"
  console_has '^sevisor-self-check: PASS'
  changed=$(cmp -l "$WORK/first.fd" "$WORK/vars.fd" | wc -l)
  echo "bytes of the variables that the first boot changed: $fresh, the second: $changed"
  [ "$changed" -lt "$fresh" ] || wrong "the second boot began from nothing"
fi
verdict
