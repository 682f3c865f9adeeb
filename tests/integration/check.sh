#!/bin/bash
# --check: the firmware does nothing that it finds; what it finds in Debian's kernel is in docs/check.md, and nothing else.
. "$(dirname "$0")/lib.sh"
need_guest

run 0 --kernel "$KERNEL" --initrd "$INITRD" --memory 512M --append "console=ttyS0 quiet panic=-1 sevisor.mode=bench" \
  --check --json "$WORK/report"
python3 - "$WORK/report" <<'EOF' || wrong "what --check found is not what docs/check.md says"
import json, sys
findings = json.load(open(sys.argv[1]))["check"]
known = {
    ("register-exposed", "upper bytes of RCX with CPUID"),
    ("reply-unchecked", "RAX is read before its valid bit"),
    ("reply-unchecked", "RDX is read before its valid bit"),
    ("c-bit-mismatch", "a read with C=1 of what was written with C=0"),
    ("c-bit-mismatch", "a read with C=0 of what was written with C=1"),
}
for finding in findings:
    assert (finding["rule"], finding["detail"]) in known, finding
    # The firmware lies in the last 64 KiB below 4 GiB.
    assert not 0xffff0000 <= int(finding["rip"], 16) <= 0xffffffff, finding
EOF
[ "$(grep -c 'check: ' "$WORK/err")" -gt 0 ] || wrong "nothing is said at the end of the run"

if grep -q '"rule"' "$WORK/report"; then
  run 33 --kernel "$KERNEL" --initrd "$INITRD" --memory 512M --check=fail \
    --append "console=ttyS0 quiet panic=-1 sevisor.mode=bench"
fi
run 35 --kernel "$KERNEL" --check=maybe
verdict
