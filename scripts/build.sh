# shellcheck shell=bash
# Configures and builds a CMake preset.

# build_preset PRESET [TARGET]
build_preset() {
  local preset=$1 target=${2:-all}
  case $preset in
    release | debug | asan | fuzz) ;;
    *) die "no preset '$preset'; there are release, debug, asan and fuzz" ;;
  esac
  if [ ! -f "build/$preset/build.ninja" ]; then
    quietly "Configuring build/$preset" cmake --preset "$preset" || exit 1
  fi
  if [ -t 1 ] && [ -t 2 ]; then
    say "Building $preset ($target)"
    cmake --build "build/$preset" --target "$target" || die "the build failed"
  else
    quietly "Building $preset ($target)" cmake --build "build/$preset" --target "$target" || exit 1
  fi
}
