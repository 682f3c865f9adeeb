# shellcheck shell=bash
# Speech and small helpers that every part of ./dev uses.

say() { printf '==> %s\n' "$*" >&2; }
die() {
  printf 'dev: %s\n' "$*" >&2
  exit 1
}

# Both ends of the conversation are a person's terminal.
on_terminal() { [ -t 0 ] && [ -t 1 ]; }

# quietly WHAT COMMAND...: runs the command with its output in a log. On a terminal a line counts the seconds; the log's
# end is shown only if the command fails.
quietly() {
  local what=$1 log pid started=$SECONDS status=0
  shift
  mkdir -p build/log
  log=build/log/$(basename "$1").log
  say "$what"
  if [ -t 2 ]; then
    "$@" </dev/null >"$log" 2>&1 &
    pid=$!
    while kill -0 "$pid" 2>/dev/null; do
      printf '\r    %d s  %.90s\033[K' $((SECONDS - started)) "$(tail -n 1 "$log" | tr -dc '[:print:]')" >&2
      sleep 0.5
    done
    printf '\r\033[K' >&2
    wait "$pid" || status=$?
  else
    "$@" </dev/null >"$log" 2>&1 || status=$?
  fi
  if [ "$status" -ne 0 ]; then
    tail -n 30 "$log" >&2
    printf 'dev: failed with %d: %s (whole log: %s)\n' "$status" "$*" "$log" >&2
  fi
  return "$status"
}
