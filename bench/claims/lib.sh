# lib.sh - what the experiments on papers' claims share; sourced, not run. An experiment names arms, each a recipe with changes, trains each
# with every seed and judges it by the recipe's own held-out data:
#   claim_options "$@"            reads --seeds, --out and --jobs; sets seeds, out
#   arm NAME RECIPE ARGUMENT...   names an arm; arguments as of `mneme train`
#   run_arms                      trains and judges what is not done yet, one thread each
#   value NAME SEED KEY           what `mneme eval` says
#   mean NAME KEY                 over the seeds
#   bar TEXT VALUE LEAST          one line, "ok" or "short"; claim_end exits 1 if any was short
# With --out what is done is kept, and the same command goes on where it was ended.
. "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"
need_mneme
seeds="1 2" out='' jobs=$(nproc) claim_short=0 scratch=''
claim_options() {
  while [ $# -gt 0 ]; do
    case $1 in
      --seeds) seeds=${2:?} ;;
      --out) out=${2:?} ;;
      --jobs) jobs=${2:?} ;;
      *) echo "$0: unknown option $1; see the head of the file" >&2; exit 2 ;;
    esac
    shift 2
  done
  if [ -z "$out" ]; then
    scratch=$(mktemp -d)
    out=$scratch
  fi
  mkdir -p "$out"
  out=$(cd "$out" && pwd)
  trap '[ -z "$scratch" ] || rm -rf "$scratch"' EXIT
  : >"$out/arms"
  export MNEME_HOME=$out mneme out
  cd "$repo_dir"
}
arm() { printf '%s\t%s\n' "$1" "$(printf '%q ' "${@:2}")" >>"$out/arms"; }

train_arm() { # NAME@SEED: leaves $out/NAME@SEED.json, what `eval` says of it
  local name=${1%@*} seed=${1#*@} words
  [ ! -s "$out/$1.json" ] || return 0
  eval "words=($(awk -F'\t' -v n="$name" '$1 == n { print $2 }' "$out/arms"))"
  rm -rf -- "${out:?}/$1"
  nice "$mneme" train "${words[0]}" --out "$out/$1" --quiet --threads 1 --seed "$seed" "${words[@]:1}" >"$out/$1.log" 2>&1 &&
    "$mneme" eval --model "$out/$1" --json --quiet --threads 1 >"$out/$1.part" 2>>"$out/$1.log" || {
    echo "$0: the training of $1 failed:" >&2
    tail -3 "$out/$1.log" >&2
    return 255
  }
  mv "$out/$1.part" "$out/$1.json"
  echo "$1 done" >&2
}
run_arms() {
  export -f train_arm
  local seed name
  for seed in $seeds; do while IFS=$'\t' read -r name _; do echo "$name@$seed"; done <"$out/arms"; done |
    xargs -P "$jobs" -I{} bash -c 'train_arm {}'
}
value() {
  local found
  found=$(sed -n "s/^ *\"$3\": \([-0-9.e+]*\),*\$/\1/p" "$out/$1@$2.json" | head -1)
  [ -n "$found" ] || { echo "$0: $out/$1@$2.json says nothing of $3" >&2; return 1; }
  echo "$found"
}
mean() {
  local seed
  for seed in $seeds; do value "$1" "$seed" "$2"; done | awk '{ s += $1 } END { printf "%.5f", s / NR }'
}
bar() {
  local verdict=ok
  awk -v v="$2" -v least="$3" 'BEGIN { exit !(v >= least) }' || { verdict=short; claim_short=1; }
  printf '%s: %s (>= %s) %s\n' "$1" "$2" "$3" "$verdict"
}
claim_end() { exit "$claim_short"; }
