#!/usr/bin/env bash
# Installs the hearing room agent on Debian 12 or newer or Raspberry Pi OS; or only tries or tests it.
# See --help. Beside it lies a checkout, a wheelhouse, or the installed version that it came with.
set -euo pipefail

usage() {
  cat <<'TEXT'
Usage: sudo ./install.sh [--config FILE] [--offline DIR]   install as services, or upgrade
       sudo ./install.sh --rollback                        back to the version before
       sudo ./install.sh --uninstall [--purge]             away with it; --purge: room and record too
       ./install.sh --make-offline DIR [--python 3.13] [--arch aarch64]   a wheelhouse for DIR
       ./install.sh --make-deb DIR     [--python 3.13] [--arch aarch64]   a Debian package into DIR
       ./install.sh --try  [ARGUMENT ...]   try it here and now, without installing anything
       ./install.sh --test [ARGUMENT ...]   run the tests; arguments go to pytest
       ./install.sh --help

Installing takes what is missing from Debian and PyPI, makes a Python environment of its own in
/opt/hearing-room/VERSION, lets it examine itself, and only then lets it take over: the version
before stays, and runs on when the new one does not come up. It asks nothing. A second run changes
nothing. On the box the same script is called hearing-room-install: without arguments it mends what
differs and writes the units of network cameras anew.

  --config FILE   put FILE in place as /etc/hearing-room/room.toml (one that is there is never touched)
  --offline DIR   take every Python package from a wheelhouse; call neither apt nor an index
  --dry-run       say what would be done, and do nothing (with the first three)
  PYTHON          the Python to use, 3.11 or newer (default: python3)
  DESTDIR         put everything below this folder; no user is made and nothing is started

--try and --test do all of their own set-up: Debian packages that are missing (with sudo where
needed) and a Python environment in .venv beside this file.

Exit codes: those of what was run; 64 wrong usage, 69 it did not succeed (what ran before runs on),
75 not now, because a hearing runs or is near, 78 wrong configuration.
TEXT
}

EX_USAGE=64
EX_UNAVAILABLE=69
EX_TEMPFAIL=75
EX_CONFIG=78
here=$(cd -- "$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")" && pwd -P)
venv="$here/.venv"

# Debian keeps servers and network tools out of a plain user's PATH.
export PATH="$PATH:/usr/sbin:/sbin"
# Nothing of the caller's Python may leak into ours.
unset PYTHONPATH PYTHONHOME
export PIP_USER=0 PIP_NO_INPUT=1 PIP_DISABLE_PIP_VERSION_CHECK=1

# What the program is made of: what a version is known by.
PROJECT=(agent firmware_profiles systemd packaging install.sh pyproject.toml README.md LICENSE)

say() { if [[ -t 2 ]]; then printf '• %s\n' "$*" >&2; fi; }

step() { printf '• %s\n' "$*" >&2; }

dry=false     # --dry-run: say it only
looking=false # not even that

# act TEXT COMMAND ...: says what it does (an empty TEXT goes without saying), and does it.
act() {
  local text=$1
  shift
  if $looking; then return; fi
  if [[ -n $text ]]; then step "${dry_word:-}$text"; fi
  $dry || quietly "$@"
}

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
  case $1 in
    test) tools+=(mosquitto:mosquitto ip:iproute2) ;;
    box)
      if [[ -z ${DESTDIR:-} ]]; then
        # Its units are what keeps the processes apart.
        have systemctl || echo systemd
        have udevadm || echo udev
        [[ -e /etc/ssl/certs/ca-certificates.crt ]] || echo ca-certificates
        # A room knows the hour, or it cannot know its hearing.
        [[ -e /usr/lib/systemd/systemd-timesyncd ]] || have chronyd || have ntpd ||
          echo systemd-timesyncd
      fi
      ;;
  esac
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
  command -v systemctl >/dev/null || continue
  case $package in
    mosquitto) systemctl disable mosquitto || echo "mosquitto will start at the next boot" ;;
    systemd-timesyncd) systemctl start systemd-timesyncd || true ;;
  esac
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
  if $dry; then
    step "would: Debian packages ${missing[*]}"
    return
  fi
  if [[ -n ${offline:-} ]]; then die "missing: ${missing[*]}, and --offline calls no apt; $by_hand"; fi
  have apt-get || die "missing: ${missing[*]}, and there is no apt-get here; this needs Debian 12 or newer"
  if [[ $(id -u) != 0 ]] && ! have sudo; then
    die "missing: ${missing[*]}, and no right to install them (neither root nor sudo); $by_hand"
  fi
  if [[ $1 == box ]]; then step "Debian packages: ${missing[*]}"; else say "Debian packages: ${missing[*]}"; fi
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

# The options of the verbs that change the box or make packages.
read_options() {
  config='' offline='' purge=false for_python='' for_arch='' folder=''
  while (($# > 0)); do
    case $1 in
      --dry-run) dry=true dry_word="would: " ;;
      --purge) purge=true ;;
      --config | --offline | --python | --arch)
        if [[ -z ${2:-} ]]; then wrong_usage "$1 needs a value (see --help)"; fi
        case $1 in
          --config) config=$2 ;;
          --offline) offline=$2 ;;
          --python) for_python=$2 ;;
          --arch) for_arch=$2 ;;
        esac
        shift
        ;;
      -*) wrong_usage "unknown option: $1 (see --help)" ;;
      *)
        [[ -z $folder ]] || wrong_usage "one folder, not also $1"
        folder=$1
        ;;
    esac
    shift
  done
}

# only WHAT OPTION ...: those options go with it and no others.
only() {
  local what=$1 given
  shift
  for given in "${arguments[@]}"; do
    # shellcheck disable=SC2076 # literally
    if [[ $given == --* && ! " $* " =~ " $given " ]]; then wrong_usage "$given does not go with $what"; fi
  done
}

work_in_scratch() {
  umask 022
  scratch=$(mktemp -d)
  trap 'rm -rf -- "$scratch"' EXIT
  # What nobody foresaw does not end in silence.
  set -E
  trap 'printf "install.sh: stopped: %s (%s line %s)\n" "$BASH_COMMAND" "${BASH_SOURCE[0]}" "$LINENO" >&2' ERR
  cd /
}

verb=${1:-}
arguments=("$@")
installed=
case $verb in
  --help | -h)
    usage
    ;;
  --try)
    shift
    set_up try try
    exec "$venv/bin/hearing-room" try "$@"
    ;;
  --test)
    shift
    set_up test test
    cd -- "$here"
    # Two at a time: most of a test is waiting, for a broker or for what must not come.
    if (($# == 0)); then set -- -n 2 --dist worksteal; fi
    exec "$venv/bin/python" -m pytest "$@"
    ;;
  --make-offline | --make-deb)
    read_options "${@:2}"
    only "$verb" "$verb" --python --arch
    [[ -n $folder ]] || wrong_usage "$verb DIR: name the folder to write to"
    folder=$(readlink -m -- "$folder")
    work_in_scratch
    # shellcheck source=packaging/box.sh
    source "$here/packaging/box.sh"
    # shellcheck source=packaging/offline.sh
    source "$here/packaging/offline.sh"
    if [[ $verb == --make-deb ]]; then make_deb; else make_offline; fi
    ;;
  "" | --config | --offline | --dry-run | --rollback | --uninstall | --purge)
    mode=install
    case " ${arguments[*]} " in
      *" --rollback "*) mode=rollback ;;
      *" --uninstall "*) mode=uninstall ;;
    esac
    rest=()
    for word in "$@"; do
      case $word in --rollback | --uninstall) ;; *) rest+=("$word") ;; esac
    done
    read_options "${rest[@]}"
    [[ -z $folder ]] || wrong_usage "what is $folder? (see --help)"
    case $mode in
      install) only "an installation" --config --offline --dry-run ;;
      rollback) only --rollback --rollback --dry-run ;;
      uninstall) only --uninstall --uninstall --purge --dry-run ;;
    esac
    # What lies beside this script: a checkout, a wheelhouse, or the version that it came with.
    if [[ ! -e $here/pyproject.toml ]]; then
      if compgen -G "$here/hearing_room_agent-*.whl" >/dev/null; then offline=${offline:-$here}; fi
      if [[ -e $here/../../pyvenv.cfg && -z $offline ]]; then installed=yes; fi
    fi
    if [[ -n $config ]]; then config=$(readlink -m -- "$config"); fi
    if [[ -n $offline ]]; then offline=$(readlink -m -- "$offline"); fi
    wheel=''
    work_in_scratch
    # shellcheck source=packaging/box.sh
    source "$here/packaging/box.sh"
    case $mode in
      install) install_box ;;
      rollback) roll_back ;;
      uninstall) uninstall ;;
    esac
    ;;
  *)
    wrong_usage "unknown option: $verb (see --help)"
    ;;
esac
