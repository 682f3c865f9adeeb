#!/bin/sh
# reproducible.sh SOURCE BUILD: the firmware built again, in another folder, is the same bit for bit.
set -eu
source=$1
build=$2
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
value() { sed -n "s/^$1:[A-Z]*=//p" "$build/CMakeCache.txt"; }
cmake -S "$source" -B "$work/other" -G Ninja -DCMAKE_BUILD_TYPE="$(value CMAKE_BUILD_TYPE)" \
  -DCMAKE_CXX_COMPILER="$(value CMAKE_CXX_COMPILER)" -DCMAKE_C_COMPILER="$(value CMAKE_C_COMPILER)" >"$work/log" 2>&1 ||
  { cat "$work/log"; exit 1; }
# Without a compiler cache: it would return the same object.
CCACHE_DISABLE=1 cmake --build "$work/other" --target firmware/sevisor-firmware.bin >"$work/log" 2>&1 || { cat "$work/log"; exit 1; }
cmp "$build/firmware/sevisor-firmware.bin" "$work/other/firmware/sevisor-firmware.bin"
echo "the same: $(sha256sum <"$build/firmware/sevisor-firmware.bin")"
