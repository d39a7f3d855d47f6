# lib.sh - what the scripts share: the packages that the build needs, and the build. Sourced, not run; the working directory is
# the top of the repository.
#   ensure_packages MODE INSTALL   MODE release, sanitize, clang or fuzz; INSTALL yes or no
#   build PRESET [TARGET ...]      quiet unless it fails
jobs=$(nproc)

# ---- what the build needs ---------------------------------------------------------------------------------------------
missing=()
need_command() { command -v "$1" >/dev/null || missing+=("$2"); }
need_library() { pkg-config --exists "$1" 2>/dev/null || missing+=("$2"); }
libfuzzer_works() {
  command -v clang >/dev/null || return 1
  local dir status=0
  dir=$(mktemp -d)
  echo 'int LLVMFuzzerTestOneInput(const char *d, unsigned long n); int LLVMFuzzerTestOneInput(const char *d, unsigned long n) { return d && n > 9; }' >"$dir/x.c"
  clang -fsanitize=fuzzer,address "$dir/x.c" -o "$dir/x" 2>/dev/null || status=1
  rm -rf "$dir"
  return $status
}
find_missing() { # mode
  local mode=$1
  missing=()
  need_command gcc build-essential
  need_command g++ build-essential
  need_command cmake cmake
  need_command ninja ninja-build
  need_command pkg-config pkg-config
  need_library yaml-0.1 libyaml-dev
  need_library jansson libjansson-dev
  need_library libutf8proc libutf8proc-dev
  need_library sqlite3 libsqlite3-dev
  need_library cairo libcairo2-dev
  need_library libxxhash libxxhash-dev
  need_library zlib zlib1g-dev
  need_library libevent_openssl libevent-dev
  need_library openssl libssl-dev
  need_command curl curl
  if [ "$mode" = clang ] || [ "$mode" = fuzz ]; then need_command clang clang; fi
  # libFuzzer comes with clang on Ubuntu 22.04, in a package of clang's version elsewhere.
  if [ "$mode" = fuzz ] && command -v clang >/dev/null && ! libfuzzer_works; then
    missing+=("libclang-rt-$(clang -dumpversion | cut -d. -f1)-dev")
  fi
}
as_root() {
  if [ "$(id -u)" = 0 ]; then "$@"; else sudo -n "$@"; fi
}
install_packages() {
  as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "$@" </dev/null
}

ensure_packages() { # mode, install
  local mode=$1 install=$2 round
  find_missing "$mode"
  if [ ${#missing[@]} -gt 0 ]; then
    echo "missing: ${missing[*]}"
    if [ "$install" = no ] || ! command -v apt-get >/dev/null || { [ "$(id -u)" != 0 ] && ! sudo -n true 2>/dev/null; }; then
      echo "$0: install what is missing and run it again, e.g. sudo apt-get install ${missing[*]}" >&2
      exit 1
    fi
    as_root apt-get update -qq
    # Twice: which runtime package clang needs is known only once clang is there.
    for round in 1 2; do
      [ ${#missing[@]} -eq 0 ] || install_packages "${missing[@]}"
      find_missing "$mode"
    done
    if [ ${#missing[@]} -gt 0 ]; then
      echo "$0: still missing after the installation: ${missing[*]}" >&2
      exit 1
    fi
    # Optional: without oneDNN the large products use Mneme's own kernels.
    [ -e /usr/include/dnnl.h ] || install_packages libdnnl-dev || echo "note: oneDNN (libdnnl-dev) could not be installed"
  fi
}

build() { # preset [target ...]
  local preset=$1 log
  shift
  log=$(mktemp)
  cmake --preset "$preset" >"$log" 2>&1 || { cat "$log"; rm -f "$log"; return 1; }
  rm -f "$log"
  cmake --build --preset "$preset" -j "$jobs" ${1:+--target "$@"}
}
