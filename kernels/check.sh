#!/usr/bin/env bash
# Checks all that can be checked of the `cuda` feature on a machine without a GPU; CI does a part of it (.ci/run). By hand,
# before landing a change to the model or the kernels: the kernels in emulation and through nvcc, then the crate with the feature, and its fat binaries.
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
# The fat binary has code for every target of build.rs: entries of kind 2, with the architecture 28 bytes on.
python3 - "$(ls -t target/cuda/debug/build/indexscope-*/out/sparse_mla.fatbin | head -1)" <<'END'
import struct, sys
data, at, found = open(sys.argv[1], "rb").read(), 16, set()
while at < len(data):
    kind, _, header, size = struct.unpack_from("<HHIQ", data, at)
    if kind == 2:
        found.add(struct.unpack_from("<I", data, at + 28)[0])
    at += header + size
if found != {90, 100, 120}:
    sys.exit(f"error: {sys.argv[1]} has code for {sorted(found)}, not for sm_90a, sm_100 and sm_120")
END
