#!/bin/bash
# Guests of 256 MiB and of 8 GiB see the memory they were given; above 2816 MiB it continues at 4 GiB.
. "$(dirname "$0")/lib.sh"
need_guest

# usable SIZE MIB_AT_LEAST MIB_AT_MOST: what the kernel counts as its memory.
usable() {
  local kib
  run 0 --kernel "$KERNEL" --initrd "$INITRD" --memory "$1" --append "console=ttyS0" --expect 'Memory: [0-9]+K/[0-9]+K available.*' || return
  kib=$(sed -n 's/^.*Memory: [0-9]*K\/\([0-9]*\)K available.*$/\1/p' "$WORK/out" | head -n 1)
  echo "$1: the kernel counts ${kib:-nothing} KiB"
  [ "${kib:-0}" -ge $(($2 * 1024)) ] && [ "${kib:-0}" -le $(($3 * 1024)) ] || wrong "not the memory of a guest of $1"
}
usable 256M 250 256
usable 8G 8180 8192
verdict
