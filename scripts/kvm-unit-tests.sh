# shellcheck shell=bash
# ./dev kvm-unit-tests: flat images of kvm-unit-tests on the emulated processor.

# Name, image, and what the runner gets: as x86/unittests.cfg has them.
kvm_unit_test_table() {
  cat <<'TABLE'
access     access_test
apic       apic      --smp 2
debug      debug
emulator   emulator
eventinj   eventinj
hypercall  hypercall
idt_test   idt_test
ioapic     ioapic    --smp 4
la57       la57
lam        lam
memory     memory
msr        msr
pcid       pcid
rdpru      rdpru
realmode   realmode
rmap_chain rmap_chain
setjmp     setjmp
sieve      sieve
smap       smap
smptest3   smptest   --smp 3
syscall    syscall
tsc        tsc
umip       umip
xsave      xsave
TABLE
}

dev_kvm-unit-tests() {
  local directory=${1:-}
  [ -d "$directory/x86" ] || die "./dev kvm-unit-tests DIR: the folder of kvm-unit-tests, configured with --arch=x86_64 and built"
  need_packages build
  build_preset release kvm_unit_test
  local name image log code options failed=0
  log=$(mktemp)
  while read -r name image options; do
    [ -f "$directory/x86/$image.flat" ] || die "there is no $directory/x86/$image.flat: run make there"
    code=0
    # shellcheck disable=SC2086 # several words
    timeout -k 2 300 build/release/tests/kvm_unit_tests/kvm_unit_test "$directory/x86/$image.flat" $options \
      </dev/null >"$log" 2>&1 || code=$?
    case $code in
      0) printf 'pass  %-10s %s\n' "$name" "$(grep -a '^SUMMARY' "$log" || true)" ;;
      77) printf 'skip  %-10s\n' "$name" ;;
      *)
        printf 'FAIL  %-10s exit %s\n' "$name" "$code"
        grep -a '^FAIL\|^---\|Unhandled' "$log" | sed 's/^/        /' || true
        failed=$((failed + 1))
        ;;
    esac
  done < <(kvm_unit_test_table)
  rm -f "$log"
  say "kvm-unit-tests: $failed with failures; docs/testing.md says which are expected"
}
