# shellcheck shell=bash
# What a box without an index needs: a wheelhouse, and the same as a Debian package.
# Sourced by install.sh.

# The C library of the Debian that has this Python: wheels for a newer one do not load there.
glibc_of() { # PYTHON
  case $1 in
    3.11) echo 36 ;; # Debian 12
    3.12) echo 39 ;;
    *) echo 41 ;; # Debian 13
  esac
}

# Sets `target_python` and `target_arch`; the default is this machine.
choose_target() {
  find_python
  [[ -n $python ]] || die "missing: python3 and python3-venv: sudo apt-get install python3 python3-venv"
  target_python=${for_python:-$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')}
  target_arch=${for_arch:-$(uname -m)}
  [[ $target_python =~ ^3\.(1[1-9]|[2-9][0-9])$ ]] || wrong_usage "--python $target_python: 3.11 or newer, as 3.13"
  case $target_arch in
    arm64) target_arch=aarch64 ;;
    amd64) target_arch=x86_64 ;;
  esac
  [[ $target_arch =~ ^(aarch64|x86_64)$ ]] || wrong_usage "--arch $target_arch: aarch64 or x86_64"
  [[ -e $here/pyproject.toml ]] || die "$here is no checkout: a wheelhouse is made from one"
}

# Fills DIR with every wheel that the program needs, its own, and the installer.
fill_wheelhouse() { # DIR
  local into=$1 pip platforms=() minor abi=cp${target_python/./}
  read_checkout
  mkdir -p -- "$into"
  if [[ -n $(ls -A -- "$into") && ! -e $into/ABOUT ]]; then
    die "$into is neither empty nor a wheelhouse: name another folder"
  fi
  step "$into: hearing-room-agent $version for Python $target_python on $target_arch"
  "$python" -m venv -- "$scratch/pip" || die "could not make an environment for pip"
  rm -f -- "$into"/hearing_room_agent-*.whl
  wheel=$(build_wheel "$scratch/pip/bin/python") || die "could not build the program's wheel (see above)"
  cp -- "$wheel" "$into/"
  platforms=(--platform "linux_$target_arch" --platform "manylinux2014_$target_arch")
  for ((minor = 17; minor <= $(glibc_of "$target_python"); minor++)); do
    platforms+=(--platform "manylinux_2_${minor}_$target_arch")
  done
  pip=("$scratch/pip/bin/python" -m pip download --dest "$into" --find-links "$into"
    --only-binary :all: --implementation cp --python-version "$target_python"
    --abi "$abi" --abi abi3 --abi none "${platforms[@]}")
  if [[ ! -t 2 ]]; then pip+=(--quiet); fi
  act "wheels" "${pip[@]}" "$into/$(basename -- "$wheel")[card]" ||
    die "a package has no wheel for Python $target_python on $target_arch (see above)"
  mkdir -p -- "$into/packaging"
  cp -- "$here/install.sh" "$into/"
  cp -- "$here"/packaging/*.sh "$into/packaging/"
  printf 'hearing-room-agent %s\npython %s\narch %s\n' "$version" "$target_python" "$target_arch" >"$into/ABOUT"
  (cd -- "$into" && LC_ALL=C sha256sum -- *.whl install.sh packaging/* >SHA256SUMS)
}

make_offline() {
  choose_target
  fill_wheelhouse "$folder"
  step "$(du -sh -- "$folder" | cut -f1); carry it to the box, then there: sudo $(basename -- "$folder")/install.sh"
}

# --- the Debian package -----------------------------------------------------------------------------

# It carries the wheelhouse and lets the same installer do the same steps: what is examined before it
# takes over, what is kept, and what happens in session is the same with apt as by hand.
make_deb() {
  local tree="$scratch/deb" arch next deb maintainer="Hearing room agent maintainers <root@localhost>"
  have dpkg-deb || die "missing: dpkg-deb: sudo apt-get install dpkg"
  choose_target
  fill_wheelhouse "$tree/usr/lib/hearing-room/offline"
  arch=amd64
  if [[ $target_arch == aarch64 ]]; then arch=arm64; fi
  next="3.$((${target_python#3.} + 1))"
  mkdir -p -- "$tree/DEBIAN" "$tree/usr/share/doc/hearing-room-agent"
  cp -- "$here/LICENSE" "$tree/usr/share/doc/hearing-room-agent/copyright"
  if [[ -e $here/CHANGELOG.md ]]; then
    gzip -9nc -- "$here/CHANGELOG.md" >"$tree/usr/share/doc/hearing-room-agent/changelog.gz"
  fi
  cat >"$tree/DEBIAN/control" <<CONTROL
Package: hearing-room-agent
Version: $version-1
Architecture: $arch
Maintainer: ${DEBEMAIL:-$maintainer}
Installed-Size: $(du -sk -- "$tree/usr" | cut -f1)
Depends: python3 (>= $target_python), python3 (<< $next), python3-venv, alsa-utils, ca-certificates, systemd, systemd-timesyncd | time-daemon, udev, util-linux
Section: net
Priority: optional
Description: watches the room of an online court hearing
 Says in time whether the room is ready, why not, and who can fix it. It never records.
 .
 This package carries the wheels for Python $target_python and installs them below /opt/hearing-room.
CONTROL
  cp -- "$here"/packaging/deb/* "$tree/DEBIAN/"
  chmod 0755 -- "$tree"/DEBIAN/{preinst,postinst,prerm,postrm}
  (cd -- "$tree" && find usr -type f -print0 | LC_ALL=C sort -z | xargs -0 md5sum >DEBIAN/md5sums)
  mkdir -p -- "$folder"
  deb="$folder/hearing-room-agent_$version-1_$arch.deb"
  # The wheels are compressed already.
  act "$deb" dpkg-deb --root-owner-group -Znone --build "$tree" "$deb" || die "dpkg-deb failed (see above)"
}
