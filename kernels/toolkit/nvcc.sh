# shellcheck shell=bash
# Sourced from the repository's root: puts nvcc and what builds with `--features cuda` need into the environment.
#
# nvcc is that of PATH, of CUDA_HOME (/usr/local/cuda), or of a compile-only toolkit in INDEXSCOPE_TOOLKIT
# (target/cuda-toolkit), which is assembled from PyPI once (about 105 MB). Returns 1 where none can be had.
if ! command -v nvcc >/dev/null; then
  if [[ -x ${CUDA_HOME:-/usr/local/cuda}/bin/nvcc ]]; then
    export PATH="${CUDA_HOME:-/usr/local/cuda}/bin:$PATH"
  else
    toolkit=${INDEXSCOPE_TOOLKIT:-target/cuda-toolkit}
    PIP_RETRIES=0 PIP_DEFAULT_TIMEOUT=10 kernels/toolkit/setup-cuda.sh "$toolkit" >/dev/null 2>&1 || return 1
    # shellcheck disable=SC1091
    . "$toolkit/env.sh"
  fi
fi
# candle's kernels are for the GPU of this machine, or for this one.
command -v nvidia-smi >/dev/null || export CUDA_COMPUTE_CAP="${CUDA_COMPUTE_CAP:-90}"
