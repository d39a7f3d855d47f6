# lib.sh - what the experiments on papers' claims share; sourced, not run. An experiment names arms, each a recipe with changes, trains each
# with every seed and judges it by the recipe's own held-out data:
#   claim_options "$@"            reads --seeds, --out and --jobs; sets seeds, out. An experiment with options of its own sets claim_keys
#                                 first, such as "steps teacher-steps", and the variables steps and teacher_steps to what they usually are
#   arm NAME RECIPE ARGUMENT...   names an arm; arguments as of `mneme train`
#   also VIEW NAME COMMAND...     judges arm NAME ('*': every arm) once more, by a command that prints JSON; {} stands for its directory
#   once NAME RECIPE ARGUMENT...  trains and judges one model at once, in $out/NAME, with the recipe's seed and all threads: a teacher
#   run_arms                      trains and judges what is not done yet, one thread each
#   value NAME SEED KEY [VIEW]    what `mneme eval` says, or a view: `train` is what `mneme train` said. SEED '': of what is trained once
#   mean NAME KEY                 over the seeds
#   minus A B
#   has ARM...                    of experiments with --arms: are these among them?
#   bar TEXT VALUE BOUND [OP]     one line, "ok" or "short"; OP is >= unless given, or >, <=. claim_end exits 1 if any was short
# With --out what is done is kept, and the same command goes on where it was ended; what another command did is done anew.
. "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"
need_mneme
seeds="1 2" out='' jobs=$(nproc) claim_keys='' claim_short=0 scratch=''
claim_options() {
  local key
  while [ $# -gt 0 ]; do
    key=${1#--}
    case " seeds out jobs $claim_keys " in
      *" $key "*) printf -v "${key//-/_}" %s "${2:?}" ;;
      *) echo "$0: unknown option $1; see $0 --help" >&2; exit 2 ;;
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
  : >"$out/views"
  export MNEME_HOME=$out mneme out
  cd "$repo_dir"
}
arm() { printf '%s\t%s\n' "$1" "$(printf '%q ' "${@:2}")" >>"$out/arms"; }
also() { printf '%s\t%s\t%s\n' "$2" "$1" "$(printf '%q ' "${@:3}")" >>"$out/views"; }

# What makes NAME: its recipe and arguments, and by which commands it is judged.
arm_plan() { awk -F'\t' -v n="$1" '$1 == n || (FILENAME ~ /views$/ && $1 == "*") { print $2 "\t" $3 }' "$out/arms" "$out/views"; }
judge_arm() { # NAME[@SEED]
  local view command words
  "$mneme" eval --model "$out/$1" --json --quiet --threads 1 >"$out/$1.part" || return 1
  while IFS=$'\t' read -r view command; do
    [ -n "$command" ] || continue # the arm itself
    eval "words=($command)"
    "${words[@]//'{}'/$out/$1}" >"$out/$1.$view.json" </dev/null || return 1
  done <"$out/$1.plan"
}
train_arm() { # NAME[@SEED]: leaves $out/NAME@SEED.json, what `eval` says of it, .train.json, what `train` said, and a .VIEW.json of each view
  local name=${1%@*} seed=() words
  if [ -s "$out/$1.json" ] && [ "$(arm_plan "$name")" = "$(cat "$out/$1.plan" 2>/dev/null)" ]; then return 0; fi
  rm -rf -- "${out:?}/$1" "$out/$1.json"
  arm_plan "$name" >"$out/$1.plan"
  case $1 in *@*) seed=(--threads 1 --seed "${1#*@}") ;; esac
  eval "words=($(head -1 "$out/$1.plan"))"
  if ! nice "$mneme" train "${words[0]}" --out "$out/$1" --quiet --json "${seed[@]}" "${words[@]:1}" >"$out/$1.train.json" 2>"$out/$1.log" ||
    ! judge_arm "$1" 2>>"$out/$1.log"; then
    echo "$0: the training of $1, or judging it, failed:" >&2
    tail -n 8 "$out/$1.train.json" "$out/$1.log" >&2
    return 255
  fi
  mv "$out/$1.part" "$out/$1.json"
  echo "$1 done" >&2
}
once() {
  local arms
  arms=$(cat "$out/arms")
  arm "$@"
  train_arm "$1"
  printf '%s' "${arms:+$arms$'\n'}" >"$out/arms"
}
run_arms() {
  export -f arm_plan judge_arm train_arm
  local seed name
  for seed in $seeds; do while IFS=$'\t' read -r name _; do echo "$name@$seed"; done <"$out/arms"; done |
    xargs -P "$jobs" -I{} bash -c 'train_arm {}'
}
value() {
  local found file=$out/$1${2:+@$2}${4:+.$4}.json
  found=$(sed -n "s/.*\"$3\": \([-0-9.e+]\{1,\}\).*/\1/p" "$file" | head -1)
  [ -n "$found" ] || { echo "$0: $file says nothing of $3" >&2; return 1; }
  echo "$found"
}
mean() {
  local seed
  for seed in $seeds; do value "$1" "$seed" "$2"; done | awk '{ s += $1 } END { printf "%.5f", s / NR }'
}
has() { # ARM...: are all of them among $arms?
  local name
  for name; do case " $arms " in *" $name "*) ;; *) return 1 ;; esac; done
}
minus() { awk -v a="$1" -v b="$2" 'BEGIN { printf "%.4f", a - b }'; }
bar() {
  local verdict=ok op=${4:->=}
  awk -v v="$2" -v b="$3" -v op="$op" 'BEGIN { if (v !~ /^[-+]?[0-9.]+([eE][-+]?[0-9]+)?$/) exit 1; exit !(op == ">=" ? v >= b : op == ">" ? v > b : v <= b) }' || { verdict=short; claim_short=1; }
  printf '%s: %s (%s %s) %s\n' "$1" "$2" "$op" "$3" "$verdict"
}
claim_end() { exit "$claim_short"; }
