# shellcheck shell=bash
# What scripts/setup, quickstart, test and .ci/run share. Sourced, from the repository's root.
# Nothing here asks a question: every script runs without a terminal and with an empty standard input.

step() { printf '\n== %s\n' "$*"; }
note() { printf '   %s\n' "$*"; }

# fail WHAT [WHAT TO DO ...]: a sentence or two on standard error, and the end.
fail() {
  printf '\n%s: %s\n' "$(basename "$0")" "$1" >&2
  shift
  if [ $# -gt 0 ]; then printf '   %s\n' "$@" >&2; fi
  exit 1
}

# Compile jobs: one per processor, fewer where memory is short (a heavy file takes about 1 GB).
build_jobs() {
  local jobs memory_gb
  jobs=$(nproc)
  memory_gb=$(awk '/^MemAvailable:/ {print int($2 / 1048576)}' /proc/meminfo)
  if [ "$jobs" -gt "$memory_gb" ]; then jobs=$((memory_gb > 0 ? memory_gb : 1)); fi
  echo "$jobs"
}

# configure PRESET: CMake's many lines are shown only when it fails.
configure() {
  mkdir -p build
  cmake --preset "$1" >"build/configure-$1.log" 2>&1 || {
    tail -n 30 "build/configure-$1.log" >&2
    fail "CMake could not configure the preset '$1'." \
      "The lines above name what is missing. A stale folder can be the cause too: rm -rf build/$1, and again."
  }
}

# build PRESET [TARGET ...]: configures and builds; everything without a target.
build() {
  local preset=$1
  shift
  local targets=()
  if [ $# -gt 0 ]; then targets=(--target "$@"); fi
  configure "$preset"
  cmake --build --preset "$preset" --parallel "$(build_jobs)" "${targets[@]}" ||
    fail "the build of the preset '$preset' failed." \
      "The first error above says where. 'Killed' means too little memory: free some and run it again," \
      "it goes on from where it stopped."
}
