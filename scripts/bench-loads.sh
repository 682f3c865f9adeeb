# shellcheck shell=bash disable=SC2154 # guest_* come from guest.sh, the two machines from dev_bench
# Loads inside the guest for ./dev bench: the same initrd in QEMU's TCG and in sevisor, timed by the host's clock between
# the lines that the guest prints (tests/bench/guest-init).

bench_loads='sha256sum gzip pointers floats x87 processes'

# The initrd of the loads: busybox, the loads built here, and their init.
build_load_initrd() {
  local tree=$guest_dir/bench-initrd
  rm -rf "$tree"
  mkdir -p "$tree"/{bin,dev,proc,tmp}
  install -m 0755 "$guest_busybox" "$tree/bin/busybox"
  install -m 0755 tests/bench/guest-init "$tree/init"
  ln -s busybox "$tree/bin/sh"
  g++ -std=c++20 -O2 -static -o "$tree/bin/loads" tests/bench/loads.cpp || die "the benchmark's loads could not be built"
  (cd "$tree" && find . | LC_ALL=C sort | cpio --quiet -o -H newc -R 0:0) >"$guest_dir/bench-loads.cpio"
}

# time_loads COMMAND...: prints "NAME SECONDS RESULT..." for each load.
time_loads() {
  local line pid name='' begin=0 result='' now log=build/guest/bench-loads.log
  exec {output}< <(exec "$@" </dev/null 2>&1)
  pid=$!
  : >"$log"
  while IFS= read -r -t 900 -u "$output" line; do
    now=$EPOCHREALTIME
    line=${line%$'\r'}
    printf '%s\n' "$line" >>"$log"
    case $line in
      *bench-begin*) name=${line##*bench-begin } begin=$now result='' ;;
      *bench-end*) awk -v n="$name" -v a="$begin" -v b="$now" -v r="$result" 'BEGIN { printf "%s %.2f %s\n", n, b - a, r }' ;;
      *bench-done*) break ;;
      *) result=${line// /_} ;;
    esac
  done
  kill "$pid" 2>/dev/null || true
  exec {output}<&-
  [[ ${line:-} == *bench-done* ]] || die "the loads did not come to their end in: $1 (whole output: $log)"
}

# bench_guest_loads MEMORY: uses the arrays `qemu_machine` and `our_machine` of dev_bench.
bench_guest_loads() {
  local append="console=ttyS0 panic=-1" guest name
  build_load_initrd
  guest=(-kernel "$guest_kernel" -initrd "$guest_dir/bench-loads.cpio" -append "$append")
  say "loads in the guest: QEMU"
  time_loads "${qemu_machine[@]}" "${guest[@]}" >build/guest/loads.qemu
  say "loads in the guest: sevisor"
  time_loads "${our_machine[@]}" "${guest[@]/#-/--}" >build/guest/loads.ours
  printf '\nLoads inside the guest\n\n%-12s %14s %14s %8s  %s\n' load 'QEMU TCG' sevisor ratio results
  for name in $bench_loads; do
    awk -v name="$name" '
      $1 == name { n++; t[n] = $2; r[n] = $3 }
      END { printf "%-12s %12.2f s %12.2f s %8.2f  %s\n", name, t[1], t[2], t[2] / t[1], r[1] == r[2] ? "same" : "DIFFERENT" }
    ' build/guest/loads.qemu build/guest/loads.ours
  done
}
