#!/bin/bash
# A guest owner's way from end to end: session, launch, measurement verified, secret made for this launch, secret read in the
# guest; and what is changed on the way is refused with the reason. virt-qemu-sev-validate, if it is here, must agree.
. "$(dirname "$0")/lib.sh"
export XDG_DATA_HOME=$WORK/data

field() { sed -n "s/.*\"$1\": *\"\{0,1\}\([^\",]*\).*/\1/p" "$WORK/report.json"; }
# The options that tell what a platform reported.
claim() {
  printf '%s\n' --measurement "$(field measurement)" --api-major "$(field api_major)" --api-minor "$(field api_minor)" \
    --build-id "$(field build_id)" --policy "$(field policy)" --tik "$WORK/owner_tik.bin" --tek "$WORK/owner_tek.bin"
}

# launch CODE ARGS...: a run with the session; its report is in report.json.
launch() {
  local code=$1
  shift
  rm -f "$WORK/report.json"
  run "$code" --dh-cert "$WORK/owner_godh.b64" --session "$WORK/owner_session.b64" --memory 256M \
    --launch-report "$WORK/report.json" "$@"
}

# agree CPUS ARGS...: `sevisor verify` and virt-qemu-sev-validate accept the last launch.
agree() {
  local cpus=$1 claimed
  shift
  mapfile -t claimed < <(claim)
  "$SEVISOR" verify "${claimed[@]}" --num-cpus "$cpus" --cpu-type EPYC-v4 "$@" >"$WORK/verdict" 2>&1 ||
    wrong "sevisor verify, $cpus vCPUs: $(cat "$WORK/verdict")"
  [ ${#peer[@]} -gt 0 ] || return 0
  "${peer[@]}" "${claimed[@]}" --firmware "$FIRMWARE" --num-cpus "$cpus" --cpu-family 23 --cpu-model 1 --cpu-stepping 2 "$@" \
    >"$WORK/verdict" 2>&1 || wrong "virt-qemu-sev-validate, $cpus vCPUs: $(cat "$WORK/verdict")"
}

# The program's first line asks for any python3; Debian's own has Debian's lxml and libvirt.
peer=(/usr/bin/python3 /usr/bin/virt-qemu-sev-validate)
if ! "${peer[@]}" --help >/dev/null 2>&1; then
  echo "SKIP: virt-qemu-sev-validate is not here (packages libvirt-clients-qemu, python3-lxml)"
  peer=()
fi

"$SEVISOR" session --host emulated --policy 0x5 --out "$WORK/owner" >"$WORK/verdict" || wrong "no session could be made"

# Without a kernel: our firmware finds none and ends the guest (37), after it was measured.
for cpus in 1 2 8; do
  launch 37 --firmware "$FIRMWARE" --cpus "$cpus" && agree "$cpus"
done
echo "measurements without direct boot: agreed"

need_guest
cmdline="console=ttyS0 sevisor.mode=shell"
boot=(--kernel "$KERNEL" --initrd "$INITRD")
for cpus in 1 2 8; do
  launch 36 --cpus "$cpus" "${boot[@]}" --append "$cmdline" --timeout 1 &&
    agree "$cpus" "${boot[@]}" --cmdline "$cmdline"
done
echo "measurements with direct boot: agreed"

# The secret: a guest waits for it, gets it, and its owner's shell reads it where the firmware has left it.
printf 'the key to the disk 4f1d' >"$WORK/key"

# Two ways to make NAME_header and NAME_payload for the guest that waits.
# shellcheck disable=SC2317 # with_secret calls it
give_ours() {
  "$SEVISOR" secret --tik "$WORK/owner_tik.bin" --tek "$WORK/owner_tek.bin" --measurement "$(field measurement)" \
    --secret "luks-key:$WORK/key" --out "$WORK/secret" >"$WORK/verdict" || wrong "no secret could be made"
}
# shellcheck disable=SC2317
give_peers() {
  local claimed
  mapfile -t claimed < <(claim)
  "${peer[@]}" "${claimed[@]}" --firmware "$FIRMWARE" "${boot[@]}" --cmdline "$cmdline" --num-cpus 1 --cpu-family 23 \
    --cpu-model 1 --cpu-stepping 2 --inject-secret "luks-key:$WORK/key" --secret-payload "$WORK/secret_payload.b64" \
    --secret-header "$WORK/header.new" >"$WORK/verdict" 2>&1 || wrong "virt-qemu-sev-validate made no secret: $(cat "$WORK/verdict")"
  mv "$WORK/header.new" "$WORK/secret_header.b64"
}

# with_secret GIVE: launches a guest that waits, has GIVE make the secret, and looks for it in the guest.
with_secret() {
  local tenths=$((30 * 10 * SLOW)) status=0
  rm -f "$WORK"/secret_* "$WORK/report.json"
  # The shell reads the commands from its console once the kernel is up.
  # shellcheck disable=SC2016 # the guest expands it
  printf '%s\n' 'dd if=/sys/kernel/boot_params/setup_data/0/data bs=1 skip=40 count=24 2>/dev/null; echo ":secret-ends"' \
    'poweroff -f' >"$WORK/commands"
  "$SEVISOR" run --host emulated --dh-cert "$WORK/owner_godh.b64" --session "$WORK/owner_session.b64" --memory 256M \
    "${boot[@]}" --append "$cmdline" --launch-report "$WORK/report.json" --secret "$WORK/secret" --timeout $((150 * SLOW)) \
    <"$WORK/commands" >"$WORK/out" 2>"$WORK/err" &
  guest_pid=$!
  until [ -s "$WORK/report.json" ] || [ $((tenths -= 1)) -le 0 ]; do sleep 0.1; done
  "$1"
  wait "$guest_pid" || status=$?
  guest_pid=
  [ "$status" -eq 0 ] || wrong "$1: exit code $status: $(tail -n 3 "$WORK/err")"
  console_has 'the key to the disk 4f1d:secret-ends'
}
with_secret give_ours
[ ${#peer[@]} -eq 0 ] || with_secret give_peers
echo "secrets: read in the guest"
verdict
