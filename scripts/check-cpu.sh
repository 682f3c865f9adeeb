# shellcheck shell=bash
# ./dev check-cpu

dev_check-cpu() {
  need_packages build
  build_preset release check_cpu
  exec build/release/tests/check_cpu/check_cpu "$@"
}
