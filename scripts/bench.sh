# shellcheck shell=bash
# ./dev bench: the same kernel and initrd to the same console line, in QEMU's TCG (which has no SEV) and in sevisor; then
# loads inside the guest (bench-loads.sh).

bench_line='sevisor-bench: userspace'

# time_to_line COMMAND...: prints "SECONDS PEAK_KIB" once the command's output has the line, then ends the command.
time_to_line() {
  local log=build/guest/bench.log line pid start end='' peak=0
  start=$EPOCHREALTIME
  exec {output}< <(exec "$@" </dev/null 2>&1)
  pid=$!
  : >"$log"
  while IFS= read -r -t 600 -u "$output" line; do
    printf '%s\n' "$line" >>"$log"
    if [[ $line == *"$bench_line"* ]]; then
      end=$EPOCHREALTIME
      # VmHWM is the largest resident size so far.
      peak=$(awk '/^VmHWM/ { print $2 }' "/proc/$pid/status" 2>/dev/null || echo 0)
      break
    fi
  done
  kill "$pid" 2>/dev/null || true
  exec {output}<&-
  if [ -z "$end" ]; then
    tail -n 20 "$log" >&2
    die "the line '$bench_line' never came from: $1 (whole output: $log)"
  fi
  awk -v a="$start" -v b="$end" -v k="${peak:-0}" 'BEGIN { printf "%.2f %d\n", b - a, k }'
}

dev_bench() {
  local runs=3 memory=512M append run figures
  local loads=yes measure=no startup=no
  while [ $# -gt 0 ]; do
    case $1 in
      --runs) runs=${2:?--runs needs a number}; shift ;;
      --boot-only) loads=no ;;
      --measure) measure=yes ;;
      --startup) startup=yes ;;
      --memory) memory=${2:?--memory needs a size}; shift ;;
      *) die "bench knows --runs N, --memory SIZE, --boot-only, --measure and --startup, not '$1'" ;;
    esac
    shift
  done
  need_packages build guest bench
  build_preset release sevisor
  if [ "$startup" = yes ]; then
    build_preset release startup_guest
    build_preset release bench_startup
    # shellcheck source=scripts/bench_startup.sh
    . scripts/bench_startup.sh
    bench_startup "$((runs * 7))"
    return
  fi
  # shellcheck source=scripts/guest.sh
  . scripts/guest.sh
  prepare_guest || exit 1
  if [ "$measure" = yes ]; then
    # shellcheck source=scripts/bench_measure.sh
    . scripts/bench_measure.sh
    bench_measure "$((runs * 7))"
    return
  fi
  append="console=ttyS0 panic=-1 sevisor.mode=bench"
  local guest=(-kernel "$guest_kernel" -initrd "$guest_initrd" -append "$append")
  local qemu_machine=(qemu-system-x86_64 -accel tcg -machine q35 -cpu max -smp 1 -m "$memory" -nodefaults -display none
    -serial stdio -no-reboot)
  local our_machine=(build/release/sevisor run --host emulated --cpus 1 --memory "$memory" --timeout 900)
  local qemu=("${qemu_machine[@]}" "${guest[@]}") ours=("${our_machine[@]}" "${guest[@]/#-/--}")
  local results=build/guest/bench.results
  : >"$results"
  for ((run = 1; run <= runs; run++)); do
    say "run $run of $runs: QEMU"
    figures=$(time_to_line "${qemu[@]}") || exit 1
    printf '%s ' "$figures" >>"$results"
    say "run $run of $runs: sevisor"
    figures=$(time_to_line "${ours[@]}") || exit 1
    printf '%s\n' "$figures" >>"$results"
  done
  awk -v line="$bench_line" -v memory="$memory" '
    function smaller(a, b) { return a == "" || b < a ? b : a }
    BEGIN { printf "Time to the console line \"%s\", 1 CPU, %s of memory\n\n", line, memory
            printf "%-6s %14s %14s %8s %14s %14s\n", "run", "QEMU TCG", "sevisor", "ratio", "QEMU peak", "sevisor peak" }
    { printf "%-6d %12.2f s %12.2f s %8.2f %10.0f MiB %10.0f MiB\n", NR, $1, $3, $3 / $1, $2 / 1024, $4 / 1024
      q = smaller(q, $1); s = smaller(s, $3) }
    END { printf "%-6s %12.2f s %12.2f s %8.2f\n", "best", q, s, s / q }' "$results"
  if [ "$loads" = yes ]; then
    # shellcheck source=scripts/bench-loads.sh
    . scripts/bench-loads.sh
    bench_guest_loads
  fi
}
