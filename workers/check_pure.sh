#!/usr/bin/env bash
# Tests what of the worker needs neither torch nor a model, and lints and types it where ruff and mypy are there.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
if ! python3 -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null; then
  echo "skipped: the worker's tests need Python 3.10 or newer"
  exit 0
fi
export PYTHONDONTWRITEBYTECODE=1
python3 -m unittest discover -q -s tests -p 'test_*.py' 2>&1
for tool in "ruff check ." "ruff format --check ." "mypy indexscope_worker"; do
  if command -v "${tool%% *}" >/dev/null; then
    $tool
  else
    echo "skipped: '$tool' of the worker, ${tool%% *} is not installed"
  fi
done
