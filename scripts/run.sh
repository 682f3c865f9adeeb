# shellcheck shell=bash
# ./dev run

# has_option NAME ARGS...: whether NAME or NAME=value is among the arguments.
has_option() {
  local name=$1 argument
  shift
  for argument in "$@"; do
    case $argument in "$name" | "$name="*) return 0 ;; esac
  done
  return 1
}

dev_run() {
  local sevisor=build/release/sevisor defaults=() mode=shell status=0 log
  need_packages build guest
  build_preset release sevisor
  if has_option --help "$@" || has_option -h "$@"; then
    exec "$sevisor" run "$@"
  fi
  # shellcheck source=scripts/guest.sh
  . scripts/guest.sh
  if ! has_option --kernel "$@" || ! has_option --initrd "$@"; then
    prepare_guest || exit 1
  fi
  on_terminal || mode=check
  has_option --kernel "$@" || defaults+=(--kernel "$guest_kernel")
  has_option --initrd "$@" || defaults+=(--initrd "$guest_initrd")
  has_option --memory "$@" || defaults+=(--memory 512M)
  if has_option --append "$@"; then
    mode=custom
  else
    defaults+=(--append "console=ttyS0 panic=-1 sevisor.mode=$mode")
  fi
  if [ "$mode" != check ] || has_option --initrd "$@"; then
    exec "$sevisor" run "${defaults[@]}" "$@"
  fi

  has_option --timeout "$@" || defaults+=(--timeout 300)
  log=$guest_dir/console.log
  "$sevisor" run "${defaults[@]}" "$@" </dev/null | tee "$log" || status=${PIPESTATUS[0]}
  # Powering off is not enough: the guest must have said that its check passed.
  if [ "$status" -eq 0 ] && ! has_option --expect "$@" && ! grep -q '^sevisor-self-check: PASS' "$log"; then
    die "the guest ended without passing its self-check; the log is $log"
  fi
  [ "$status" -eq 0 ] || say "sevisor run ended with $status; the log is $log"
  exit "$status"
}
