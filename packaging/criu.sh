#!/usr/bin/env bash
# Builds CRIU, which saves and restores the processes of namespace machines, from a Debian source package, and installs
# the one program that the agent runs. Debian 12's own (3.17) fails on kernels from 6.13 on; none is in Debian 13.
#
#   packaging/criu.sh --have          whether one that is new enough is on PATH
#   packaging/criu.sh <SOURCE         build and install to /usr/local/sbin; SOURCE is a deb822 source of type deb-src
#
# apt checks the package's signature as always, but with lists and a cache of its own: the machine's sources stay as
# they are.
set -euo pipefail

readonly OLDEST=4.1
readonly INSTALLED=/usr/local/sbin/criu

say() { printf 'criu: %s\n' "$*"; }
die() { printf 'criu: %s\n' "$*" >&2; exit 1; }

have() {
  local version; version=$(criu --version 2>/dev/null | sed -n 's/^Version: //p')
  [ -n "$version" ] && dpkg --compare-versions "$version" ge "$OLDEST"
}

if [ "${1:-}" = --have ]; then have; exit; fi
have && { say "there is one: $(command -v criu)"; exit; }

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/lists/partial" "$work/cache/archives/partial" "$work/tree"
cat >"$work/source.sources"

# The suite may be a snapshot's, whose day of expiry has passed.
options=(-qq -o "Dir::Etc::SourceList=$work/source.sources" -o Dir::Etc::SourceParts=/dev/null
  -o "Dir::State::Lists=$work/lists" -o "Dir::Cache=$work/cache" -o Acquire::Check-Valid-Until=false
  -o APT::Sandbox::User=root)
apt-get "${options[@]}" update || die "the package source above does not answer"
(cd "$work" && apt-get "${options[@]}" source --download-only --tar-only criu) || die "could not fetch the upstream tarball of the source package"

tarball=$(find "$work" -maxdepth 1 -name 'criu_*.orig.tar.*' ! -name '*.asc' -print -quit)
[ -n "$tarball" ] || die "the source package has no upstream tarball"
tar -xf "$tarball" -C "$work/tree" --strip-components=1
version=$(basename "$tarball" | sed 's/^criu_\(.*\)\.orig\..*/\1/')
dpkg --compare-versions "$version" ge "$OLDEST" || die "the source package has CRIU $version, and $OLDEST is needed"
say "building CRIU $version"
make -C "$work/tree" -j"$(nproc)" criu/criu >"$work/log" 2>&1 || { tail -n 40 "$work/log" >&2; die "it does not build"; }
install -D -m 755 "$work/tree/criu/criu" "$INSTALLED"
have || die "what was built does not run, or another criu comes before $INSTALLED on PATH"
say "installed CRIU $version as $INSTALLED"
