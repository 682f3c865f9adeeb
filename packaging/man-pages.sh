#!/bin/bash
# Writes the manual pages of `sevisor` and of each of its commands, from their --help, into a folder.
# usage: man-pages.sh SEVISOR VERSION FOLDER
set -euo pipefail
sevisor=$1 version=$2 folder=$3
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
mkdir -p "$folder"
rm -f "$folder"/sevisor*.1.gz

# The names in the block "Subcommands:" of a help.
subcommands() { awk '/^Subcommands:$/ { in_block = 1; next } /^$/ { in_block = 0 } in_block && /^  [^ ]/ { print $1 }'; }

# page SEE_ALSO COMMAND...: of this command and of those below it.
page() {
  local help name names=() references=$1
  shift
  help=$("$sevisor" "$@" --help)
  mapfile -t names < <(subcommands <<<"$help")
  for name in "${names[@]}"; do
    references+=${references:+, }$(printf '.BR sevisor' && printf '\\-%s' "$@" "$name" && printf ' (1)')
  done
  references=${references//, /,$'\n'}
  name=$(printf '%s ' sevisor "$@")
  name=${name% }
  awk -f "$here/man-page.awk" -v name="$name" -v version="$version" -v also="${references//\\/\\\\}" <<<"$help" |
    gzip -9n >"$folder/${name// /-}.1.gz"
  for name in "${names[@]}"; do page ".BR sevisor (1)" "$@" "$name"; done
}
page ""
