#!/usr/bin/env bash
# Sets up what is needed on Debian 12 or newer or Raspberry Pi OS, then runs it. See --help.
set -euo pipefail

usage() {
  cat <<'TEXT'
Usage: ./install.sh --try  [ARGUMENT ...]   try it here and now, without installing anything
       ./install.sh --test [ARGUMENT ...]   run the tests; arguments go to pytest
       ./install.sh --help

Each does all of its own set-up: Debian packages that are missing (with sudo where needed) and a
Python environment in .venv beside this file. A second run finds both and starts at once.

  PYTHON   the Python to use, 3.11 or newer (default: python3)

Exit codes: those of what was run; 64 wrong usage, 69 the set-up did not succeed.
TEXT
}

EX_USAGE=64
EX_UNAVAILABLE=69
here=$(cd -- "$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")" && pwd -P)
venv="$here/.venv"

# Debian keeps servers and network tools out of a plain user's PATH.
export PATH="$PATH:/usr/sbin:/sbin"
# Nothing of the caller's Python may leak into ours.
unset PYTHONPATH PYTHONHOME
export PIP_USER=0 PIP_NO_INPUT=1 PIP_DISABLE_PIP_VERSION_CHECK=1

say() { if [[ -t 2 ]]; then printf '• %s\n' "$*" >&2; fi; }

die() {
  printf 'install.sh: %s\n' "$*" >&2
  exit "$EX_UNAVAILABLE"
}

wrong_usage() {
  printf 'install.sh: %s\n' "$*" >&2
  exit "$EX_USAGE"
}

have() { command -v -- "$1" >/dev/null 2>&1; }

# A person sees what goes on; a pipe sees the last lines, and only when it went wrong.
quietly() {
  if [[ -t 2 ]]; then
    "$@" </dev/null >&2
    return
  fi
  local log status=0
  log=$(mktemp)
  "$@" </dev/null >"$log" 2>&1 || status=$?
  if ((status != 0)); then tail -n 20 -- "$log" >&2; fi
  rm -f -- "$log"
  return "$status"
}

# --- Debian packages ------------------------------------------------------------------------

is_new_enough() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }
is_usable() { is_new_enough "$1" && "$1" -c 'import ensurepip, venv' 2>/dev/null; }

# Sets `python`, what the environment is built with; empty where a package has to bring it.
find_python() {
  local candidate
  python=
  if [[ -n ${PYTHON:-} ]]; then
    have "$PYTHON" || die "PYTHON=$PYTHON: no such program"
    is_new_enough "$PYTHON" || die "PYTHON=$PYTHON is older than Python 3.11"
    is_usable "$PYTHON" || die "PYTHON=$PYTHON has no venv and ensurepip modules"
    python=$PYTHON
    return
  fi
  for candidate in python3 python3.13 python3.12 python3.11; do
    if have "$candidate" && is_usable "$candidate"; then
      python=$candidate
      return
    fi
  done
  if have python3 && ! is_new_enough python3; then
    die "Python 3.11 or newer is needed, as in Debian 12 and Raspberry Pi OS 12; or name one: PYTHON=..."
  fi
}

# Prints the packages that are missing, one a line. $1 is the verb.
missing_packages() {
  local tool tools=(arecord:alsa-utils)
  if [[ -z $python ]]; then
    have python3 || echo python3
    echo python3-venv
  fi
  if [[ $1 == test ]]; then
    tools+=(mosquitto:mosquitto ip:iproute2)
  fi
  for tool in "${tools[@]}"; do
    have "${tool%%:*}" || echo "${tool#*:}"
  done
}

# Runs as root: `apt_script PACKAGE ...`. No service may start (mosquitto's package would start
# one) and none that comes new may start at the next boot. The policy file is the one switch that
# both invoke-rc.d and deb-systemd-invoke heed; what stood there comes back, also after a kill.
# shellcheck disable=SC2016 # expanded by the shell that runs it
apt_script='
set -eu
policy=/usr/sbin/policy-rc.d
aside=$policy.hearing-room
restore() {
  if [ -e "$policy" ] && grep -q "by hearing-room" "$policy"; then rm -f "$policy"; fi
  if [ -e "$aside" ]; then mv "$aside" "$policy"; fi
}
restore
trap restore EXIT
trap "exit 130" INT TERM HUP
if [ -e "$policy" ]; then mv "$policy" "$aside"; fi
printf "#!/bin/sh\n# put here for a moment by hearing-room install.sh\nexit 101\n" >"$policy"
chmod 755 "$policy"
export DEBIAN_FRONTEND=noninteractive
apt-get -q -o DPkg::Lock::Timeout=300 update || echo "going on with the package lists as they are"
apt-get -q -y -o DPkg::Lock::Timeout=300 install --no-install-recommends "$@"
for package in "$@"; do
  if [ "$package" = mosquitto ] && command -v systemctl >/dev/null; then
    systemctl disable mosquitto || echo "mosquitto will start at the next boot"
  fi
done
'

as_root() {
  if [[ $(id -u) == 0 ]]; then
    quietly "$@"
  elif [[ -t 0 && -t 2 ]]; then
    quietly sudo -- "$@"
  else
    quietly sudo -n -- "$@"
  fi
}

ensure_packages() {
  local missing by_hand
  mapfile -t missing < <(missing_packages "$1")
  if ((${#missing[@]} == 0)); then return; fi
  by_hand="install by hand: sudo apt-get install ${missing[*]}"
  have apt-get || die "missing: ${missing[*]}, and there is no apt-get here; this needs Debian 12 or newer"
  if [[ $(id -u) != 0 ]] && ! have sudo; then
    die "missing: ${missing[*]}, and no right to install them (neither root nor sudo); $by_hand"
  fi
  say "Debian packages: ${missing[*]}"
  as_root sh -c "$apt_script" sh "${missing[@]}" ||
    die "could not install ${missing[*]}; is there a network, and the right to use sudo? $by_hand"
  find_python
  mapfile -t missing < <(missing_packages "$1")
  if ((${#missing[@]} != 0)); then die "still missing after the installation: ${missing[*]}"; fi
}

# --- Python environment -----------------------------------------------------------------------

# ensure_venv EXTRA: .venv holds the package, and what `.[EXTRA]` names. Its stamps say what it was
# made from, so that nothing is done twice and a changed pyproject.toml or Python is noticed.
ensure_venv() {
  local extra=$1 base made_from stamp
  base=$("$python" -c 'import sys; print(sys.version, sys.base_prefix)')
  base+=" $here"
  made_from=$(printf '%s\n' "$base" | cat - "$here/pyproject.toml" | sha256sum)
  for stamp in "$venv/.made-from-$extra" "$venv/.made-from-test"; do
    if [[ $(cat -- "$stamp" 2>/dev/null) == "$made_from" ]] && "$venv/bin/python" -c '' 2>/dev/null; then
      return
    fi
  done
  [[ -w $here && (! -e $venv || -w $venv) ]] || die "no right to write to $venv"
  # An environment of another Python, or one that was moved here, cannot be mended; one that
  # somebody made by hand is taken as it is.
  if ! "$venv/bin/python" -c 'import pip' 2>/dev/null ||
    [[ -e $venv/.base && $(cat -- "$venv/.base") != "$base" ]]; then
    say "Python environment: $venv"
    quietly "$python" -m venv --clear -- "$venv" || die "could not make $venv"
  fi
  printf '%s' "$base" >"$venv/.base"
  say "Python packages (some hundred megabytes the first time)"
  local pip=("$venv/bin/python" -m pip install --prefer-binary)
  if [[ ! -t 2 ]]; then pip+=(--quiet); fi
  quietly env -C "$here" "${pip[@]}" --editable ".${extra:+[$extra]}" ||
    die "could not install the Python packages (see above); is there a network?"
  printf '%s' "$made_from" >"$venv/.made-from-$extra"
}

# set_up VERB EXTRA, one at a time: a second run waits for the first.
set_up() {
  find_python
  exec 9<"$here"
  if have flock && ! flock --nonblock 9; then
    say "waiting for another run in $here"
    flock 9
  fi
  ensure_packages "$1"
  ensure_venv "$2"
  exec 9<&-
}

# --- what was asked ---------------------------------------------------------------------------

verb=${1:-}
if (($# > 0)); then shift; fi
case $verb in
  --help | -h)
    usage
    ;;
  --try)
    set_up try try
    exec "$venv/bin/hearing-room" try "$@"
    ;;
  --test)
    set_up test test
    cd -- "$here"
    exec "$venv/bin/python" -m pytest "$@"
    ;;
  "" | --rollback | --uninstall)
    wrong_usage "installing as a service is not in this version yet; there are --try and --test (see --help)"
    ;;
  *)
    wrong_usage "unknown option: $verb (see --help)"
    ;;
esac
