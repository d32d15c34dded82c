# Sourced by deploy/quickstart, tests/run and .ci/run: what has to be on the machine before anything is built or run.
# Silent when nothing is to do.

say() { printf '%s\n' "$*" >&2; }

as_root() {
  if [ "$(id -u)" -eq 0 ]; then
    "$@"
  elif command -v sudo >/dev/null 2>&1; then
    sudo "$@"
  else
    say "this needs root: $*"
    say "run it by hand as root, then start again"
    return 1
  fi
}

# install_packages NAME… installs the named packages that are missing, without letting their services start.
install_packages() {
  local missing=() name
  for name in "$@"; do
    [ "$(dpkg-query -W -f='${db:Status-Status}' "$name" 2>/dev/null)" = installed ] || missing+=("$name")
  done
  [ "${#missing[@]}" -gt 0 ] || return 0
  if ! command -v apt-get >/dev/null 2>&1; then
    say "missing: ${missing[*]}; this script installs packages on Debian and Ubuntu only"
    return 1
  fi
  say "installing ${missing[*]}"
  # A package that starts its own server would take ports and memory that are not ours to take.
  # In a shell of its own, so that an interrupted installation does not leave the machine without services.
  (
    policy=/usr/sbin/policy-rc.d
    if [ ! -e "$policy" ]; then
      trap 'as_root rm -f "$policy"' EXIT
      trap 'exit 130' INT TERM HUP
      printf '#!/bin/sh\nexit 101\n' | as_root tee "$policy" >/dev/null && as_root chmod 755 "$policy" || exit 1
    fi
    apt_install "${missing[@]}"
  )
}

apt_install() {
  local log
  log=$(mktemp)
  # The lists of a fresh machine are empty or old: they are renewed before the installation and not otherwise.
  if as_root apt-get update >"$log" 2>&1 &&
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "$@" >>"$log" 2>&1 </dev/null; then
    rm -f "$log"
  else
    tail -n 20 "$log" >&2
    say "the installation of $* failed; its whole output is in $log"
    return 1
  fi
}

# A version of PostgreSQL that is there already is good enough; else 15 where the distribution has it.
install_postgres() {
  compgen -G '/usr/lib/postgresql/*/bin/postgres' >/dev/null && return 0
  [ -n "$(apt-cache policy postgresql-15 2>/dev/null)" ] || as_root apt-get update >/dev/null 2>&1 || true
  if [ -n "$(apt-cache policy postgresql-15 2>/dev/null)" ]; then
    install_packages postgresql-15
  else
    install_packages postgresql
  fi
}

# What every build needs: a toolchain, and a C compiler for the cryptography.
install_build_tools() {
  command -v cc >/dev/null 2>&1 || install_packages gcc libc6-dev || return 1
  if ! command -v cargo >/dev/null 2>&1; then
    # A shell that is not a login shell does not have it on its path.
    [ -x "${HOME:-}/.cargo/bin/cargo" ] && PATH="$HOME/.cargo/bin:$PATH" && return 0
    say "cargo is not on the path: install Rust 1.95 or newer first"
    return 1
  fi
}

cache_folder() {
  if [ -z "${XDG_CACHE_HOME:-${HOME:-}}" ]; then
    say "neither XDG_CACHE_HOME nor HOME is set: set one of them to a folder that may be written"
    return 1
  fi
  printf '%s\n' "${XDG_CACHE_HOME:-$HOME/.cache}/regent"
}
