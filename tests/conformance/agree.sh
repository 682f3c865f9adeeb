#!/bin/bash
# Both hosts' notes, line by line: what the tests found that no document fixes must be the same on both.
set -u
program=$1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
for host in kernel emulated; do
  "$program" --host "$host" --notes "$work/$host" >"$work/out" 2>&1
  status=$?
  if [ "$status" -eq 77 ]; then
    cat "$work/out"
    exit 77
  fi
done
lines=$(wc -l <"$work/kernel")
if [ "$lines" -eq 0 ]; then
  echo "the tests noted nothing"
  exit 1
fi
if ! diff -u "$work/kernel" "$work/emulated"; then
  echo "the kernel's host (-) and the emulated one (+) differ"
  exit 1
fi
echo "$lines lines, the same on both hosts"
