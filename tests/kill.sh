#!/usr/bin/env bash
# Kills the program (kill -9) at random moments of nine kinds of work, and looks at what is there afterwards.
#   tests/kill.sh [KILLS [KIND…]]   200 and all kinds by default; INDEXSCOPE names the program, target/debug/indexscope by default
# Prints, per kind of work: kills, files that cannot be read (unreadable), and measurements or steps that an earlier kill had
# left and this one took away (lost). Fails unless both are 0, and unless all work can be finished in the end.
set -u
cd "$(dirname "${BASH_SOURCE[0]}")/.."
program=${INDEXSCOPE:-target/debug/indexscope}
kills=${1:-200}
kinds=(search train-indexers train-distill record-trace record-matrix export import report demo)
[ $# -lt 2 ] || kinds=("${@:2}")
data=tests/data
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
RANDOM=1

random="--tokens random:540 --seq-len 90 --sequences 6 --quiet"
train="--tokens $data/goldens/tokens.json --seq-len 32 --steps 400 --sparse-steps 200 --index-topk 8 --quiet"
declare -A work=(
  [search]="search $data/glm_dsa_tiny $random --method greedy --session $out/s.toml --resume"
  [train-indexers]="train indexers $data/llama_rope3 $train --heads 2 --dim 8 --out $out/i.safetensors"
  [train-distill]="train distill $data/deepseek_v32_tiny --pattern uniform:2 $train --out $out/d.safetensors"
  [record-trace]="record $data/glm_dsa_tiny $random --out $out/t.trace"
  [record-matrix]="record $data/glm_dsa_tiny $random --out $out/m.json"
  [export]="export $data/glm_dsa_tiny --pattern uniform:2 --checkpoint $out/c"
  [import]="import indices $data/goldens/sglang_indices.json --config $data/glm_dsa_tiny --quiet --out $out/served.trace"
  [report]="report sessions/demo-tour.toml --out $out/r.json"
  [demo]="demo --write $out/demo"
)

run() { "$program" "$@" >/dev/null 2>"$out/said"; }
# Prints how much of the work a kill left: lines of the journal, steps of the state.
progress() {
  case $1 in
  search) grep -c ' #[0-9a-f]\{8\}$' "$out/s.journal" 2>/dev/null || true ;;
  train-indexers) grep -aom1 '\\"step\\":[0-9]*' "$out/i.safetensors.state" 2>/dev/null | head -1 | grep -o '[0-9]*$' ;;
  train-distill) grep -aom1 '\\"step\\":[0-9]*' "$out/d.safetensors.state" 2>/dev/null | head -1 | grep -o '[0-9]*$' ;;
  esac
}
# Returns whether what is there is whole; what is not there is.
readable() {
  case $1 in
  search) [ ! -e "$out/s.toml" ] || run report "$out/s.toml" --out "$out/x.json" ;;
  train-indexers) [ ! -e "$out/i.safetensors" ] || run info $data/llama_rope3 --index "$out/i.safetensors" ;;
  train-distill) [ ! -e "$out/d.safetensors" ] || run info $data/deepseek_v32_tiny --index "$out/d.safetensors" ;;
  record-trace) [ ! -e "$out/t.trace" ] || run overlap "$out/t.trace" ;;
  record-matrix) [ ! -e "$out/m.json" ] || python3 -m json.tool "$out/m.json" >/dev/null ;;
  export) [ ! -e "$out/c" ] || run info "$out/c" ;;
  import) [ ! -e "$out/served.trace" ] || run overlap "$out/served.trace" ;;
  report) [ ! -e "$out/r.json" ] || python3 -m json.tool "$out/r.json" >/dev/null ;;
  demo) [ ! -e "$out/demo" ] || run info "$out/demo" ;;
  esac
}
# What a finished run left is in the way of the next one of its kind, or ends it at once.
clear_done() {
  case $1 in
  search) rm -f "$out"/s.* ;;
  train-indexers) rm -f "$out"/i.* ;;
  train-distill) rm -f "$out"/d.* ;;
  export) rm -rf "$out/c" ;;
  demo) rm -rf "$out/demo" ;;
  esac
}
start() {
  local more=""
  case $1 in train-*) if [ -n "$(progress "$1")" ]; then more=--resume; fi ;; esac
  # shellcheck disable=SC2086
  "$program" ${work[$1]} $more >/dev/null 2>"$out/said" &
}

failed=0
printf '%-16s %6s %11s %5s\n' work kills unreadable lost
for kind in "${kinds[@]}"; do
  clear_done "$kind"
  begin=$(date +%s%N)
  start "$kind"
  wait $! || { echo "$kind fails without a kill:"; cat "$out/said"; exit 1; }
  took=$((($(date +%s%N) - begin) / 1000000))
  clear_done "$kind"
  unreadable=0 lost=0 count=$(((kills + ${#kinds[@]} - 1) / ${#kinds[@]})) before=0
  for ((n = 0; n < count; n++)); do
    start "$kind"
    pid=$!
    sleep "$(printf '%d.%03d' $((RANDOM % took / 1000)) $((RANDOM % took % 1000)))"
    kill -9 $pid 2>/dev/null
    wait $pid 2>/dev/null
    readable "$kind" || { unreadable=$((unreadable + 1)); cat "$out/said"; }
    after=$(progress "$kind")
    if [ -e "$out/i.safetensors" ] || [ -e "$out/d.safetensors" ]; then
      [ "$kind" = train-indexers ] || [ "$kind" = train-distill ] && { clear_done "$kind"; after=0 before=0; }
    fi
    [ "${after:-0}" -ge "${before:-0}" ] || lost=$((lost + 1))
    before=${after:-0}
    case $kind in export | demo) clear_done "$kind" ;; esac
  done
  start "$kind"
  wait $! || { echo "$kind cannot be finished:"; cat "$out/said"; failed=1; }
  readable "$kind" || failed=1
  printf '%-16s %6d %11d %5d\n' "$kind" "$count" "$unreadable" "$lost"
  [ $((unreadable + lost)) = 0 ] || failed=1
done
# What kills left half written is swept by the next write into the folder.
left() { find "$out" -maxdepth 1 -name '.indexscope-*' | wc -l; }
before=$(left)
find "$out" -maxdepth 1 -name '.indexscope-*' -exec touch -d '2 hours ago' {} +
# shellcheck disable=SC2086
run ${work[report]} || failed=1
echo "leftovers: $before after the kills, $(left) after the next write"
[ "$(left)" = 0 ] || failed=1
exit $failed
