#!/usr/bin/env bash
# Holds the worker on transformers against expected losses and sets, and the program against the worker.
#
# First the worker alone, over its pipe: one process, its indexer in pieces, two ranks over gloo, weights offloaded to
# disk. Then the program: eval, record, overlap and search on one worker and on two, with one of two killed in mid-search,
# at a Unix socket, and pictures of the dashboard.
#
# Usage: workers/check_transformers.sh [INDEXSCOPE]. It makes a virtual environment of its own (about 1 GB from PyPI)
# unless WORKER_VENV names one; PICTURES names a folder for the pictures. Run by hand before a change of the worker lands;
# needs Python 3.10 or newer and Linux.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
binary=${1:-$root/target/debug/indexscope}
venv=${WORKER_VENV:-$root/target/worker-venv}
# Two processes of two ranks share the cores.
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
if [ ! -x "$venv/bin/python" ]; then
  python3 -m venv "$venv"
  "$venv/bin/pip" install -q torch==2.15.0 transformers==5.23.0 safetensors==0.8.0 numpy==2.4.6 accelerate==1.15.0
fi
python=$venv/bin/python
fixtures=("$root/tests/data/glm_dsa_tiny" "$root/tests/data/deepseek_v32_tiny" "$root/tests/data/glm_locked_shared")
"$binary" worker check --python "$python"
"$python" "$root/workers/tests/check_transformers.py" "$python" "${fixtures[@]}"
"$python" "$root/workers/tests/check_program.py" "$binary" "$python" "${fixtures[@]}"
