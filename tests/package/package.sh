#!/bin/bash
# The installed tree and the Debian package: the program runs from them, its firmware is the one it has built in, each command has a
# manual page and is completed, and the demo guest boots.
. "$(dirname "$0")/../integration/lib.sh"
: "${BUILD:?the build folder}" "${CMAKE:?}" "${CPACK:?}"

# A tree as it is below /.
check_tree() {
  local root=$1 usr=$1/usr commands command built_in installed
  "$usr/bin/sevisor" --version | grep -q '^sevisor [0-9]' || wrong "$root: the program does not run"

  installed=$(sha256sum <"$usr/share/sevisor/sevisor-firmware.bin" | cut -d ' ' -f 1)
  built_in=$("$usr/bin/sevisor" firmware --json | sed -n 's/.*"sha256": "\([0-9a-f]*\)".*/\1/p')
  [ -n "$built_in" ] && [ "$installed" = "$built_in" ] || wrong "$root: the installed firmware is not the built-in one"
  "$usr/bin/sevisor" firmware "$usr/share/sevisor/sevisor-firmware.bin" >/dev/null || wrong "$root: the firmware is not read"

  commands=$("$usr/bin/sevisor" --help | awk '/^Subcommands:$/ { b = 1; next } /^$/ { b = 0 } b && /^  [^ ]/ { print $1 }')
  [ "$(wc -w <<<"$commands")" -ge 7 ] || wrong "the help lists few commands: $commands"
  for command in '' $commands; do
    local page=$usr/share/man/man1/sevisor${command:+-$command}.1.gz
    if ! [ -s "$page" ]; then
      wrong "$root: there is no manual page of '$command'"
      continue
    fi
    zcat "$page" | grep -q '^\.SH OPTIONS' || wrong "$page has no options"
    if command -v groff >/dev/null; then
      [ -z "$(zcat "$page" | groff -man -Tutf8 -ww -z 2>&1)" ] || wrong "$page: $(zcat "$page" | groff -man -Tutf8 -ww -z 2>&1)"
    fi
  done
  zcat "$usr/share/man/man1/sevisor-run.1.gz" | grep -q 'kernel\\-hashes' || wrong "the manual page of run has not its options"

  complete_words "$usr" sevisor '' | grep -qx measure || wrong "$root: commands are not completed"
  complete_words "$usr" sevisor run --init- | grep -qx -- --init-api || wrong "$root: options are not completed"
  complete_words "$usr" sevisor run --init-api '' | grep -qx init2 || wrong "$root: choices are not completed"
  complete_words "$usr" sevisor run --cpu-type EPYC-M | grep -qx EPYC-Milan-v2 || wrong "$root: CPU types are not completed"
  complete_words "$usr" sevisor run --host = em | grep -qx emulated || wrong "$root: --host=em is not completed"
  complete_words "$usr" sevisor help fir | grep -qx firmware || wrong "$root: 'help' is not completed"
  [ -s "$usr/share/zsh/vendor-completions/_sevisor" ] || wrong "$root: there is no completion for zsh"
  if command -v fish >/dev/null; then
    PATH="$usr/bin:$PATH" fish -c "source $usr/share/fish/vendor_completions.d/sevisor.fish; complete -C 'sevisor run --host em'" |
      grep -qx emulated || wrong "$root: fish does not complete choices"
  fi
  complete_words "$usr" sevisor certs '' | grep -qx export || wrong "$root: commands of a command are not completed"
  [ -s "$usr/lib/systemd/system/sevisor@.service" ] || wrong "$root: there is no unit for systemd"
  if command -v systemd-analyze >/dev/null; then
    # It looks for the program where the unit will: not in this tree, which is the one thing that it may say.
    SYSTEMD_LOG_LEVEL=warning systemd-analyze verify --man=no "$usr/lib/systemd/system/sevisor@.service" 2>&1 |
      grep -v 'Command .*sevisor.* is not executable' >"$WORK/unit"
    [ ! -s "$WORK/unit" ] || wrong "$root: the unit: $(cat "$WORK/unit")"
  fi
  [ -s "$usr/share/doc/sevisor/copyright" ] || wrong "$root: no licence"
}

# complete_words USR WORD...: what bash would complete the last word to.
complete_words() {
  PATH="$1/bin:$PATH" bash -c 'source "$1"; shift; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _sevisor
    printf "%s\n" "${COMPREPLY[@]}"' complete "$1/share/bash-completion/completions/sevisor" "${@:2}"
}

if ! DESTDIR=$WORK/installed "$CMAKE" --install "$BUILD" --component runtime --prefix /usr >"$WORK/log" 2>&1; then
  tail -n 5 "$WORK/log"
  wrong "it does not install"
  verdict
fi
check_tree "$WORK/installed"
echo "installed: as expected"

if command -v dpkg-shlibdeps >/dev/null && command -v file >/dev/null && [ "$SLOW" -eq 1 ]; then
  "$CPACK" --config "$BUILD/CPackConfig.cmake" -B "$WORK/cpack" -D CPACK_OUTPUT_FILE_PREFIX="$WORK/packages" >"$WORK/log" 2>&1 ||
    wrong "no packages are made: $(tail -n 5 "$WORK/log")"
  for package in sevisor libsevisor-dev; do
    deb=$(find "$WORK/packages" -name "${package}_*.deb")
    [ -n "$deb" ] || wrong "there is no package $package"
  done
  deb=$(find "$WORK/packages" -name 'sevisor_*.deb')
  dpkg-deb -f "$deb" Depends | grep -q 'libssl3.*libzydis' || wrong "it depends on: $(dpkg-deb -f "$deb" Depends)"
  dpkg-deb -x "$deb" "$WORK/unpacked"
  check_tree "$WORK/unpacked"
  dpkg-deb -c "$(find "$WORK/packages" -name 'libsevisor-dev_*.deb')" | grep 'include/sevisor/sev/sev.hpp' >/dev/null ||
    wrong "libsevisor-dev has no headers"
  echo "package: as expected"
else
  echo "SKIP: the Debian package (dpkg-dev and file are not here, or this is a build with sanitizers)"
fi

# In a Debian 12 that has nothing yet, with the command that docs/install.md gives, and the demo guest from there. It takes a
# minute, root and a mirror: PACKAGE_CHROOT is what `debootstrap --variant=minbase bookworm DIR` made; the package stays in it.
if [ -z "${PACKAGE_CHROOT:-}" ] || [ -z "${deb:-}" ] || [ ! -r "$KERNEL" ]; then
  echo "SKIP: the package in a fresh Debian 12 (PACKAGE_CHROOT is not set, or there is no package or kernel)"
else
  inside() { unshare --mount --pid --fork --root="$PACKAGE_CHROOT" --wd=/root --mount-proc "$@"; }
  cp "$deb" "$KERNEL" "$PACKAGE_CHROOT/root/"
  cp /etc/resolv.conf "$PACKAGE_CHROOT/etc/" 2>/dev/null
  status=0
  inside sh -c 'apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y ./sevisor_*.deb' >"$WORK/log" 2>&1 || status=$?
  [ "$status" -eq 0 ] || wrong "apt install of the package ends with $status: $(tail -n 5 "$WORK/log")"
  inside sevisor doctor --host emulated >"$WORK/log" 2>&1 || wrong "sevisor doctor: $(tail -n 5 "$WORK/log")"
  inside timeout 150 sevisor-demo /root/vmlinuz --host emulated --memory 256M </dev/null >"$WORK/out" 2>"$WORK/err" || status=$?
  [ "$status" -eq 0 ] || wrong "sevisor-demo ends with $status: $(tail -n 3 "$WORK/err")"
  console_has '^sevisor-self-check: PASS'
  echo "a fresh Debian 12: as expected"
fi

[ -r "$KERNEL" ] && [ -x "$GUEST_DIR/busybox" ] && command -v cpio >/dev/null ||
  { echo "SKIP: the demo guest: no kernel, busybox or cpio" && verdict; }
mkdir "$WORK/bin"
ln -s "$(readlink -f "$GUEST_DIR/busybox")" "$WORK/bin/busybox"
status=0
PATH=$WORK/bin:$PATH timeout $((150 * SLOW)) "$WORK/installed/usr/bin/sevisor-demo" "$KERNEL" --host emulated --memory 256M \
  </dev/null >"$WORK/out" 2>"$WORK/err" || status=$?
[ "$status" -eq 0 ] || wrong "sevisor-demo ends with $status: $(tail -n 3 "$WORK/err")"
console_has '^sevisor-self-check: PASS'
verdict
