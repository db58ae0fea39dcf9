#!/usr/bin/env bash
# How often the 95 % intervals of Δ hold the truth, on the demo model and the held-out documentation: draws of 4, 8 and 16
# sequences, random, strided and consecutive, from a text of which every sequence was measured, and draws from documents of
# conversation-like, unequal lengths. Prints a Markdown table. Takes a few minutes.
#
#   benches/coverage.sh [WORK]
#
# What is in WORK (a new folder by default) is not measured again. INDEXSCOPE names the program (cargo run --release by
# default), PATTERNS the patterns.
set -euo pipefail
cd "$(dirname "$0")/.."
work=${1:-$(mktemp -d)}
mkdir -p "$work"
program=${INDEXSCOPE:-cargo run --release --quiet --locked --}
patterns=()
for p in ${PATTERNS:-FFSSFFFSSSSF FSSSSSFSSSSF uniform:4}; do patterns+=(--pattern "$p"); done
xz -dc assets/corpus/heldout.txt.xz >"$work/heldout.txt"
# Documents of 200 to 6,000 bytes, most of them short: lengths are uniform on the logarithm.
awk 'BEGIN { srand(1); RS = "\n"; left = 200 }
     { print; left -= length($0) + 1
       if (left <= 0) { printf "\f"; left = 200 * exp(rand() * log(30)) } }' "$work/heldout.txt" >"$work/unequal.txt"
[ -s "$work/equal.json" ] || $program eval demo --text "$work/heldout.txt" --seq-len 512 "${patterns[@]}" --json --quiet \
    >"$work/equal.json"
[ -s "$work/unequal.json" ] || $program eval demo --text "$work/unequal.txt" --separator '\f' --seq-len 512 \
    "${patterns[@]}" --json --quiet >"$work/unequal.json"
if [ -n "${DRAW:-}" ]; then
    $DRAW "equal=$work/equal.json" "unequal=$work/unequal.json"
else
    cargo bench --quiet --locked --bench coverage -- "equal=$work/equal.json" "unequal=$work/unequal.json"
fi
