#!/usr/bin/env bash
# Runs every kernel on the CPU, thread by thread, against loops over its definition. Needs g++, no CUDA.
# usage: [SANITIZE=1] kernels/emulate/run.sh [FOLDER]     (default target/emulate, where the programs go)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
if ! command -v g++ >/dev/null; then
  echo "skipped: kernels in emulation (no g++)"
  exit 0
fi
folder=${1:-target/emulate}
mkdir -p "$folder"
for test in kernels/emulate/*.cpp; do
  program=$folder/$(basename "$test" .cpp)
  # Rebuilt only when something under kernels/ is newer: CI keeps target/.
  if [[ ! -x $program || -n $(find kernels -newer "$program" \( -name '*.cu*' -o -name '*.cpp' -o -name '*.h' \)) ]]; then
    g++ -std=c++17 -O2 -g -DINDEXSCOPE_EMULATE ${SANITIZE:+-fsanitize=address,undefined -fno-sanitize-recover=undefined} \
      -Wall -Wno-unknown-pragmas -Wno-unused-function -x c++ "$test" -o "$program"
  fi
  # What passed is not run again until something changes.
  if [[ ! $program.passed -nt $program ]]; then
    ASAN_OPTIONS=detect_stack_use_after_return=0:detect_leaks=0 "$program" >"$program.passed.part"
    mv "$program.passed.part" "$program.passed"
  fi
  cat "$program.passed"
done
