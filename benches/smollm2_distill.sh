#!/usr/bin/env bash
# What distillation towards the served layers brings to SmolLM2-135M, as one Markdown table: uniform and searched patterns
# with 8 and 4 of 30 Full layers, before and after training, beside all-Full trained for as long, on text that was neither trained nor searched on.
#
#   benches/smollm2_distill.sh MODEL [SIDECAR]
#
# MODEL and SIDECAR as for benches/smollm2.sh. Every training starts from the sidecar and sees the same tokens and rows:
# WARMUP (480) steps towards all visible keys and SPARSE (240) towards the selected ones, k = 128, of 1,024 tokens and 256
# rows each, at a peak rate of LR (2e-3). Every Δ is against the all-Full pattern with the indexers before training, on
# SEQUENCES (12) held-out sequences of 1,024 tokens. SEED (7) is that of the trainings, SPARSE_TARGET (per-head) how heads are
# averaged in the sparse stage.
#
# SEARCHED and SEARCHED4 are patterns with 8 and 4 Full layers; without them, one `search` at k = 64 on training text
# finds both. What is in WORK (a new folder by default) is not done again; give it to go on after a stop. INDEXSCOPE
# names the program (cargo run --release by default).
set -euo pipefail
cd "$(dirname "$0")/.."
model=$1
sidecar=${2:-assets/smollm2/indexers.safetensors}
program=${INDEXSCOPE:-cargo run --release --quiet --locked --}
work=${WORK:-$(mktemp -d)}
mkdir -p "$work"
echo "everything is kept in $work" >&2
[ -f "$work/heldout.txt" ] || xz -dc assets/corpus/heldout.txt.xz >"$work/heldout.txt"

# Runs a command unless FILE holds what it printed.
once() {
    local file=$1
    shift
    [ -s "$file" ] || { "$@" >"$file.part" && mv "$file.part" "$file"; }
}
# Prints the number after "NAME": in a file of JSON.
number() { grep -o "\"$2\":[0-9.]*" "$1" | head -1 | cut -d: -f2; }
# Prints the pattern that the search's first $1 flips make.
cut_at() {
    sed 's/"swaps".*//' "$work/search.json" | grep -o '"layer":[0-9]*' | cut -d: -f2 | head -"$1" |
        awk '{ shared[$1] = 1 } END { for (l = 0; l < 30; l++) printf shared[l] ? "S" : "F" }'
}

if [ -z "${SEARCHED:-}" ] || [ -z "${SEARCHED4:-}" ]; then
    [ -f "$work/searched.txt" ] || head -c 100000 <(xz -dc assets/corpus/rust-docs.txt.xz) >"$work/searched.txt"
    resume=$([ -f "$work/search.toml" ] && echo --resume || true)
    once "$work/search.json" $program search "$model" --index "$sidecar" --index-topk 64 --text "$work/searched.txt" \
        --seq-len 512 --sequences 6 --keep 4 --method lazy --cache-bytes 2GiB --session "$work/search.toml" --json $resume
fi
declare -A pattern=(
    [full]=$(printf 'F%.0s' {1..30})
    [uniform8]=$(printf 'FSSS%.0s' {1..7})FS [searched8]=${SEARCHED:-$(cut_at 22)}
    [uniform4]=$(printf 'FSSSSSSS%.0s' {1..3})FSSSSS [searched4]=${SEARCHED4:-$(cut_at 26)}
)
trained=(full-own uniform8-own uniform8-served searched8-served uniform4-own uniform4-served searched4-served)

for run in "${trained[@]}"; do
    out=$work/$run.safetensors
    resume=$([ -f "$out.state" ] && echo --resume || true)
    once "$work/$run.json" $program train distill "$model" --sidecar "$sidecar" --pattern "${pattern[${run%-*}]}" \
        --targets "${run#*-}" --out "$out" --text assets/corpus/python-docs.txt.xz --text assets/corpus/rust-docs.txt.xz \
        --seq-len 1024 --rows 256 --index-topk 128 --steps "${WARMUP:-480}" --sparse-steps "${SPARSE:-240}" \
        --lr "${LR:-2e-3}" --seed "${SEED:-7}" --sparse-target "${SPARSE_TARGET:-per-head}" --json --log "$work/$run.log" $resume
done

data=(--text "$work/heldout.txt" --seq-len 1024 --sequences "${SEQUENCES:-12}" --quiet)
for k in 64 128; do
    once "$work/before-$k.csv" $program eval "$model" "${data[@]}" --index "$sidecar" --index-topk $k --format csv \
        --pattern dense --pattern all-full --pattern "${pattern[uniform8]}" --pattern "${pattern[searched8]}" \
        --pattern "${pattern[uniform4]}" --pattern "${pattern[searched4]}"
    for run in "${trained[@]}"; do
        once "$work/$run-$k.csv" $program eval "$model" "${data[@]}" --index "$work/$run.safetensors" --index-topk $k \
            --reference-index "$sidecar" --pattern native --format csv
    done
    for run in "${trained[@]:1}"; do
        once "$work/$run-full-$k.csv" $program eval "$model" "${data[@]}" --index "$work/$run.safetensors" \
            --reference-index "$work/full-own.safetensors" --index-topk $k --pattern native --format csv
    done
    for p in uniform8 uniform4; do
        once "$work/$p-paired-$k.csv" $program eval "$model" "${data[@]}" --index "$work/$p-served.safetensors" \
            --reference-index "$work/$p-own.safetensors" --index-topk $k --pattern native --format csv
    done
done

# Prints loss, Δ and its error of row $2 of the files $1-K.csv, for both k.
cells() {
    for k in 64 128; do
        awk -F, -v row="$2" 'NR == row + 1 { printf " %s, %s ± %s |", $3, $4, $5 }' "$work/$1-$k.csv"
    done
}
echo "| pattern | Full | indexers | k = 64: loss, Δ ± se | k = 128: loss, Δ ± se | gap closed, like for like, k = 64 / 128 | tokens | seconds |"
echo "|---|---:|---|---:|---:|---:|---:|---:|"
echo "| dense | - | - |$(cells before 1) | | |"
echo "| all-Full | 30 | before |$(cells before 2) | | |"
echo "| all-Full | 30 | own |$(cells full-own 1) | |" \
    "$(number "$work/full-own.json" tokens) | $(number "$work/full-own.json" seconds | cut -d. -f1) |"
row=2
for p in uniform8 searched8 uniform4 searched4; do
    row=$((row + 1))
    name=$([[ $p == uniform* ]] && echo "uniform:$((32 / ${p#uniform}))" || echo "searched ${pattern[$p]}")
    echo "| $name | ${p: -1} | before |$(cells before $row) | | |"
    for run in "${trained[@]}"; do
        [ "${run%-*}" = "$p" ] || continue
        closed=$(for k in 64 128; do
            # Like for like: what it loses to all-Full trained for as long, of what it lost to all-Full before.
            awk -F, -v row=$row 'NR == FNR { if (FNR == row + 1) before = $4; next } FNR == 2 {
                printf " %.0f %%", 100 * (1 - $4 / before) }' "$work/before-$k.csv" "$work/$run-full-$k.csv"
        done)
        echo "| $name | ${p: -1} | ${run#*-} |$(cells "$run" 1)$closed |" \
            "$(number "$work/$run.json" tokens) | $(number "$work/$run.json" seconds | cut -d. -f1) |"
    done
done
echo
echo "L_multi (served) against own-layer training, paired, Δ ± se in nats:"
for p in uniform8 uniform4; do
    for k in 64 128; do
        awk -F, -v name="${p: -1} Full, k = $k" 'NR == 2 { printf "- uniform, %s: %s ± %s\n", name, $4, $5 }' "$work/$p-paired-$k.csv"
    done
done

echo
echo "Trained patterns (served) against all-Full trained for as long, paired, Δ ± se in nats:"
for p in uniform8 searched8 uniform4 searched4; do
    for k in 64 128; do
        awk -F, -v name="${p%[48]}, ${p: -1} Full, k = $k" 'NR == 2 { printf "- %s: %s ± %s\n", name, $4, $5 }' "$work/$p-served-full-$k.csv"
    done
done

echo
echo "What the choice of the pattern is worth, uniform less searched, before and after training (served), Δ in nats, its error at"
echo "most the sum of both:"
row=3
for n in 8 4; do
    for k in 64 128; do
        awk -F, -v name="$n Full, k = $k" -v row=$row '
            FNR == 1 { file++ }
            file == 1 && FNR == row + 1 { u = $4; ue = $5 }
            file == 1 && FNR == row + 2 { b = u - $4; be = ue + $5 }
            file == 2 && FNR == 2 { u = $4; ue = $5 }
            file == 3 && FNR == 2 { printf "- %s: %+.4f (± ≤ %.4f) before, %+.4f (± ≤ %.4f) after\n", name, b, be, u - $4, ue + $5 }
        ' "$work/before-$k.csv" "$work/uniform$n-served-$k.csv" "$work/searched$n-served-$k.csv"
    done
    row=$((row + 2))
done
