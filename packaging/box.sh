# shellcheck shell=bash
# The installed box: put a version in place, let it take over, go back, take everything away.
# Sourced by install.sh, whose words it uses (die, step, act, quietly, have).
#
#   /opt/hearing-room/VERSION     a Python environment of its own, with units and installer in share/
#   /opt/hearing-room/current     the one that the units run; /opt/hearing-room/previous: the one before
#   /opt/hearing-room/files       what was put elsewhere, one path a line

root=${DESTDIR:-}
opt="$root/opt/hearing-room"
etc="$root/etc/hearing-room"
units="$root/usr/local/lib/systemd/system"
readonly ENABLED=(hearing-room-senses.socket hearing-room-hands.socket hearing-room-hands.service
  hearing-room-reboot.path hearing-room-agent.service)
files=()   # what belongs to the version, outside of its own folder, as paths of the box
netcams=() # sockets of cameras on the network
changed=() # of these, what was not as it should be
switched=  # another version took over in this run
users_made=
failed=    # something could not be put in place

is_running_systemd() { [[ -z $root && -d /run/systemd/system ]]; }

# As the service's user, who must be able to do it; where there is none (DESTDIR) as ourselves.
as_agent() {
  if [[ -z $root ]] && id -u hearing-room >/dev/null 2>&1; then
    runuser -u hearing-room -- env HOME=/nonexistent "$@"
  else
    "$@"
  fi
}

version_of() { # LINK: the version that a link points to, empty where there is none
  local link="$opt/$1"
  if [[ -L $link && -d $link/ ]]; then basename -- "$(readlink -- "$link")"; fi
}

# --- before anything ----------------------------------------------------------------------------

look_around() {
  local id="" version_id="" name="" machine model=""
  if [[ -r /etc/os-release ]]; then
    id=$(sed -n 's/^ID=//p' /etc/os-release | tr -d '"')
    version_id=$(sed -n 's/^VERSION_ID=//p' /etc/os-release | tr -d '"')
    name=$(sed -n 's/^PRETTY_NAME=//p' /etc/os-release | tr -d '"')
  fi
  machine=$(uname -m)
  if [[ -r /proc/device-tree/model ]]; then model=$(tr -d '\0' </proc/device-tree/model); fi
  step "${model:+$model, }${name:-an unknown system}, $machine"
  case $machine in
    x86_64 | aarch64) ;;
    *) die "$machine: 64 bits are needed (x86_64 or aarch64); on a Raspberry Pi install the 64-bit system" ;;
  esac
  if [[ ! $id =~ ^(debian|raspbian)$ || ${version_id%%.*} -lt 12 ]]; then
    step "not Debian 12 or newer: nobody has tried this here"
  fi
  if ! is_running_systemd; then
    step "systemd does not run here: everything is put in place and starts at the next boot"
  fi
}

need_root() {
  if [[ -z $root && $(id -u) != 0 ]] && ! $dry; then
    wrong_usage "run it as root: sudo $0 $*"
  fi
}

one_at_a_time() {
  if $dry || ! have flock; then return; fi
  mkdir -p -- "$opt"
  exec 8<"$opt"
  flock --nonblock 8 || die "another installation is at work; try again when it has ended"
}

# A box that dpkg keeps is changed through dpkg.
not_kept_by_apt() {
  if [[ -z ${HEARING_ROOM_DEB:-} && -z $root ]] && have dpkg-query &&
    [[ $(dpkg-query -W -f '${db:Status-Status}' hearing-room-agent 2>/dev/null) == installed ]]; then
    die "this box is kept by apt: sudo $1"
  fi
}

# In session (and when one is near) nothing is touched.
not_in_session() {
  local why status=0
  if [[ -n $root || ! -x $opt/current/bin/hearing-room ]]; then return; fi
  why=$(RUNTIME_DIRECTORY=/run/hearing-room "$opt/current/bin/hearing-room" may-upgrade 2>&1) || status=$?
  if ((status == EX_TEMPFAIL)); then
    printf 'install.sh: not now: %s\n' "$why" >&2
    exit "$EX_TEMPFAIL"
  fi
}

# --- a version in its place -----------------------------------------------------------------------

# Sets `version` and `stamp`: what it is called, and what it is made from.
read_checkout() {
  local name names=()
  version=$(sed -n 's/^version = "\(.*\)"$/\1/p' "$here/pyproject.toml" | head -n 1)
  for name in "${PROJECT[@]}"; do
    if [[ -e $here/$name ]]; then names+=("$name"); fi
  done
  stamp=$(cd -- "$here" && find "${names[@]}" -type f ! -name '*.pyc' -print0 |
    LC_ALL=C sort -z | xargs -0 sha256sum | sha256sum)
}

read_wheelhouse() {
  local wheels made_for
  mapfile -t wheels < <(compgen -G "$offline/hearing_room_agent-*.whl")
  ((${#wheels[@]} == 1)) ||
    die "$offline: ${#wheels[@]} wheels of hearing-room-agent; there must be one: make it with --make-offline"
  wheel=${wheels[0]}
  version=$(basename -- "$wheel" | cut -d- -f2)
  stamp=$(cd -- "$offline" && LC_ALL=C sha256sum -- *.whl | sha256sum)
  if [[ -e $offline/SHA256SUMS ]]; then
    (cd -- "$offline" && sha256sum --quiet --check SHA256SUMS >&2) ||
      die "$offline: not as it was made (see above): copy it again"
  fi
  if [[ -e $offline/ABOUT ]]; then
    made_for=$(cat -- "$offline/ABOUT")
    [[ $made_for == *"python $("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')"* ]] ||
      die "$offline is for $(sed -n 's/^python /Python /p' "$offline/ABOUT"), and $python is $("$python" --version); make another: --make-offline DIR --python"
    [[ $made_for == *"arch $(uname -m)"* ]] ||
      die "$offline is for $(sed -n 's/^arch //p' "$offline/ABOUT"), and this is $(uname -m)"
  fi
}

# Chooses the folder: `target`. A version that is there with other contents keeps its own.
choose_folder() {
  local base
  base=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null) || base=3
  stamp=$(printf '%s %s %s' "${stamp%% *}" "$base" "$(uname -m)" | sha256sum | cut -c1-64)
  target=$version
  if [[ -e $opt/$version/.made-from && $(cat -- "$opt/$version/.made-from") != "$stamp" ]]; then
    target="$version+${stamp:0:8}"
  fi
}

is_made() {
  [[ $(cat -- "$opt/$target/.made-from" 2>/dev/null) == "$stamp" ]] &&
    "$opt/$target/bin/python" -c '' 2>/dev/null
}

# An unfinished environment is made anew; one that is in use never gets here.
make_version() {
  local where="$opt/$target" pip source=$wheel
  if is_made; then return; fi
  if [[ $target == "$(version_of current)" ]]; then
    step "$target is damaged or its Python has changed: it is made anew"
  fi
  act "Python environment $where" nice -n 10 "$python" -m venv --clear -- "$where" ||
    die "could not make $where; is there room on the disk (df -h /opt)?"
  pip=("$where/bin/python" -m pip install --no-cache-dir --prefer-binary)
  if [[ ! -t 2 ]]; then pip+=(--quiet); fi
  if [[ -n $offline ]]; then
    pip+=(--isolated --no-index --find-links "$offline")
  elif ! $dry; then
    source=$(build_wheel "$where/bin/python") || die "could not build the program's wheel (see above)"
  fi
  act "Python packages (some hundred megabytes${offline:+, from $offline})" \
    nice -n 10 "${pip[@]}" "${source:-.}[card]" || {
    rm -rf -- "$where"
    die "could not install the Python packages (see above); is there a network, or a wheelhouse (--offline DIR)?"
  }
  if ! $dry; then
    chmod -R go+rX -- "$where"
    printf '%s' "$stamp" >"$where/.made-from"
  fi
}

# The distribution's wheel of this checkout; the sources stay as they are. Prints its path.
build_wheel() { # PYTHON
  local tmp="$scratch/source" name
  mkdir -p -- "$tmp" "$scratch/wheel"
  for name in "${PROJECT[@]}"; do
    if [[ -e $here/$name ]]; then cp -R -- "$here/$name" "$tmp/"; fi
  done
  quietly "$1" -m pip wheel --quiet --no-deps -w "$scratch/wheel" "$tmp" || return
  compgen -G "$scratch/wheel/*.whl"
}

# --- files elsewhere --------------------------------------------------------------------------------

# place SOURCE TARGET [MODE]: whole or not at all, and only where it differs.
place() {
  local source=$1 file=$root$2 mode=${3:-0644}
  files+=("$2")
  if cmp -s -- "$source" "$file" || { $dry && was_changed "$2"; }; then return; fi
  changed+=("$2")
  act "$2" install -D -m "$mode" -- "$source" "$file.new" && act "" mv -fT -- "$file.new" "$file" ||
    failed+=" $2"
}

# point LINK TARGET: a symbolic link, in one step.
point() {
  local link=$root$1 to=$2
  files+=("$1")
  if [[ -L $link && $(readlink -- "$link") == "$to" ]]; then return; fi
  changed+=("$1")
  act "$1 -> $to" mkdir -p -- "$(dirname -- "$link")" &&
    act "" ln -sfn -- "$to" "$link.new" && act "" mv -fT -- "$link.new" "$link" || failed+=" $1"
}

was_changed() { # PATTERN
  local one
  for one in "${changed[@]}"; do
    # shellcheck disable=SC2053 # a pattern
    if [[ $one == $1 ]]; then return 0; fi
  done
  return 1
}

# Users and folders: before the version is tried, for it is tried as its own user.
place_users() { # SHARE
  local before=${#changed[@]}
  place "$1/sysusers.d/hearing-room.conf" /etc/sysusers.d/hearing-room.conf
  place "$1/tmpfiles.d/hearing-room.conf" /etc/tmpfiles.d/hearing-room.conf
  if [[ -n $root ]]; then
    if [[ ! -d $etc ]]; then act "" mkdir -p -m 0750 -- "$etc"; fi
    return
  fi
  if $looking || [[ -n $users_made ]]; then return; fi
  if ((${#changed[@]} == before)) && id -u hearing-room-senses >/dev/null 2>&1 && [[ -d $etc/secrets ]]; then
    return
  fi
  users_made=yes
  act "users hearing-room, hearing-room-hands, hearing-room-senses" \
    systemd-sysusers /etc/sysusers.d/hearing-room.conf || failed+=" users"
  act "/etc/hearing-room" systemd-tmpfiles --create /etc/tmpfiles.d/hearing-room.conf ||
    failed+=" /etc/hearing-room"
}

# Units, rules and limits of a version; what an earlier one had besides goes.
place_files() { # SHARE
  local share=$1 file name
  for file in "$share"/system/*; do
    name=$(basename -- "$file")
    place "$file" "/usr/local/lib/systemd/system/$name"
  done
  place "$share/udev/rules.d/60-hearing-room.rules" /etc/udev/rules.d/60-hearing-room.rules
  place "$share/sysctl.d/60-hearing-room.conf" /etc/sysctl.d/60-hearing-room.conf
  place "$share/journald.conf.d/60-hearing-room.conf" /etc/systemd/journald.conf.d/60-hearing-room.conf
  if [[ -e $root/dev/watchdog0 ]]; then
    place "$share/system.conf.d/60-hearing-room-watchdog.conf" \
      /etc/systemd/system.conf.d/60-hearing-room-watchdog.conf
  fi
  place_netcams "$share"
  point /usr/local/bin/hearing-room /opt/hearing-room/current/bin/hearing-room
  point /usr/local/sbin/hearing-room-install /opt/hearing-room/current/share/hearing-room/install.sh
}

# One pair of units for each camera on the network, and the addresses that it has.
place_netcams() { # SHARE
  local made="$scratch/netcams-$target" file name
  netcams=()
  if $dry && [[ ! -x $opt/$target/bin/hearing-room ]]; then
    act "units of the cameras on the network, from room.toml" true
    return
  fi
  if [[ ! -d $made ]]; then
    mkdir -p -- "$made"
    "$opt/$target/bin/hearing-room" config netcams --templates "$1/netcam" --output "$made" \
      "$etc/room.toml" || failed+=" units of the cameras on the network"
  fi
  for file in "$made"/*; do
    name=$(basename -- "$file")
    case $name in
      \*) ;;
      *.hosts) place "$file" "/etc/hearing-room/netcam/$name" ;;
      *.socket)
        netcams+=("$name")
        place "$file" "/usr/local/lib/systemd/system/$name"
        ;;
      *) place "$file" "/usr/local/lib/systemd/system/$name" ;;
    esac
  done
}

# Takes away what was put in place earlier and is not any more, and notes what there is now.
forget_others() {
  local file
  if [[ -e $opt/files ]]; then
    while IFS= read -r file; do
      # shellcheck disable=SC2076 # literally
      if [[ " ${files[*]} " =~ " $file " ]]; then continue; fi
      remove_file "$file"
    done <"$opt/files"
  fi
  if $dry || $looking; then return; fi
  mkdir -p -- "$opt"
  printf '%s\n' "${files[@]}" >"$scratch/files"
  if ! cmp -s -- "$scratch/files" "$opt/files"; then cp -- "$scratch/files" "$opt/files"; fi
}

remove_file() { # PATH of the box
  if [[ $1 == *.socket || $1 == *.service || $1 == *.path ]]; then
    if is_running_systemd && [[ $1 != *@* ]]; then
      act "" systemctl disable --quiet --now "$(basename -- "$1")" || true
    fi
  fi
  if [[ -e $root$1 || -L $root$1 ]]; then
    changed+=("$1")
    act "away with $1" rm -f -- "$root$1"
  fi
}

# --- taking over --------------------------------------------------------------------------------------

# Prints what a version says of itself; fails where it cannot work here.
passes() { # VERSION
  if $dry; then
    step "would: let $1 examine itself (hearing-room doctor --program)"
    return
  fi
  as_agent "$opt/$1/bin/hearing-room" doctor --program --language en --config "$etc/room.toml" >"$scratch/doctor" 2>&1 || {
    cat -- "$scratch/doctor" >&2
    return 1
  }
}

share_of() { # VERSION: where its units are; of one that is not made yet (--dry-run), in its source
  local share="$opt/$1/share/hearing-room/systemd"
  if [[ -d $share ]]; then
    echo "$share"
  elif [[ -n $offline ]]; then
    "$python" -m zipfile -e "$wheel" "$scratch/unpacked"
    echo "$scratch"/unpacked/*.data/data/share/hearing-room/systemd
  else
    echo "$here/systemd"
  fi
}

# take_over VERSION: its files, its link, its processes. Fails when the agent does not come up.
take_over() {
  local share
  share=$(share_of "$1")
  target=$1 files=() failed=
  place_users "$share"
  place_files "$share"
  if [[ -n $failed ]]; then
    step "could not be put in place:$failed (is there room on the disk? df -h / /opt)"
    return 1
  fi
  forget_others
  if [[ $(version_of current) != "$1" ]]; then
    switched=yes
    point_version current "$1" || return
  fi
  settle_system
  enable_units || return
  start_units
}

point_version() { # LINK VERSION
  act "/opt/hearing-room/$1 -> $2" ln -sfn -- "$2" "$opt/$1.new" &&
    act "" mv -fT -- "$opt/$1.new" "$opt/$1"
}

# Whether a version would change anything here: what `take_over` would do, only looked at.
would_change() { # VERSION
  local quiet=$looking before=("${changed[@]}") found
  looking=true
  target=$1 files=() failed=
  place_users "$(share_of "$1")"
  place_files "$(share_of "$1")"
  forget_others
  looking=$quiet
  found=$((${#changed[@]} - ${#before[@]}))
  changed=("${before[@]}")
  ((found > 0)) || [[ $(version_of current) != "$1" ]]
}

settle_system() {
  if ! is_running_systemd; then return; fi
  if was_changed "/usr/local/lib/systemd/system/*"; then act "" systemctl daemon-reload; fi
  if was_changed "/etc/udev/rules.d/*"; then
    act "rights of devices" udevadm control --reload
    act "" udevadm trigger --action=add --subsystem-match=usb --subsystem-match=gpio \
      --subsystem-match=hidraw --subsystem-match=i2c-dev --subsystem-match=leds
    act "" udevadm settle --timeout=30 || true
    act "" systemd-tmpfiles --create /etc/tmpfiles.d/hearing-room.conf || true
  fi
  if was_changed "/etc/sysctl.d/*"; then
    act "" /usr/lib/systemd/systemd-sysctl /etc/sysctl.d/60-hearing-room.conf || true
  fi
  if was_changed "/etc/systemd/journald.conf.d/*"; then
    act "" systemctl try-restart systemd-journald.service || true
  fi
  # Also while the hardware has none: then it is a setting that waits.
  if was_changed "/etc/systemd/system.conf.d/*"; then
    act "hardware watchdog" systemctl daemon-reexec || true
  fi
}

enable_units() {
  local unit rooted=()
  if [[ -n $root ]]; then
    have systemctl || return 0
    rooted=(--root="$root")
  fi
  for unit in "${ENABLED[@]}" "${netcams[@]}"; do
    if [[ $(systemctl "${rooted[@]}" is-enabled "$unit" 2>/dev/null) != enabled ]]; then
      act "$unit starts at boot" systemctl "${rooted[@]}" enable --quiet "$unit" || return
    fi
  done
}

# Sockets first. hands is handed over to its next process (RestartKillSignal=): no relay moves.
start_units() {
  local unit
  if ! is_running_systemd; then return; fi
  for unit in hearing-room-senses.socket hearing-room-hands.socket hearing-room-reboot.path "${netcams[@]}"; do
    if was_changed "*/$unit" && systemctl --quiet is-active "$unit"; then
      act "$unit again" systemctl restart "$unit" || return
    fi
    systemctl --quiet is-active "$unit" || act "$unit" systemctl start "$unit" || return
  done
  if [[ -n $switched ]] || was_changed "*/hearing-room-hands.service"; then
    act "hands, with every relay where it is" systemctl restart hearing-room-hands.service || return
  fi
  if [[ -n $switched ]] || was_changed "*/hearing-room-agent.service" || was_changed "/etc/hearing-room/room.toml"; then
    act "the agent" systemctl restart hearing-room-agent.service || return
  else
    systemctl --quiet is-active hearing-room-agent.service ||
      act "the agent" systemctl start hearing-room-agent.service || return
  fi
}

# Waits until the agent of this version has said something of the room, at most a minute, and stays.
is_up() { # VERSION
  local ends=$((SECONDS + 60)) wanted told
  if $dry || ! is_running_systemd; then return; fi
  wanted=$("$opt/$1/bin/hearing-room" --version)
  while ((SECONDS < ends)); do
    told=$(RUNTIME_DIRECTORY=/run/hearing-room "$opt/$1/bin/hearing-room" status --json 2>/dev/null) || true
    if [[ $told == *"\"version\":\"$wanted\""* && $told != *'"stale"'* ]]; then
      still_there && return
      break
    fi
    sleep 1
  done
  step "the agent says nothing; the end of its log:"
  journalctl -u hearing-room-agent.service -n 15 --no-pager -o cat >&2 || true
  return 1
}

# Whether the agent is there for longer than a moment.
still_there() {
  local pid
  pid=$(systemctl show -p MainPID --value hearing-room-agent.service)
  sleep 5
  [[ $pid == "$(systemctl show -p MainPID --value hearing-room-agent.service)" ]]
}

# Keeps two versions, and any that a process still runs.
prune() {
  local folder name
  for folder in "$opt"/*/; do
    [[ -d $folder ]] || continue
    name=$(basename -- "$folder")
    case $name in
      current | previous | "$(version_of current)" | "$(version_of previous)") continue ;;
    esac
    if [[ -L ${folder%/} ]]; then continue; fi
    if grep -qsF -- "/opt/hearing-room/$name/" /proc/[0-9]*/maps; then
      step "$name is still in use and stays for now"
      continue
    fi
    act "away with the old version $name" rm -rf -- "$folder"
  done
}


# switch_to VERSION: it takes over, or the one before goes on.
switch_to() {
  local to=$1 before
  before=$(version_of current)
  if take_over "$to" && is_up "$to"; then
    if [[ -n $before && $before != "$to" ]]; then point_version previous "$before"; fi
    return
  fi
  if [[ -z $before || $before == "$to" ]]; then
    die "$to does not come up: journalctl -u hearing-room-agent -u hearing-room-hands tells why; then run this again"
  fi
  step "$to does not come up: back to $before"
  switched=
  if take_over "$before" && is_up "$before"; then
    die "$to did not come up, and $before runs on; journalctl -u hearing-room-agent tells why"
  fi
  die "neither $to nor $before comes up: journalctl -u hearing-room-agent -u hearing-room-hands tells why"
}

# --- room.toml ------------------------------------------------------------------------------------------

check_config_option() {
  if [[ -z $config ]]; then return; fi
  [[ -r $config ]] || wrong_usage "--config $config: no such file, or not readable"
  if [[ -e $etc/room.toml ]] && ! cmp -s -- "$config" "$etc/room.toml"; then
    printf 'install.sh: %s\n' "/etc/hearing-room/room.toml is there, differs from $config, and is never overwritten; compare them, and put the new one in place yourself: sudo install -m 640 -g hearing-room $config /etc/hearing-room/room.toml" >&2
    exit "$EX_CONFIG"
  fi
}

place_config() {
  local owner=(-o root -g hearing-room)
  if [[ -z $config || -e $etc/room.toml ]]; then return; fi
  if [[ -n $root ]]; then owner=(); fi
  if ! $dry; then
    "$opt/$target/bin/hearing-room" config check "$config" >"$scratch/config" 2>&1 || {
      cat -- "$scratch/config" >&2
      printf 'install.sh: %s has mistakes (above); nothing was changed\n' "$config" >&2
      exit "$EX_CONFIG"
    }
  fi
  changed+=(/etc/hearing-room/room.toml)
  act "/etc/hearing-room/room.toml" install -m 0640 "${owner[@]}" -- "$config" "$etc/room.toml"
}

# --- the verbs ---------------------------------------------------------------------------------------------

install_box() {
  need_root "${arguments[@]}"
  check_config_option
  [[ -n $installed ]] || not_kept_by_apt "apt-get upgrade hearing-room-agent"
  look_around
  find_python
  if [[ -n $offline ]]; then
    ensure_packages box # names what is missing, and installs nothing
    read_wheelhouse
  elif [[ -n $installed ]]; then
    version=$(basename -- "$(readlink -f -- "$here/../..")")
  else
    read_checkout
  fi
  one_at_a_time
  if [[ -n $installed ]]; then
    target=$version
  else
    choose_folder
    if [[ $(version_of current) != "$target" ]] || ! is_made; then not_in_session; fi
    ensure_packages box
    [[ -n $python ]] || $dry || die "no usable Python"
    choose_folder
    make_version
  fi
  place_users "$(share_of "$target")"
  [[ -z $failed ]] || die "could not be put in place:$failed"
  passes "$target" || die "$target does not work here (above); $(runs_on)"
  place_config
  if would_change "$target"; then not_in_session; fi
  switch_to "$target"
  prune
  tell_result
}

runs_on() {
  local before
  before=$(version_of current)
  if [[ -n $before ]]; then echo "$before runs on"; else echo "nothing was installed"; fi
}

tell_result() {
  if ((${#changed[@]} == 0)) && [[ -z $switched ]]; then
    step "nothing to do: $target is installed"
  elif $dry; then
    step "nothing was done (--dry-run)"
  else
    step "$target is installed"
  fi
  if [[ ! -e $etc/room.toml ]]; then
    step "next: plug in what the room has, then: sudo hearing-room adopt -o /etc/hearing-room/room.toml --site SITE --room ROOM"
  fi
}

roll_back() {
  local to before
  need_root --rollback
  not_kept_by_apt "apt-get install --allow-downgrades hearing-room-agent=VERSION (apt-cache policy lists them)"
  to=$(version_of previous) before=$(version_of current)
  [[ -n $to ]] || die "there is no earlier version on this box; install one: ./install.sh of its checkout"
  one_at_a_time
  not_in_session
  target=$to
  passes "$to" || die "$to does not work here any more (above); $before runs on"
  switch_to "$to"
  tell_result
}

uninstall() {
  local file unit
  need_root --uninstall
  not_kept_by_apt "apt-get $($purge && echo purge || echo remove) hearing-room-agent"
  if [[ ! -e $opt/files ]] && ! $purge; then
    step "nothing is installed here"
    return
  fi
  one_at_a_time
  not_in_session
  if is_running_systemd; then
    for unit in hearing-room-agent.service hearing-room-hands.service; do
      act "end of $unit" systemctl disable --quiet --now "$unit" || true
    done
    act "" systemctl stop 'hearing-room-*' || true # sockets, and what they started
    # Lines that systemd keeps for hands are let go: from 254 on it keeps them after a stop too.
    act "" systemctl clean --what=fdstore hearing-room-hands.service 2>/dev/null || true
    act "" rm -rf -- /run/hearing-room /run/hearing-room-hands /run/hearing-room-senses
  elif [[ -n $root ]] && have systemctl; then
    act "" systemctl --root="$root" disable --quiet "${ENABLED[@]}" 2>/dev/null || true
  elif have systemctl; then
    act "" systemctl disable --quiet "${ENABLED[@]}" 2>/dev/null || true
  fi
  if [[ -e $opt/files ]]; then
    while IFS= read -r file; do remove_file "$file"; done <"$opt/files"
  fi
  if is_running_systemd; then
    act "" systemctl daemon-reload
    act "" systemctl reset-failed 'hearing-room-*' 2>/dev/null || true
    act "" udevadm control --reload
    if was_changed "/etc/systemd/journald.conf.d/*"; then
      act "" systemctl try-restart systemd-journald.service || true
    fi
    if was_changed "/etc/systemd/system.conf.d/*"; then act "" systemctl daemon-reexec || true; fi
  fi
  act "away with /opt/hearing-room" rm -rf -- "$opt"
  if $purge; then purge_rest; else
    step "kept: /etc/hearing-room, /var/lib/hearing-room*, the users (--purge takes them too)"
  fi
}

purge_rest() {
  local name
  act "away with /etc/hearing-room and /var/lib/hearing-room*" \
    rm -rf -- "$etc" "$root/var/lib/hearing-room" "$root/var/lib/hearing-room-hands"
  if [[ -n $root ]]; then return; fi
  if ! have userdel; then
    step "the users hearing-room* stay: there is no userdel here"
    return
  fi
  for name in hearing-room-senses hearing-room-hands hearing-room; do
    if id -u "$name" >/dev/null 2>&1; then act "away with user $name" userdel "$name" || true; fi
    if getent group "$name" >/dev/null; then act "" groupdel "$name" || true; fi
  done
}
