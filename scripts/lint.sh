# shellcheck shell=bash
# ./dev lint

# The files git knows or would add, of the endings given; with --changed only those that differ from main.
listed_files() {
  local base=$1
  shift
  if [ -n "$base" ]; then
    { git diff --name-only --diff-filter=d "$base" -- "$@"; git ls-files --others --exclude-standard -- "$@"; } | sort -u
  else
    git ls-files -- "$@"
  fi
}

dev_lint() {
  local base='' cpp units scripts failed=()
  case ${1:-} in
    '') ;;
    --changed) base=$(git merge-base HEAD main) || die "there is no branch main to compare with" ;;
    *) die "lint knows only --changed, not '$1'" ;;
  esac
  need_packages build lint

  mapfile -t cpp < <(listed_files "$base" '*.cpp' '*.hpp')
  say "clang-format: ${#cpp[@]} files"
  [ ${#cpp[@]} -eq 0 ] || clang-format --dry-run -Werror "${cpp[@]}" || failed+=(clang-format)

  mapfile -t scripts < <(listed_files "$base" dev .ci/run scripts '*.sh')
  say "shellcheck: ${#scripts[@]} files"
  [ ${#scripts[@]} -eq 0 ] || shellcheck -x "${scripts[@]}" || failed+=(shellcheck)

  scripts/check-rooms.sh || failed+=(rooms)

  # Only what the build compiles has a compile command; generated headers must be there.
  build_preset release
  mapfile -t units < <(listed_files "$base" '*.cpp' | while read -r unit; do
    if grep -q "\"file\": \"$PWD/$unit\"" build/release/compile_commands.json; then echo "$unit"; fi
  done)
  say "clang-tidy: ${#units[@]} files"
  if [ ${#units[@]} -gt 0 ]; then
    printf '%s\0' "${units[@]}" | xargs -0 -n 1 -P "$(nproc)" clang-tidy -p build/release --quiet 2>/dev/null ||
      failed+=(clang-tidy)
  fi

  [ ${#failed[@]} -eq 0 ] || die "lint: ${failed[*]} had something to say"
  say "lint: clean"
}
