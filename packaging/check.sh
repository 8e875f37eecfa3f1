#!/usr/bin/env bash
# Builds the packages (PROFILE=debug unless told) and tries them: contents, installation into a scratch root with the
# maintainer scripts running, `--version` of each program, removal and purge.
set -euo pipefail
cd "$(dirname "$0")/.."

export PROFILE=${PROFILE:-debug}
target=${CARGO_TARGET_DIR:-$PWD/target}
packaging/deb.sh

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
debs=("$target"/packages/*.deb)
failed=0
fault() { printf 'check: %s\n' "$*" >&2; failed=1; }
expect() { [ -e "$scratch/$1" ] || fault "$1 was not installed"; }
gone() { [ ! -e "$scratch/$1" ] || fault "$1 was left behind"; }

((${#debs[@]} == 3)) || fault "expected 3 packages, found ${#debs[@]}: ${debs[*]}"
for deb in "${debs[@]}"; do
  dpkg-deb --info "$deb" | grep -E '^ (Package|Version|Installed-Size|Depends):'
  dpkg-deb --contents "$deb" | awk '$2 != "root/root" {print "not owned by root: " $0; bad = 1} END {exit bad}' || fault "$deb"
  dpkg-deb --fsys-tarfile "$deb" | tar -t | grep -E '^\./(tmp|work|root|home)(/|$)' && fault "$deb holds a path of the build machine"
done

# dpkg in a root of its own: its scripts see DPKG_ROOT and leave this machine alone.
mkdir -p "$scratch/var/lib/dpkg/info" "$scratch/var/lib/dpkg/updates" "$scratch/etc"
: >"$scratch/var/lib/dpkg/status"
in_scratch() {
  dpkg --root="$scratch" --force-not-root --force-script-chrootless --force-depends --log=/dev/null "$@" 2>&1 |
    grep -vE 'dependency problems|depends on|is not installed|Package [a-z0-9.-]+ is not|^$' || true
}
users_before=$(md5sum /etc/passwd)
in_scratch --install "${debs[@]}"

for program in novacron-agent novacron-coordinator novactl; do
  expect "usr/bin/$program"
  expect "usr/share/doc/$program/copyright"
  said=$("$scratch/usr/bin/$program" --version) || fault "$program --version failed"
  [[ ${said:-} == *"$version"* ]] || fault "$program --version said '${said:-}', the package is $version"
  dpkg --root="$scratch" --status "$program" | grep -q '^Status: install ok installed' || fault "$program is not configured"
done
for file in etc/novacron/agent.toml etc/novacron/coordinator.toml usr/lib/systemd/system/novacron-agent.service \
  usr/lib/systemd/system/novacron-coordinator.service usr/share/bash-completion/completions/novactl \
  usr/share/zsh/vendor-completions/_novactl usr/share/fish/vendor_completions.d/novactl.fish \
  usr/bin/novacron-supervisor etc/apparmor.d/abstractions/libvirt-qemu.d/novacron \
  var/lib/novacron/agent var/lib/novacron/import; do
  expect "$file"
done
grep -q '^novacron:' "$scratch/etc/passwd" || fault "the user novacron was not made"
[ "$(md5sum /etc/passwd)" = "$users_before" ] || fault "a maintainer script touched this machine's users"
bash -n "$scratch/usr/share/bash-completion/completions/novactl" || fault "the bash completion does not parse"
for service in agent coordinator; do packaging/check-config.sh "$service" "$scratch/usr/bin" "$scratch/etc/novacron" || failed=1; done

echo "edited = true" >>"$scratch/etc/novacron/agent.toml"
: >"$scratch/var/lib/novacron/agent/disk"
in_scratch --remove novacron-agent novacron-coordinator novactl
gone usr/bin/novacron-agent
expect etc/novacron/agent.toml
in_scratch --purge novacron-agent novacron-coordinator novactl
gone etc/novacron
expect var/lib/novacron/agent/disk

((failed == 0)) && echo "check: packages install, run and purge"
exit "$failed"
