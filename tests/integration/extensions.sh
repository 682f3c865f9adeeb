#!/bin/bash
# A static program that uses every extension the guest is offered prints the same in the guest as on the host.
. "$(dirname "$0")/lib.sh"
need_guest
: "${EXTENSIONS:?the program}"
command -v cpio >/dev/null || skip "no cpio to make an initrd with"

# What the program is compiled for; names as in /proc/cpuinfo.
read -r flags < <(sed -n 's/^flags[[:space:]]*://p' /proc/cpuinfo)
for name in avx avx2 fma f16c aes pclmulqdq sha_ni vaes vpclmulqdq bmi1 bmi2 adx movbe popcnt abm fsgsbase rdrand rdseed rdpid \
  cx16 clflushopt clwb xsaveopt xsavec xgetbv1; do
  case " $flags " in *" $name "*) ;; *) skip "this machine's processor has no $name" ;; esac
done

mkdir "$WORK/tree"
cp "$EXTENSIONS" "$WORK/tree/init"
(cd "$WORK/tree" && echo init | cpio --quiet -o -H newc) >"$WORK/initrd"
"$EXTENSIONS" >"$WORK/expected" || wrong "the program fails on the host"
run 0 --kernel "$KERNEL" --initrd "$WORK/initrd" --memory 512M --append "console=ttyS0 panic=-1 quiet"
tr -d '\r' <"$WORK/out" | grep -a '^extensions: ' >"$WORK/printed"
tail -n 1 "$WORK/printed" | grep -qx 'extensions: complete' || wrong "the program did not end in the guest"
grep -q WRONG "$WORK/expected" && wrong "the program finds mistakes on the host"
console_has '^everything that CPUID offers was used' || grep -a '^unused' "$WORK/out"
diff "$WORK/expected" "$WORK/printed" || wrong "guest and host differ"
verdict
