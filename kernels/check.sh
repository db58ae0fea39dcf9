#!/usr/bin/env bash
# Compile-checks the `cuda` feature on a machine without CUDA. Run before landing a change to the model.
# usage: kernels/check.sh [TOOLKIT_DIR]      (default target/cuda-toolkit; about 11 CPU-minutes the first time)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
toolkit=${1:-target/cuda-toolkit}
kernels/toolkit/setup-cuda.sh "$toolkit"
# shellcheck disable=SC1091
. "$toolkit/env.sh"
cargo clippy --features cuda --all-targets --target-dir target/cuda -- -D warnings
