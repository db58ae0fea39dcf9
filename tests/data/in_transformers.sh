#!/usr/bin/env bash
# Runs a Python script with the torch and transformers that fixtures were made with, in an environment of its own in
# target/transformers (about 6 GB from PyPI, once). By hand: no test needs it.
# usage: tests/data/in_transformers.sh SCRIPT [ARGUMENT...]
#   tests/data/in_transformers.sh tests/data/demo_in_transformers.py target/release/indexscope
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
environment=${INDEXSCOPE_TRANSFORMERS:-$root/target/transformers}
packages=(torch==2.15.0 transformers==5.23.0)
if [[ ! -f $environment/.complete || $(cat "$environment/.complete") != "${packages[*]}" ]]; then
  python3 -m venv "$environment"
  "$environment/bin/pip" install --quiet "${packages[@]}"
  echo "${packages[*]}" >"$environment/.complete"
fi
exec "$environment/bin/python" "$@"
