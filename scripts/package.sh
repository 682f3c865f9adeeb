# shellcheck shell=bash
# ./dev package

dev_package() {
  [ $# -eq 0 ] || die "package takes no arguments"
  need_packages build package
  build_preset release
  rm -f build/release/package/*.deb
  quietly "Making the packages" cpack --config build/release/CPackConfig.cmake -B build/release/package || exit 1
  printf '%s\n' build/release/package/*.deb
}
