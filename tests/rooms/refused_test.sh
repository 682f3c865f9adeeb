#!/bin/bash
# What scripts/check-rooms.sh must refuse, in a small tree of its own.
set -euo pipefail
check=$1
tree=$(mktemp -d)
trap 'rm -rf "$tree"' EXIT
failures=0

# A tree that is right: vmm/low is below vmm/high.
fresh() {
  rm -rf "${tree:?}"/*
  mkdir -p "$tree"/{docs,base,vmm/low/part,vmm/high}
  cat >"$tree/docs/architecture.md" <<'TABLE'
| room | job | may use |
|---|---|---|
| `base/` | types | nothing |
| `vmm/low/` | files | base |
| `vmm/high/` | runs | base, vmm/low |
TABLE
  echo '#include "vmm/low/a.hpp"' >"$tree/vmm/high/run.cpp"
  echo '#include "vmm/low/a.hpp"' >"$tree/vmm/low/part/b.cpp"
  echo 'sevisor_room(vmm_high SOURCES run.cpp USES sevisor_vmm_low sevisor_base fmt::fmt)' >"$tree/vmm/high/CMakeLists.txt"
}

# expect STATUS TEXT: what the check ends with, and what it says.
expect() {
  local status=0 output
  output=$("$check" "$tree" 2>&1) || status=$?
  [ "$status" = "$1" ] && [[ $output == *"$2"* ]] && return
  printf 'ended with %s, said: %s\n  instead of %s and: %s\n' "$status" "$output" "$1" "$2"
  failures=$((failures + 1))
}

fresh
expect 0 'rooms: 2 includes of 3 rooms'

fresh
echo '#include "vmm/high/run.hpp"' >"$tree/vmm/low/a.hpp"
expect 1 'vmm/low/a.hpp:1: vmm/low may not use vmm/high'

fresh
echo '#include "tests/help.hpp"' >>"$tree/vmm/high/run.cpp"
expect 1 'vmm/high/run.cpp:2: uses a folder that is no room'

fresh
echo 'sevisor_room(vmm_low SOURCES a.cpp USES sevisor_vmm_high)' >"$tree/vmm/low/CMakeLists.txt"
expect 1 'vmm/low/CMakeLists.txt:1: vmm/low may not use vmm/high'

fresh
printf 'sevisor_room(vmm_low\n  SOURCES a.cpp\n  USES fmt::fmt\n       sevisor_vmm_high)\n' >"$tree/vmm/low/CMakeLists.txt"
expect 1 'vmm/low/CMakeLists.txt:4: vmm/low may not use vmm/high'

fresh
sed -i 's/files | base/files | base, vmm\/high/' "$tree/docs/architecture.md"
expect 1 'vmm/low lists vmm/high, which is no room above it'

fresh
mkdir "$tree/vmm/other" && echo '#include "base/x.hpp"' >"$tree/vmm/other/x.cpp"
expect 1 'vmm/other/x.cpp: lies in no room'

fresh
: >"$tree/docs/architecture.md"
expect 1 'no table of rooms'

exit "$((failures > 0))"
