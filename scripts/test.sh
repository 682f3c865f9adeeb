# shellcheck shell=bash
# ./dev test

# Passes ctest's output on as it comes, but keeps its closing line ("100% tests passed, 0 tests failed out of N") for the end.
closing_line_last() {
  awk '/^[0-9]+% tests passed, / { closing = $0; next } { print; fflush() } END { if (closing != "") print closing }'
}

dev_test() {
  local preset=release options=() status=0
  while [ $# -gt 0 ]; do
    case $1 in
      --asan) preset=asan ;;
      --debug) preset=debug ;;
      *) options+=("$1") ;;
    esac
    shift
  done
  need_packages build guest test package
  (need_packages peer) || say "No virt-qemu-sev-validate: the tests that compare with it will say that they skip it"
  build_preset "$preset"
  # shellcheck source=scripts/guest.sh
  . scripts/guest.sh
  prepare_guest || say "No guest kernel: the tests that boot one will be skipped"
  say "Running the tests"
  # ctest reads no input: a guest's console must not eat the caller's.
  {
    ctest --test-dir "build/$preset" --output-on-failure --parallel "$(nproc)" "${options[@]}" </dev/null 2>&1 || status=$?
    grep -ah '^SKIP: ' "build/$preset/Testing/Temporary/LastTest.log" || true
    exit "$status"
  } | closing_line_last || status=$?
  return "$status"
}
