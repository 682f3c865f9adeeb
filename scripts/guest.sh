# shellcheck shell=bash
# Prepares build/guest: Debian's unmodified kernel, a static busybox, and an initrd made of it. Installs nothing.

guest_dir=build/guest
guest_kernel=$guest_dir/vmlinuz
guest_busybox=$guest_dir/busybox
guest_initrd=$guest_dir/initrd.cpio

# Downloads the kernel's real package and busybox-static. The arguments are options for apt.
download_debs() {
  local kernel
  # The metapackage depends on the package that holds the newest kernel.
  kernel=$(apt-cache "$@" depends linux-image-cloud-amd64 2>/dev/null |
    sed -n 's/^ *Depends: \(linux-image-[0-9].*-cloud-amd64\)$/\1/p' | head -n 1)
  if [ -z "$kernel" ]; then
    echo "the package lists do not know linux-image-cloud-amd64" >&2
    return 1
  fi
  mkdir -p "$guest_dir/deb"
  rm -f "$guest_dir"/deb/*.deb
  (cd "$guest_dir/deb" && apt-get "$@" download "$kernel" busybox-static)
}

# Tries the machine's package lists first; when they are absent or stale, lists of our own, which need no root.
fetch_debs() {
  local own=$PWD/$guest_dir/apt as_me=(-o APT::Sandbox::User=root) # no switch to the user _apt, who may not write here
  download_debs "${as_me[@]}" && return 0
  mkdir -p "$own/lists/partial" "$own/cache/archives/partial"
  as_me+=(-o "Dir::State::lists=$own/lists" -o "Dir::Cache=$own/cache" -o Acquire::Retries=1)
  apt-get "${as_me[@]}" update && download_debs "${as_me[@]}"
}

# Takes the two files out of the downloaded packages.
unpack_debs() {
  local deb files=$guest_dir/unpacked
  rm -rf "$files"
  for deb in "$guest_dir"/deb/*.deb; do
    dpkg-deb -x "$deb" "$files" || return 1
  done
  # The modules are most of the package and no guest of ours loads one.
  rm -rf "$files/lib/modules" "$files/usr/lib/modules"
  adopt "$(echo "$files"/boot/vmlinuz-*)" "$guest_kernel" && adopt "$files/bin/busybox" "$guest_busybox"
}

# adopt FILE AS: copies a file so that AS is either whole or not there.
adopt() { cp "$1" "$2.new" && mv "$2.new" "$2"; }

# Without network: a kernel that this machine boots from will do.
take_local_kernel() {
  local file
  for file in /boot/vmlinuz-*-cloud-amd64 /boot/vmlinuz-*-amd64; do
    if [ -r "$file" ] && adopt "$file" "$guest_kernel"; then
      say "Taking the kernel $file"
      return 0
    fi
  done
  return 1
}

take_local_busybox() {
  local file
  for file in /bin/busybox /usr/bin/busybox; do
    # busybox-static has no interpreter; the dynamic busybox would not start in an initrd without its libraries.
    if [ -x "$file" ] && ! grep -q -a '/ld-linux-x86-64' "$file" && adopt "$file" "$guest_busybox"; then
      return 0
    fi
  done
  return 1
}

# What a Debian kernel has as modules and a guest needs to hear the power button. Without the package there are none, as
# with a kernel of this machine; then the guest does not hear it.
take_button_modules() {
  local module deb
  mkdir -p "$guest_dir/modules"
  deb=$(compgen -G "$guest_dir/deb/linux-image-*.deb" | head -n 1) || return 0
  for module in drivers/acpi/button.ko drivers/input/evdev.ko; do
    [ -s "$guest_dir/modules/${module##*/}" ] ||
      dpkg-deb --fsys-tarfile "$deb" | tar -xO --wildcards "./lib/modules/*/kernel/$module" \
        >"$guest_dir/modules/${module##*/}" || return 1
  done
}

# The initrd holds busybox, our /init, two modules and empty folders. Times and owners are fixed, so the same input gives
# the same file.
build_initrd() {
  local tree=$guest_dir/initrd
  if [ "$guest_initrd" -nt "$guest_busybox" ] && [ "$guest_initrd" -nt scripts/guest-init ] && [ -d "$guest_dir/modules" ]; then
    return 0
  fi
  take_button_modules || return 1
  rm -rf "$tree"
  mkdir -p "$tree"/{bin,dev,lib,proc,root,sys,tmp}
  cp -r "$guest_dir/modules" "$tree/lib/modules"
  install -m 0755 "$guest_busybox" "$tree/bin/busybox"
  install -m 0755 scripts/guest-init "$tree/init"
  ln -s busybox "$tree/bin/sh"
  find "$tree" -exec touch -h -d @0 {} +
  (cd "$tree" && find . | LC_ALL=C sort | cpio --quiet --reproducible -o -H newc -R 0:0) >"$guest_initrd.new" &&
    mv "$guest_initrd.new" "$guest_initrd"
}

# prepare_guest: makes the three files, or says what to do and returns 1.
prepare_guest() {
  mkdir -p "$guest_dir"
  if [ ! -s "$guest_kernel" ] || [ ! -s "$guest_busybox" ]; then
    if ! { command -v apt-get >/dev/null && quietly "Fetching Debian's kernel and busybox-static to $guest_dir" fetch_debs &&
      unpack_debs; }; then
      [ -s "$guest_kernel" ] || take_local_kernel || {
        say "No kernel: the download failed and /boot has no readable vmlinuz-*-amd64."
        say "Connect to the network, or copy a Debian kernel to $guest_kernel"
        return 1
      }
      [ -s "$guest_busybox" ] || take_local_busybox || {
        say "No static busybox: the download failed and /bin/busybox is not a static one."
        say "Connect to the network, or copy one (package busybox-static) to $guest_busybox"
        return 1
      }
    fi
  fi
  build_initrd || {
    say "The initrd could not be built"
    return 1
  }
}
