#!/usr/bin/env bash
# Checks all that can be checked of the `cuda` feature on a machine without a GPU. Run before landing a change to the
# model or the kernels: the kernels in emulation and through nvcc, then the crate with the feature.
# usage: kernels/check.sh [TOOLKIT_DIR]      (default target/cuda-toolkit; about 11 CPU-minutes the first time)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
toolkit=${1:-target/cuda-toolkit}
kernels/toolkit/setup-cuda.sh "$toolkit"
# shellcheck disable=SC1091
. "$toolkit/env.sh"
kernels/emulate/run.sh
kernels/compile.sh
cargo clippy --features cuda --all-targets --target-dir target/cuda -- -D warnings
