#!/bin/bash
# Input that cannot work: each ends at once with one line that names the culprit, the right exit code, and no traces.
. "$(dirname "$0")/lib.sh"

cd "$WORK" || exit 1
mkdir scratch empty_folder
export TMPDIR=$WORK/scratch
: >empty
head -c 300 /dev/zero >short
head -c 65536 /dev/zero >zeros_64k
head -c 65000 /dev/zero >zeros_odd

# A boot sector's worth of a bzImage is enough for checks that never get to run it.
if [ -r "$KERNEL" ]; then
  head -c 1000 "$KERNEL" >kernel_1000
  head -c 5000000 "$KERNEL" >kernel_half
fi

# refused CODE WORD ARGS...: one line on stderr that has WORD in it.
refused() {
  local code=$1 word=$2 status=0 lines
  shift 2
  timeout 60 "$SEVISOR" "$@" </dev/null >out 2>err || status=$?
  [ "$status" -eq "$code" ] || wrong "exit code $status, expected $code: sevisor $*"
  lines=$(grep -c . err)
  [ "$lines" -eq 1 ] || wrong "$lines lines on stderr, expected 1: sevisor $*"
  grep -qiF -- "$word" err || wrong "the message does not name '$word': sevisor $*"
  [ ! -s out ] || wrong "something on stdout: sevisor $*"
  [ -z "$(ls -A scratch)" ] || wrong "left behind in TMPDIR: $(ls -A scratch) by: sevisor $*"
  printf '%.200s\n      %.300s\n' "sevisor $*" "$(cat err)"
}

emulated=(run --host emulated)

refused 35 no_such_kernel "${emulated[@]}" --kernel no_such_kernel
refused 35 empty "${emulated[@]}" --kernel empty
refused 35 short "${emulated[@]}" --kernel short
refused 35 zeros_64k "${emulated[@]}" --kernel zeros_64k
refused 35 empty_folder "${emulated[@]}" --kernel empty_folder
if [ -r "$KERNEL" ]; then
  refused 35 kernel_1000 "${emulated[@]}" --kernel kernel_1000
  refused 35 kernel_half "${emulated[@]}" --kernel kernel_half
  refused 35 no_such_initrd "${emulated[@]}" --kernel "$KERNEL" --initrd no_such_initrd
  refused 35 empty "${emulated[@]}" --kernel "$KERNEL" --initrd empty
  refused 35 empty_folder "${emulated[@]}" --kernel "$KERNEL" --initrd empty_folder
  head -c 100000 "$INITRD" >initrd_cut
  refused 35 initrd_cut "${emulated[@]}" --kernel "$KERNEL" --initrd initrd_cut
  refused 35 no_such_firmware "${emulated[@]}" --kernel "$KERNEL" --firmware no_such_firmware
  refused 35 empty "${emulated[@]}" --kernel "$KERNEL" --firmware empty
  refused 35 zeros_odd "${emulated[@]}" --kernel "$KERNEL" --firmware zeros_odd
  refused 35 footer "${emulated[@]}" --kernel "$KERNEL" --firmware zeros_64k
  # Built with a 32-bit first stage, which cannot run as a SEV-ES guest.
  ovmf_4m=/usr/share/OVMF/OVMF_CODE_4M.fd
  [ ! -r "$ovmf_4m" ] || refused 35 '32-bit code' "${emulated[@]}" --kernel "$KERNEL" --firmware "$ovmf_4m"
  NOTIFY_SOCKET=relative refused 35 NOTIFY_SOCKET "${emulated[@]}" --kernel "$KERNEL"
  refused 35 vars "${emulated[@]}" --kernel "$KERNEL" --vars short
  for variables in no_such_vars empty short zeros_odd empty_folder; do
    refused 35 "$variables" "${emulated[@]}" --kernel "$KERNEL" --firmware zeros_64k --vars "$variables"
  done
  refused 35 no/such/folder "${emulated[@]}" --kernel "$KERNEL" --json no/such/folder/report.json
  refused 35 empty_folder "${emulated[@]}" --kernel "$KERNEL" --json empty_folder
  refused 35 append "${emulated[@]}" --kernel "$KERNEL" --append "$(printf 'x%.0s' {1..5000})"
  refused 35 memory "${emulated[@]}" --kernel "$KERNEL" --initrd "$INITRD" --memory 4M
  refused 38 kernel run --host kernel --kernel "$KERNEL"
fi
for size in 0 -1 1 many 12X 99999999999G 18446744073709551616 1K ''; do
  refused 35 memory "${emulated[@]}" --kernel empty --memory "$size"
done
for count in 0 -1 many 100000 18446744073709551617; do
  refused 35 cpus "${emulated[@]}" --kernel empty --cpus "$count"
done
refused 35 Pentium "${emulated[@]}" --kernel empty --cpu-type Pentium
refused 35 policy "${emulated[@]}" --kernel empty --policy 0x1
refused 35 policy "${emulated[@]}" --kernel empty --policy purple
refused 35 timeout "${emulated[@]}" --kernel empty --timeout soon
refused 35 timeout "${emulated[@]}" --kernel empty --timeout -5
refused 35 on-term "${emulated[@]}" --kernel empty --on-term never
refused 35 stop-timeout "${emulated[@]}" --kernel empty --stop-timeout 5
refused 35 stop-timeout "${emulated[@]}" --kernel empty --on-term poweroff --stop-timeout 0
refused 35 expect "${emulated[@]}" --kernel empty --expect '('
refused 35 LAUNCH_START "${emulated[@]}" --kernel "$KERNEL" --inject-failure LAUNCH_STRAT
refused 35 log-level "${emulated[@]}" --kernel empty --log-level shout
refused 35 host run --host moon --kernel empty
refused 35 no-such-option "${emulated[@]}" --no-such-option
refused 35 no-such-command no-such-command
refused 35 command
refused 35 kernel "${emulated[@]}"

verdict
