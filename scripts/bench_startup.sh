# shellcheck shell=bash
# ./dev bench --startup: from exec to a plain guest's first instruction on /dev/kvm, and what the process then has
# resident beside the guest's memory, of sevisor and of QEMU, in turn in one run.

startup_memory=64 # MiB of each guest

# column N FILE: the quartiles and the median of its numbers, as "MEDIAN FIRST THIRD".
column() {
  awk -v column="$1" '{ print $column }' "$2" | sort -n |
    awk '{ n[NR] = $1 } END { print n[int((NR + 1) / 2)], n[int((NR + 3) / 4)], n[int((3 * NR + 1) / 4)] }'
}

# row LABEL UNIT DIVISOR COLUMN
row() {
  local theirs ours
  theirs=$(column "$4" "$folder/startup.qemu")
  ours=$(column "$4" "$folder/startup.ours")
  awk -v label="$1" -v unit="$2" -v by="$3" -v theirs="$theirs" -v ours="$ours" 'BEGIN {
    split(theirs, q, " ")
    split(ours, s, " ")
    printf "%-38s %7.1f (%.1f-%.1f) %s %8.1f (%.1f-%.1f) %s %7.2f\n", label, q[1] / by, q[2] / by, q[3] / by, unit,
      s[1] / by, s[2] / by, s[3] / by, unit, s[1] / q[1] }'
}

bench_startup() {
  local runs=$1 run image=build/release/tests/integration/startup.fd one=build/release/tests/bench/bench_startup
  # Without the capability MSR of Intel's processors, which QEMU 7.2 cannot set in a guest on newer kernels.
  local qemu=(qemu-system-x86_64 -accel kvm -machine pc -cpu "host,arch-capabilities=off" -smp 1 -m "$startup_memory"
    -nodefaults -display none -serial stdio -no-reboot -bios "$image")
  local ours=(build/release/sevisor run --confidential none --host kernel --memory "${startup_memory}M"
    --firmware "$image" --log-level off)
  local folder=build/guest
  [ -r /dev/kvm ] && [ -w /dev/kvm ] || die "no /dev/kvm that this user may open: nothing to measure"
  mkdir -p "$folder"
  # Once each to warm the caches. Then in turn: what else runs on the machine disturbs both alike.
  "$one" "$startup_memory" "${qemu[@]}" >/dev/null && "$one" "$startup_memory" "${ours[@]}" >/dev/null ||
    die "the guest did not start"
  : >"$folder/startup.qemu"
  : >"$folder/startup.ours"
  for ((run = 0; run < runs; run++)); do
    "$one" "$startup_memory" "${qemu[@]}" >>"$folder/startup.qemu"
    "$one" "$startup_memory" "${ours[@]}" >>"$folder/startup.ours"
  done
  printf 'A plain guest of %s MiB and 1 CPU on /dev/kvm: median (quartiles) of %s runs, load %s\n\n' \
    "$startup_memory" "$runs" "$(cut -d ' ' -f 1 /proc/loadavg)"
  printf '%-38s %22s %22s %9s\n' '' QEMU sevisor ratio
  row 'exec to the first byte, clock' ms 1000 1
  row 'exec to the first byte, processor time' ms 1000 2
  row "resident beside the guest's memory" MiB 1024 3
}
