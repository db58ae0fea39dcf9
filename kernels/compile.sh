#!/usr/bin/env bash
# Compiles every kernel with nvcc for every target; prints registers, spills and barriers; fails where a hot one spills
# or ptxas makes products of a warpgroup wait for one another.
# usage: kernels/compile.sh [TARGET...]     (default sm_80 sm_89 sm_90a sm_100 sm_120)
#
# Where no nvcc can be had (kernels/toolkit/nvcc.sh), one line says so and nothing fails. The table goes to
# target/kernels/table.txt too; what is unchanged is not compiled again. Set NVCC_CCBIN for another host compiler. The dynamic shared memory is asked for at launch: src/model/ops/plan has it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=kernels/toolkit/nvcc.sh
. kernels/toolkit/nvcc.sh || { echo "skipped: kernels through nvcc (no nvcc, and its packages cannot be had)"; exit 0; }
targets=("$@")
[[ $# -gt 0 ]] || targets=(sm_80 sm_89 sm_90a sm_100 sm_120)
# Kernels that run once per layer over a whole context. FP8 on sm_80, which has no FP8 units, is for correctness only.
hot='^(indexer_|sparse_mla_|sparse_gqa_)'
out=target/kernels
mkdir -p "$out"
for target in "${targets[@]}"; do
  arch=compute_${target#sm_}
  for source in kernels/*.cu; do
    name=$(basename "$source" .cu)
    log=$out/$name.$target.txt
    stamp=$(cat "$source" kernels/*.cuh kernels/compile.sh | cksum)
    [[ -f $log && $(head -1 "$log") == "$stamp" ]] && continue
    echo "$name for $target" >&2
    nvcc -O3 -std=c++17 -Werror all-warnings -gencode "arch=$arch,code=$target" -cubin -Xptxas -v "$source" \
      -o "$out/$name.$target.cubin" >"$log.part" 2>&1 || { cat "$log.part" >&2; exit 1; }
    # Remarks C7510 to C7519: wgmma instructions serialised, or waits and fences put between them.
    if grep -E '\(C75[0-9]{2}\)' "$log.part" >&2; then
      echo "error: ptxas does not keep the products of $name apart as written" >&2
      exit 1
    fi
    { echo "$stamp"; cat "$log.part"; } >"$log"
    rm "$log.part"
  done
done
{
  printf '%-34s %-8s %9s %13s %12s\n' kernel target registers 'spilled bytes' 'stack bytes'
  for target in "${targets[@]}"; do
    for source in kernels/*.cu; do
      awk -v target="$target" '
        /Compiling entry function/ { split($0, part, "'\''"); name = part[2] }
        /bytes stack frame/ { stack = $1; spill = $5 + $9 }
        /Used [0-9]+ registers/ { match($0, /Used [0-9]+/); printf "%-34s %-8s %9d %13d %12d\n", name, target, substr($0, RSTART + 5, RLENGTH - 5), spill, stack }
      ' "$out/$(basename "$source" .cu).$target.txt" | sort
    done
  done
} | tee "$out/table.txt"
if awk -v hot="$hot" 'NR > 1 && $1 ~ hot && $4 > 0 && !($1 ~ /fp8/ && $2 == "sm_80")' "$out/table.txt" | grep .; then
  echo "error: the hot kernels above spill registers" >&2
  exit 1
fi
