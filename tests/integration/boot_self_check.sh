#!/bin/bash
# Debian's kernel boots as an SEV-ES guest, finds itself sound, and powers off: exit code 0 and a complete report.
. "$(dirname "$0")/lib.sh"
need_guest

run 0 --kernel "$KERNEL" --initrd "$INITRD" --memory 512M --cpus 1 --json "$WORK/report.json" \
  --append "console=ttyS0 panic=-1 sevisor.mode=check"
console_has '^Linux version 6\.|Linux version [0-9]'
console_has 'Memory Encryption Features active: AMD SEV SEV-ES'
console_has 'DMI: sevisor SEV-ES guest, BIOS 1 01/01/2026'
console_has '^sevisor-self-check: PASS'

if python3 -c 'import json' 2>/dev/null; then
  python3 - "$WORK/report.json" <<'PYTHON' || wrong "the report is not as documented"
import base64, json, sys
report = json.load(open(sys.argv[1]))
print(json.dumps(report, indent=1))
assert report["host"] == "emulated"
assert report["init_api"] == "KVM_SEV_ES_INIT"
assert int(str(report["policy"]), 0) == 5
assert all(isinstance(report[name], int) for name in ("api_major", "api_minor", "build_id"))
assert len(bytes.fromhex(report["launch_digest"])) == 32
assert len(base64.b64decode(report["measurement"], validate=True)) == 48
assert report["cpus"] == 1 and report["cpu_type"]
assert report["exit"]["code"] == 0 and report["exit"]["reason"]
PYTHON
else
  echo "no python3 with its library: the report's fields were not checked"
fi
verdict
