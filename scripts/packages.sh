# shellcheck shell=bash
# Which Debian packages each command of ./dev needs, and how they get onto the machine.

# Prints the packages of one group, one a line.
packages_of() {
  case $1 in
    build)
      printf '%s\n' cmake ninja-build g++ binutils libzydis-dev libssl-dev libfmt-dev libspdlog-dev libcli11-dev \
        nlohmann-json3-dev catch2 zlib1g-dev libyaml-cpp-dev libseccomp-dev libre2-dev
      ;;
    guest) printf '%s\n' cpio ;;
    # OVMF is a second firmware for the launch digest's known answers; python3 computes that digest independently.
    test) printf '%s\n' ovmf python3 ;;
    # virt-qemu-sev-validate, a second opinion on measurements and secrets; without it that test says that it skips it.
    peer) printf '%s\n' libvirt-clients-qemu python3-lxml ;;
    lint) printf '%s\n' clang-format clang-tidy shellcheck ;;
    bench) printf '%s\n' qemu-system-x86 seabios ;;
    package) printf '%s\n' dpkg-dev file ;;
    fuzz) printf '%s\n' clang libclang-rt-14-dev llvm ;;
    *) die "no such group of packages: $1" ;;
  esac
}

package_is_installed() {
  [ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" = installed ]
}

# Runs apt-get as root, directly or through sudo.
as_root_apt_get() {
  local prefix=(env DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=120)
  [ "$(id -u)" -eq 0 ] || prefix=(sudo "${prefix[@]}")
  "${prefix[@]}" "$@"
}

may_install() {
  command -v apt-get >/dev/null || return 1
  [ "$(id -u)" -eq 0 ] && return 0
  command -v sudo >/dev/null || return 1
  sudo -n true 2>/dev/null && return 0
  # Without a terminal sudo cannot ask for the password; with one, let it ask now and not behind a progress line.
  on_terminal && sudo -v
}

apt_lists_exist() { compgen -G '/var/lib/apt/lists/*_Packages*' >/dev/null; }

install_packages() {
  if ! apt_lists_exist; then
    quietly "Fetching the package lists (apt-get update)" as_root_apt_get update || return 1
  fi
  if ! quietly "Installing: $*" as_root_apt_get install -y --no-install-recommends "$@"; then
    quietly "Fetching fresh package lists" as_root_apt_get update || return 1
    quietly "Installing again: $*" as_root_apt_get install -y --no-install-recommends "$@" || return 1
  fi
}

# need_packages GROUP...: returns when all packages of the groups are there; ends ./dev when they cannot be had.
need_packages() {
  local group package missing=()
  if ! command -v dpkg-query >/dev/null; then
    say "This is not a Debian system: taking it on trust that the tools are there (HACKING.md lists them)"
    return 0
  fi
  for group in "$@"; do
    for package in $(packages_of "$group"); do
      package_is_installed "$package" || missing+=("$package")
    done
  done
  [ ${#missing[@]} -eq 0 ] && return 0
  if ! may_install; then
    printf 'dev: these Debian packages are missing: %s\n' "${missing[*]}" >&2
    die "they cannot be installed from here (neither root nor sudo); run: apt-get install ${missing[*]}"
  fi
  install_packages "${missing[@]}" || die "could not install: ${missing[*]}; run: apt-get install ${missing[*]}"
}
