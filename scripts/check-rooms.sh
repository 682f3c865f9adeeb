#!/bin/bash
# Holds every #include and every library's USES to the table of rooms in docs/architecture.md: a room uses those that its
# row lists, and a row lists only rooms above it, so there are no cycles. Says each place that breaks it; ends with 1 then.
set -euo pipefail
cd "${1:-$(dirname "${BASH_SOURCE[0]}")/..}"

folders=()
for folder in base interrupts ghcb sev kvm devices emulator host_preload firmware vmm; do
  [ ! -d "$folder" ] || folders+=("$folder")
done
mapfile -t files < <(find "${folders[@]}" \( -name '*.[ch]pp' -o -name '*.[hS]' -o -name CMakeLists.txt \) | LC_ALL=C sort)

awk '
  function complain(place, text) { printf "%s: %s\n", place, text; bad = 1 }

  # The longest room that begins the path; "" if none does.
  function room_of(path,    folder) {
    for (folder = path; sub(/\/[^\/]*$/, "", folder); ) if (folder in row) return folder
    return ""
  }

  # The room of a library, by its name: emulator_cpu is emulator/cpu, and kvm_abi a part of kvm.
  function room_of_library(name,    folder) {
    for (folder = name; ; sub(/_[^_]*$/, "", folder)) {
      if (folder in library_room) return library_room[folder]
      if (folder !~ /_/) return ""
    }
  }

  function check(place, user, used) {
    if (used == "") return complain(place, "uses a folder that is no room of docs/architecture.md")
    if (user != used && !((user, used) in may)) complain(place, user " may not use " used " (docs/architecture.md, Rooms)")
  }

  FILENAME == "docs/architecture.md" {
    if ($0 !~ /^\| `[a-z_\/]+\/` \|/) next
    split($0, cell, / *\| */)
    room = cell[2]
    gsub(/[`]|\/`$/, "", room)
    sub(/\/$/, "", room)
    row[room] = FNR
    name = room
    gsub(/\//, "_", name)
    library_room[name] = room
    count = cell[4] == "nothing" ? 0 : split(cell[4], list, /, */)
    for (i = 1; i <= count; i++) {
      if (!(list[i] in row)) complain(FILENAME ":" FNR, room " lists " list[i] ", which is no room above it")
      may[room, list[i]] = 1
    }
    rooms++
    next
  }

  FILENAME ~ /CMakeLists\.txt$/ {
    if (match($0, /^sevisor_room\([a-z_0-9]+/)) { user = room_of(FILENAME); uses = 0 }
    if ($0 ~ /USES/) uses = 1
    if (user == "" || !uses) next
    line = $0
    sub(/^sevisor_room\([a-z_0-9]+/, "", line)
    while (match(line, /sevisor_[a-z_0-9]+/)) {
      check(FILENAME ":" FNR, user, room_of_library(substr(line, RSTART + 8, RLENGTH - 8)))
      line = substr(line, RSTART + RLENGTH)
    }
    if (/\)/) { user = ""; uses = 0 }
    next
  }

  /^ *#include "/ {
    included = $0
    sub(/^[^"]*"/, "", included)
    sub(/".*/, "", included)
    # Files of one room may name each other without the path.
    if (included !~ /\//) next
    user = room_of(FILENAME)
    if (user == "") complain(FILENAME, "lies in no room of docs/architecture.md")
    else check(FILENAME ":" FNR, user, room_of(included))
    includes++
    user = ""
  }

  END {
    if (rooms == 0 || includes == 0) complain("docs/architecture.md", "no table of rooms, or no sources")
    if (!bad) printf "rooms: %d includes of %d rooms are as docs/architecture.md has them\n", includes, rooms
    exit bad
  }
' docs/architecture.md "${files[@]}"
