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

# build PRESET [TARGET ...]: configures and builds; everything without a target.
build() {
  local preset=$1
  shift
  local targets=()
  if [ $# -gt 0 ]; then targets=(--target "$@"); fi
  cmake --preset "$preset" ||
    fail "CMake could not configure the preset '$preset'." \
      "The lines above name what is missing. A stale folder can be the cause too: rm -rf build/$preset, and again."
  cmake --build --preset "$preset" --parallel "$(build_jobs)" "${targets[@]}" ||
    fail "the build of the preset '$preset' failed." \
      "The first error above says where. 'Killed' means too little memory: free some and run it again," \
      "it goes on from where it stopped."
}
