# shellcheck shell=bash
# ./dev bench --startup: from exec to a plain guest's first instruction on /dev/kvm, and what the process then has
# resident beside the guest's memory, of sevisor and of QEMU, in turn in one run.

startup_memory=64 # MiB of each guest

# startup_of COMMAND...: prints "MICROSECONDS KIB": to the first byte of the guest on standard output; resident memory
# without the mapping that is the guest's RAM.
startup_of() {
  local start end pid line resident
  start=$EPOCHREALTIME
  exec {output}< <(exec "$@" </dev/null 2>/dev/null)
  pid=$!
  IFS= read -r -t 20 -n 1 -u "$output" line || line=
  end=$EPOCHREALTIME
  resident=$(awk -v ram="$((startup_memory * 1024))" '
    /^[0-9a-f]+-[0-9a-f]+ / { skip = 0 }
    /^Size:/ { skip = $2 >= ram && $2 < ram + 4096 }
    /^Rss:/ && !skip { sum += $2 }
    END { print sum + 0 }' "/proc/$pid/smaps" 2>/dev/null || echo 0)
  kill "$pid" 2>/dev/null || true
  exec {output}<&-
  wait "$pid" 2>/dev/null || true
  [ "$line" = S ] || die "the guest's first byte never came from: $*"
  echo "$((${end/./} - ${start/./})) $resident"
}

# The middle of the numbers on standard input.
middle() { sort -n | awk '{ n[NR] = $1 } END { print n[int((NR + 1) / 2)] }'; }

bench_startup() {
  local runs=$1 run image=build/release/tests/integration/startup.fd
  local qemu=(qemu-system-x86_64 -accel kvm -machine pc -cpu host -smp 1 -m "$startup_memory" -nodefaults
    -display none -serial stdio -no-reboot -bios "$image")
  local ours=(build/release/sevisor run --confidential none --host kernel --memory "${startup_memory}M"
    --firmware "$image" --log-level off)
  local folder=build/guest
  [ -r /dev/kvm ] && [ -w /dev/kvm ] || die "no /dev/kvm that this user may open: nothing to measure"
  mkdir -p "$folder"
  : >"$folder/startup.qemu"
  : >"$folder/startup.ours"
  for ((run = 0; run <= runs; run++)); do # the first one of each only warms the caches
    startup_of "${qemu[@]}" >>"$folder/startup.qemu"
    startup_of "${ours[@]}" >>"$folder/startup.ours"
  done
  local q s qm sm
  q=$(tail -n +2 "$folder/startup.qemu" | awk '{ print $1 }' | middle)
  s=$(tail -n +2 "$folder/startup.ours" | awk '{ print $1 }' | middle)
  qm=$(awk '{ print $2 }' "$folder/startup.qemu" | middle)
  sm=$(awk '{ print $2 }' "$folder/startup.ours" | middle)
  awk -v q="$q" -v s="$s" -v qm="$qm" -v sm="$sm" -v runs="$runs" 'BEGIN {
    printf "A plain guest of 64 MiB and 1 CPU on /dev/kvm, middle of %d runs\n\n", runs
    printf "%-44s %12s %12s %8s\n", "", "QEMU", "sevisor", "ratio"
    printf "%-44s %9.1f ms %9.1f ms %8.2f\n", "exec to the first byte of the guest", q / 1000, s / 1000, s / q
    printf "%-44s %8.1f MiB %8.1f MiB %8.2f\n", "resident beside the guest'"'"'s memory", qm / 1024, sm / 1024, sm / qm }'
}
