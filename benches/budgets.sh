#!/usr/bin/env bash
# Whether `search --max-delta` keeps its promise: 18 searches of the demo, each on its own four documents, confirmed on the
# same documents that no search saw and judged on others again. Prints one line per search, and how many of the patterns lie
# over the budget for sure (lower 95 % bound above it) on the documents that judge.
#
#   benches/budgets.sh [WORK]
#
# INDEXSCOPE names the program (cargo run --release by default), BUDGET the budget (0.02), SEARCHES their number (18),
# CONFIRM the documents that confirm (100), ARGS further options of the searches. What is in WORK is not done again.
set -euo pipefail
cd "$(dirname "$0")/.."
work=${1:-$(mktemp -d)}
mkdir -p "$work"
program=${INDEXSCOPE:-cargo run --release --quiet --locked --}
budget=${BUDGET:-0.02}
searches=${SEARCHES:-18}
confirm=${CONFIRM:-100}
xz -dc assets/corpus/heldout.txt.xz >"$work/heldout.txt"
# Documents of about 512 tokens, dealt in turn: one to the searches, two that confirm, one that judges.
awk -v work="$work" '{ text = text $0 "\n"
    if (length(text) >= 1600) { file = work "/" (n % 4 == 0 ? "search" : n % 4 == 3 ? "judge" : "confirm") ".docs"
        printf "%s\f", text >file; text = ""; n++ } }' "$work/heldout.txt"
# Prints the documents of a file whose number modulo $2 is $3, at most $4.
some() { awk -v RS='\f' -v ORS='\f' -v of="$2" -v which="$3" -v most="$4" '(NR - 1) % of == which && n++ < most' "$1"; }
field() { grep -o "\"$2\":[^,}]*" "$1" | head -1 | cut -d: -f2- | tr -d '"'; }

over=0
for ((i = 0; i < searches; i++)); do
    { some "$work/search.docs" "$searches" "$i" 4; some "$work/confirm.docs" 1 0 "$confirm"; } >"$work/$i.txt"
    [ -s "$work/$i.json" ] || $program search demo --text "$work/$i.txt" --separator '\f' --seq-len 512 --take first \
        --sequences 4 --validation-sequences "$confirm" --max-delta "$budget" --seed "$i" --session "$work/$i.toml" \
        --quiet --json ${ARGS:-} >"$work/$i.json"
    pattern=$(field "$work/$i.json" pattern)
    [ -s "$work/judged-$pattern.json" ] || $program eval demo --text "$work/judge.docs" --separator '\f' --seq-len 512 \
        --pattern "$pattern" --json --quiet >"$work/judged-$pattern.json"
    sed 's/.*"results"//' "$work/judged-$pattern.json" >"$work/judged.part"
    judged=$(grep -o '"delta":-\?[0-9.e-]*,"delta_se' "$work/judged.part" | head -1 | cut -d: -f2 | cut -d, -f1)
    low=$(grep -o '"interval":\[[^,]*' "$work/judged.part" | head -1 | cut -d[ -f2)
    failed=$(grep -o '"pattern":"[FS]*","full":[0-9]*,"verdict":"[a-z-]*"' "$work/$i.json" | grep -v confirmed | head -1 || true)
    echo "$i: $pattern, $(field "$work/$i.json" full) Full, judged $judged from ${low:-0}; first not confirmed: ${failed:-none}"
    if awk -v low="${low:-0}" -v budget="$budget" 'BEGIN { exit !(low > budget) }'; then over=$((over + 1)); fi
done
echo "$over of $searches lie over the budget of $budget for sure on documents that neither searched nor confirmed"
