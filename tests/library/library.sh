#!/bin/bash
# Installs the library into a folder of its own, and builds and runs a program of another project with it.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d "${TMPDIR:-/tmp}/sevisor-library.XXXXXX")
trap 'rm -rf "$work"' EXIT

"$CMAKE" --install "$BUILD" --component library --prefix "$work/prefix" >"$work/log" || { cat "$work/log"; exit 1; }
"$CMAKE" -S "$here/consumer" -B "$work/build" -DCMAKE_PREFIX_PATH="$work/prefix" -DCMAKE_CXX_COMPILER="$CXX" \
  -DCMAKE_CXX_FLAGS="$CXX_FLAGS" >"$work/log" 2>&1 && "$CMAKE" --build "$work/build" >>"$work/log" 2>&1 ||
  { cat "$work/log"; exit 1; }
# As sev-snp-measure and virt-qemu-sev-validate have it for this image, in the form of KVM_SEV_ES_INIT.
expected=c66dff20fc852de2dd72a5c651176869957f715ea8462d622980b3a3edfb4adb
digest=$("$work/build/consumer" "$here/../data/measurement/fw/synth-highreset.fd" 3)
echo "$digest"
[ "$digest" = "$expected" ]
# An error is an exception with one line.
if "$work/build/consumer" "$here/../data/measurement/fw/synth-noreset.fd" 3; then exit 1; fi
