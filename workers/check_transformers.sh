#!/usr/bin/env bash
# Holds the worker on transformers against expected losses and sets: one process, two ranks over gloo, a device map.
#
# Usage: workers/check_transformers.sh [INDEXSCOPE] [VENV]. It makes a virtual environment of its own (about 1 GB from
# PyPI) unless VENV names one. Run by hand before a change of the worker lands; needs Python 3.10 or newer.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
binary=${1:-$root/target/debug/indexscope}
venv=${2:-$root/target/worker-venv}
if [ ! -x "$venv/bin/python" ]; then
  python3 -m venv "$venv"
  "$venv/bin/pip" install -q torch==2.15.0 transformers==5.23.0 safetensors==0.8.0 numpy==2.4.6 accelerate==1.15.0
fi
"$binary" worker check --python "$venv/bin/python"
"$venv/bin/python" "$root/workers/tests/check_transformers.py" "$venv/bin/python" "$root/tests/data/glm_dsa_tiny" "$root/tests/data/deepseek_v32_tiny"
