#!/bin/bash
# --trace writes lines of JSON that another program reads too; 'sevisor trace' sums them up, and refuses what is none.
. "$(dirname "$0")/lib.sh"
need_guest

run 0 --kernel "$KERNEL" --memory 256M --append "console=ttyS0" --expect 'Linux version [0-9.]+' --trace "$WORK/trace"

# Each line by itself, by a parser that is not ours. The firmware asks for the C-bit before it has a GHCB.
python3 - "$WORK/trace" <<'EOF' || wrong "the trace is not what docs/trace.md says"
import json, sys
lines = [json.loads(line) for line in open(sys.argv[1])]
assert lines[0] == {"trace": "sevisor", "version": 1}, lines[0]
kinds = {}
for line in lines[1:]:
    kinds.setdefault(line["ev"], []).append(line)
    assert isinstance(line["t"], int)
for kind in ("host", "psp", "vc", "vc_done", "vmgexit", "reply", "msr", "msr_reply", "exit"):
    assert kinds.get(kind), kind
names = [p["name"] for p in kinds["psp"]]
for name in ("INIT", "LAUNCH_START", "ACTIVATE", "LAUNCH_UPDATE_VMSA", "LAUNCH_MEASURE", "LAUNCH_FINISH"):
    assert name in names, names
assert kinds["host"][0]["name"] == "emulated"
# The run ends between a request and its answer at most.
assert len(kinds["vmgexit"]) - len(kinds["reply"]) in (0, 1)
assert len(kinds["msr"]) == len(kinds["msr_reply"])
out = [v for v in kinds["vmgexit"] if v["name"] == "IOIO" and v["port"] == "0x3f8" and v["dir"] == "out" and "value" in v]
text = "".join(chr(int(v["value"], 16)) for v in out)
assert "Linux version" in text, text[:200]
times = [line["t"] for line in lines[1:]]
# What the platform does is of no guest's time.
assert all(a <= b for a, b in zip(times, times[1:]) if b != 0)
EOF

"$SEVISOR" trace "$WORK/trace" --html "$WORK/page.html" >"$WORK/out" || wrong "sevisor trace failed"
console_has '^ +IOIO +[0-9]+'
console_has 'the slowest'
console_has 'timeline'
grep -q '<svg' "$WORK/page.html" || wrong "the page has no plot"
grep -qE 'https?:|src=|<script|@import' "$WORK/page.html" && wrong "the page refers to something outside"

# refused REGEX ARGS...: 35, one line on stderr.
refused() {
  local expected=$1 status=0
  shift
  "$SEVISOR" "$@" >"$WORK/out" 2>"$WORK/err" || status=$?
  if [ "$status" -ne 35 ] || [ "$(wc -l <"$WORK/err")" -ne 1 ] || ! grep -qE "$expected" "$WORK/err"; then
    wrong "exit code $status, $(cat "$WORK/err"): sevisor $*"
  fi
}
refused 'No such file' trace "$WORK/absent"
refused 'read the trace' trace "$WORK"
refused 'line 1: not a JSON object' trace "$TESTS/lib.sh"
{ cat "$WORK/trace" && echo '{"no":"time"}'; } >"$WORK/wrong"
refused "line [0-9]+: without a time" trace "$WORK/wrong"
refused 'write the report' trace "$WORK/trace" --html "$WORK/no/such/folder"
refused 'write the trace' run --host emulated --kernel "$KERNEL" --trace "$WORK/no/such/folder"
verdict
