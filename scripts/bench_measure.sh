# shellcheck shell=bash
# ./dev bench --measure: the launch digest of a guest with 64 vCPUs, firmware, kernel and initrd, by `sevisor measure`; next to
# it `openssl dgst -sha256` over the same bytes and, if it is in PATH, sev-snp-measure.

# median_ms RUNS COMMAND...: the median wall-clock time, in milliseconds with two decimals.
median_ms() {
  local runs=$1 run start times=()
  shift
  for ((run = 0; run < runs; run++)); do
    start=${EPOCHREALTIME/./}
    "$@" >/dev/null || die "failed: $*"
    times+=("$((${EPOCHREALTIME/./} - start))")
  done
  printf '%s\n' "${times[@]}" | sort -n | awk -v n="$runs" 'NR == int((n + 1) / 2) { printf "%.2f\n", $1 / 1000 }'
}

# peak_kib COMMAND...: the largest resident size, in KiB.
peak_kib() {
  "$@" >/dev/null &
  local pid=$! peak=0 now
  while now=$(awk '/^VmHWM/ { print $2 }' "/proc/$pid/status" 2>/dev/null) && [ -n "$now" ]; do peak=$now; done
  wait "$pid"
  printf '%s\n' "$peak"
}

bench_measure() {
  local runs=$1 folder=build/guest/measure initrd firmware
  mkdir -p "$folder"
  firmware=build/release/firmware/sevisor-firmware.bin
  initrd=$folder/initrd
  head -c $((14 << 20)) /dev/urandom >"$initrd"
  truncate -s 2G "$folder/large" # sparse: takes no room
  local files=("$firmware" "$guest_kernel" "$initrd")
  local options=(--mode seves --vcpus 64 --vcpu-type EPYC-v4 --ovmf "$firmware" --kernel "$guest_kernel" --append console=ttyS0)
  local ours theirs digest
  ours=$(median_ms "$runs" build/release/sevisor measure "${options[@]}" --initrd "$initrd")
  digest=$(median_ms "$runs" openssl dgst -sha256 "${files[@]}")
  printf 'Launch digest of 64 vCPUs, firmware, kernel and initrd (%s bytes), median of %s runs\n\n' \
    "$(cat "${files[@]}" | wc -c)" "$runs"
  printf '%-26s %10s ms\n' 'sevisor measure' "$ours" 'openssl dgst -sha256' "$digest"
  if command -v sev-snp-measure >/dev/null; then
    theirs=$(median_ms 5 sev-snp-measure "${options[@]}" --initrd "$initrd")
    printf '%-26s %10s ms\n' sev-snp-measure "$theirs"
  fi
  awk -v a="$ours" -v b="$digest" -v c="${theirs:-450}" -v said="${theirs:+ (measured)}" 'BEGIN {
    printf "\n%.2f times the time of openssl; %.0f times as fast as sev-snp-measure at %.0f ms%s\n", a / b, c / a, c,
      said == "" ? " (what it was measured to take elsewhere; it is not here)" : said }'
  printf 'peak memory with an initrd of 2 GiB: %s KiB\n' \
    "$(peak_kib build/release/sevisor measure "${options[@]}" --initrd "$folder/large")"
  rm -r "$folder"
}
