# shellcheck shell=bash
# ./dev fuzz [TARGET] [SECONDS]

dev_fuzz() {
  local target='' seconds=60 program name failed=()
  local -a programs options
  case $# in
    0) ;;
    1) if [[ $1 =~ ^[0-9]+$ ]]; then seconds=$1; else target=$1; fi ;;
    2) target=$1 seconds=$2 ;;
    *) die "usage: ./dev fuzz [TARGET] [SECONDS]" ;;
  esac
  [[ $seconds =~ ^[0-9]+$ ]] || die "SECONDS is a number, not '$seconds'"
  need_packages build fuzz
  target=${target#fuzz_}
  build_preset fuzz fuzz_targets
  mapfile -t programs < <(find build/fuzz -type f -name 'fuzz_*' -perm -u+x | sort)
  [ ${#programs[@]} -gt 0 ] || die "there are no fuzz targets"
  if [ -n "$target" ]; then
    mapfile -t programs < <(printf '%s\n' "${programs[@]}" | grep "/fuzz_$target\$")
    [ ${#programs[@]} -gt 0 ] || die "no fuzz target '$target'; there are: $(find build/fuzz -type f -name 'fuzz_*' \
      -perm -u+x -printf '%f ' | sed 's/fuzz_//g')"
  fi
  for program in "${programs[@]}"; do
    name=$(basename "$program")
    mkdir -p "build/fuzz/corpus/$name" build/fuzz/findings
    options=(-max_total_time="$seconds" -timeout=25 -rss_limit_mb=4096 -print_final_stats=1 -verbosity=0 -print_funcs=0
      -artifact_prefix="build/fuzz/findings/$name-")
    [ ! -f "tests/fuzz/${name#fuzz_}.dict" ] || options+=(-dict="tests/fuzz/${name#fuzz_}.dict")
    options+=("build/fuzz/corpus/$name")
    # What to start from.
    case $name in
      fuzz_footer_table | fuzz_firmware_facts) options+=(tests/data/measurement/fw) ;;
      fuzz_certificate) options+=(tests/data/certificates/naples tests/data/certificates/rome) ;;
    esac
    say "$name: $seconds s"
    "$program" "${options[@]}" || failed+=("$name")
  done
  [ ${#failed[@]} -eq 0 ] || die "fuzz: found by ${failed[*]}; the inputs are in build/fuzz/findings"
  say "fuzz: nothing found"
}
