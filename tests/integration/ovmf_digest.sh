#!/bin/bash
# The launch digest with Debian's OVMF is the one that other programs compute. The values in the table are
# sev-snp-measure 0.0.13's, with the x87 and SSE control words as KVM_SEV_ES_INIT leaves them (that is also what
# virt-qemu-sev-validate computes).
. "$(dirname "$0")/lib.sh"

ovmf=/usr/share/OVMF/OVMF_CODE.fd
[ -r "$ovmf" ] || skip "no $ovmf (package ovmf)"
need_guest
known=d9b568def24088c92f34b5479e0ed7e44d0a4d4cea8a0f5716719180bba48106
[ "$(sha256sum <"$ovmf" | cut -d ' ' -f 1)" = "$known" ] || skip "$ovmf is another version than the one with known digests"

digest_of_report() { sed -n 's/.*"launch_digest": *"\([0-9a-f]*\)".*/\1/p' "$WORK/report.json"; }

checked=0
while read -r cpus type digest; do
  # The digest is known before the first instruction runs: the shortest time limit will do.
  run 36 --firmware "$ovmf" --kernel "$KERNEL" --memory 512M --cpus "$cpus" --cpu-type "$type" --timeout 1 \
    --json "$WORK/report.json" || continue
  [ "$(digest_of_report)" = "$digest" ] || wrong "$cpus x $type: launch digest $(digest_of_report), expected $digest"
  checked=$((checked + 1))
done <<'TABLE'
1 EPYC eba1359b4bdf7745d72c9de18582cbb352f81d55c4cedaa428cc7559db8dfbf8
1 EPYC-v4 eba1359b4bdf7745d72c9de18582cbb352f81d55c4cedaa428cc7559db8dfbf8
1 EPYC-Milan-v2 6f280a7a8c8c81ab6212c255bf0c6c556ebe3682add621050984ae0ead641270
TABLE
echo "$checked digests compared"
verdict
