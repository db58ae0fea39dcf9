#!/usr/bin/env bash
# What distillation towards the served layers brings to SmolLM2-135M: uniform:4 before, after own-layer training and
# after L_multi, on text that was neither trained nor searched on.
#
#   benches/smollm2_distill.sh MODEL [SIDECAR]
#
# MODEL and SIDECAR as for benches/smollm2.sh. Both trainings start from the sidecar and see the same tokens and rows:
# STEPS (40) steps of the sparse stage, 1,024 tokens each, k = 128. PATTERN is uniform:4 by default.
set -euo pipefail
cd "$(dirname "$0")/.."
model=$1
sidecar=${2:-assets/smollm2/indexers.safetensors}
program=${INDEXSCOPE:-cargo run --release --quiet --locked --}
pattern=${PATTERN:-uniform:4}
work=${WORK:-$(mktemp -d)}
xz -dc assets/corpus/heldout.txt.xz >"$work/heldout.txt"
for targets in own served; do
    [ -f "$work/$targets.safetensors" ] || $program train distill "$model" --sidecar "$sidecar" --pattern "$pattern" \
        --targets $targets --out "$work/$targets.safetensors" --text assets/corpus/python-docs.txt.xz \
        --text assets/corpus/rust-docs.txt.xz --seq-len 1024 --rows 256 --index-topk 128 --steps 0 \
        --sparse-steps "${STEPS:-40}" --lr 1e-2 --seed 7 --format md
done
data=(--text "$work/heldout.txt" --seq-len 1024 --sequences "${SEQUENCES:-16}" --format md --quiet)
for k in 64 128; do
    echo "## k = $k: all-Full and $pattern before"
    $program eval "$model" "${data[@]}" --index "$sidecar" --index-topk "$k" --pattern all-full --pattern "$pattern"
    for targets in own served; do
        echo "## k = $k: $pattern after training, --targets $targets"
        $program eval "$model" "${data[@]}" --index "$work/$targets.safetensors" --index-topk "$k" --pattern dense --pattern native
    done
done
