# lib.sh - what the benches share; sourced, not run.
# Peers live in a private environment that no other program sees:
#   peer_python PACKAGE...   prints a Python in which the packages are installed, making the environment if needed.
#   peers_there MODULE...    whether that Python is there and has them, for a bench whose own half needs none; nothing is installed.
# MNEME_PEER_PYTHON names a Python that has the packages already, and then nothing is installed.
set -euo pipefail
bench_dir=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
repo_dir=$(dirname "$bench_dir")
mneme=${MNEME:-$repo_dir/build/mneme}

# -h and --help, wherever they stand (a sourced file sees who sources it, and what that was given): the head of the script that is run.
case " $* " in
  *" -h "* | *" --help "*)
    sed -n '2,${/^#/!q;s/^# \{0,1\}//p;}' "$0"
    exit 0
    ;;
esac

need_mneme() {
  if [ ! -x "$mneme" ]; then
    echo "$0: $mneme is not there; build it (cmake --preset release && ninja -C build) or name it with MNEME=" >&2
    exit 1
  fi
}

peers_there() {
  local python=${MNEME_PEER_PYTHON:-${XDG_CACHE_HOME:-$HOME/.cache}/mneme/peers/bin/python}
  [ -x "$(command -v "$python")" ] && "$python" -c 'import importlib.util, sys
sys.exit(any(importlib.util.find_spec(name) is None for name in sys.argv[1:]))' "$@"
}

peer_python() {
  if [ -n "${MNEME_PEER_PYTHON:-}" ]; then
    echo "$MNEME_PEER_PYTHON"
    return
  fi
  local venv=${XDG_CACHE_HOME:-$HOME/.cache}/mneme/peers
  if [ ! -x "$venv/bin/python" ]; then
    echo "making the peers' environment in $venv" >&2
    mkdir -p "$(dirname "$venv")"
    local begun=no
    [ -e "$venv" ] || [ -L "$venv" ] || begun=yes
    if ! python3 -m venv "$venv" >&2; then
      [ "$begun" = no ] || rm -rf -- "$venv" # only what was not there before
      echo "$0: python3 cannot make an environment; on Debian and Ubuntu: apt install python3-venv" >&2
      exit 1
    fi
  fi
  local package missing=()
  for package in "$@"; do
    "$venv/bin/pip" show --quiet "$package" >/dev/null 2>&1 || missing+=("$package")
  done
  if [ ${#missing[@]} -gt 0 ]; then
    echo "installing ${missing[*]} (once; PyTorch is large)" >&2
    if ! "$venv/bin/pip" install --disable-pip-version-check "${missing[@]}" >&2; then
      echo "$0: the peers could not be installed; is the package index reachable? MNEME_PEER_PYTHON=PYTHON uses one that has them" >&2
      exit 1
    fi
  fi
  echo "$venv/bin/python"
}
