#!/bin/bash
# A kernel of this machine with Debian's own initrd reaches the initrd's prompt, and commands typed there run.
# shellcheck disable=SC2016 # the guest expands them
. "$(dirname "$0")/lib.sh"

kernel='' initrd=''
for initrd in /boot/initrd.img-*-amd64; do
  kernel=/boot/vmlinuz-${initrd#/boot/initrd.img-}
  [ -r "$kernel" ] && [ -r "$initrd" ] && break
  kernel=''
done
[ -n "$kernel" ] || skip "no kernel with its initrd in /boot that this user may read (package linux-image-cloud-amd64)"

# No root file system is named: the initrd looks for one, then gives up and starts a shell.
printf 'echo sum-$((40+2))\npoweroff -f\n' >"$WORK/commands"
status=0
timeout $((150 * SLOW)) "$SEVISOR" run --host emulated --memory 512M --kernel "$kernel" --initrd "$initrd" \
  --append "console=ttyS0" <"$WORK/commands" >"$WORK/out" 2>"$WORK/err" || status=$?
[ "$status" -eq 0 ] || wrong "exit code $status, expected 0"
console_has '\(initramfs\)'
console_has 'sum-42'
[ "$failures" -eq 0 ] || tail -n 20 "$WORK/out" "$WORK/err"
verdict
