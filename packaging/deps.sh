#!/usr/bin/env bash
# Installs what building, testing and trying NovaCron needs and the machine lacks (Debian 12 or newer).
#
#   packaging/deps.sh                 everything for `make test` and `make demo`
#   packaging/deps.sh --dry-run       only say what that would be
#   packaging/deps.sh --bench         the peers that benches run beside NovaCron, too
#   packaging/deps.sh --criu          the same; CRIU, which saves and restores namespace machines, is part of it
#   packaging/deps.sh --tool NAME     only the cargo tool NAME (cargo-nextest, cargo-deny, cargo-fuzz)
#
# Package sources are derived from the machine's own apt configuration; nothing else is contacted. On a terminal it
# asks before it changes anything, unless YES=1; without one it says so and goes on. An installed QEMU or libvirt is
# never replaced unless YES=1 and the list has been printed. Without root it installs cargo tools only, and is content
# if what is missing is needed by the real-hypervisor tests alone.
set -euo pipefail

root=$(cd "$(dirname "$0")/.." && pwd)
cd "$root"
readonly QEMU_OLDEST=1:8.0
readonly SOURCE_FILE=/etc/apt/sources.list.d/novacron-backports.sources

# Tools at pinned versions. They run for seconds and are built without optimisation: that is minutes less.
declare -A TOOL_VERSION=([cargo-nextest]=0.9.143 [cargo-deny]=0.20.2 [cargo-fuzz]=0.13.2)

# Without these nothing builds; the others are for tests, lint and packages.
BUILD=(build-essential pkg-config libvirt-dev)
BASE=(build-essential pkg-config git make cmake ca-certificates iproute2 bridge-utils procps util-linux
      cpio dpkg-dev tcpdump iptables nftables openssl systemd shellcheck
      debootstrap e2fsprogs openssh-client)
# What benches run beside NovaCron.
BENCH=(crun etcd-server etcd-client lz4 runc xz-utils zstd)
# What CRIU is built with (packaging/criu.sh).
CRIU=(libbsd-dev libcap-dev libgnutls28-dev libnet1-dev libnftables-dev libnl-3-dev libprotobuf-c-dev libprotobuf-dev
      protobuf-c-compiler protobuf-compiler python3-protobuf uuid-dev)
# Debian 12's own QEMU (7.2) is too old; there these come from backports.
HYPERVISOR=(qemu-system-x86 qemu-utils libvirt-daemon-system libvirt-clients libvirt-dev)

say() { printf 'deps: %s\n' "$*"; }
die() { printf 'deps: %s\n' "$*" >&2; exit 1; }
installed() { dpkg-query -W -f='${Status}' "$1" 2>/dev/null | grep -q 'ok installed'; }
have_tool() { cargo "${1#cargo-}" --version 2>/dev/null | grep -qF " ${TOOL_VERSION[$1]}"; }

install_tool() {
  local tool=$1 version=${TOOL_VERSION[$1]:-}
  [ -n "$version" ] || die "no cargo tool called $tool; known are: ${!TOOL_VERSION[*]}"
  have_tool "$tool" && return
  say "building $tool $version"
  env CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$root/target}/tools" CARGO_PROFILE_RELEASE_OPT_LEVEL=1 \
    CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 CARGO_PROFILE_RELEASE_DEBUG=false \
    cargo install --quiet --locked --force --version "$version" "$tool"
}

# Asks on a terminal; goes on, and says so, where there is none.
consent() {
  [ "${YES:-}" = 1 ] && { say "YES=1: going on without asking"; return; }
  [ -t 0 ] || { say "no terminal to ask on: going on"; return; }
  local answer
  read -r -p "deps: go on? [y/N] " answer
  [[ $answer == [yY]* ]] || die "nothing changed"
}

# Prints a deb822 source of type $2 for suite $1 with the URIs, components and keyring of the machine's own Debian source.
derive_source() {
  local suite=$1 type=$2 own=/etc/apt/sources.list.d/debian.sources line uri key
  if [ -e "$own" ]; then
    awk 'BEGIN {RS=""} /(^|\n)Types:[^\n]*deb/ && /(^|\n)Suites:/ {print; exit}' "$own" |
      sed -e '/^#/d' -e "s/^Types:.*/Types: $type/" -e "s/^Suites:.*/Suites: $suite/"
    return
  fi
  line=$(grep -hE "^deb .* $codename " /etc/apt/sources.list /etc/apt/sources.list.d/*.list 2>/dev/null | head -n 1 || true)
  uri=$(grep -oE '[a-z+]+://[^ ]+' <<<"$line" | head -n 1 || true)
  key=$(grep -oE 'signed-by=[^] ]+' <<<"$line" | cut -d= -f2 || true)
  [ -n "$uri" ] || die "no Debian package source found on this machine from which to derive $suite"
  printf 'Types: %s\nURIs: %s\nSuites: %s\nComponents: main\n' "$type" "$uri" "$suite"
  [ -z "$key" ] || printf 'Signed-By: %s\n' "$key"
}

refuse_old_qemu() {
  installed qemu-system-x86 || return 0
  local have; have=$(dpkg-query -W -f='${Version}' qemu-system-x86)
  dpkg --compare-versions "$have" ge "$QEMU_OLDEST" ||
    die "qemu-system-x86 $have is installed and older than $QEMU_OLDEST. It is not replaced: upgrade or remove it, then run this again."
}

# Stops if installing "$@" would replace or remove an installed QEMU or libvirt package.
refuse_replacement() {
  local replaced
  replaced=$(apt-get --simulate install --no-install-recommends "$@" | grep -E '^(Inst (qemu|libvirt)[^ ]* \[|Remv (qemu|libvirt))' || true)
  [ -z "$replaced" ] && return
  printf '%s\n' "$replaced" >&2
  [ "${YES:-}" = 1 ] || die "this would replace the installed packages above. With YES=1 it does."
}

if [ "${1:-}" = --tool ]; then install_tool "${2:?which tool}"; exit; fi
if [ "${1:-}" = --bench ]; then BASE+=("${BENCH[@]}"); shift; fi
if [ "${1:-}" = --criu ]; then shift; fi

command -v apt-get >/dev/null || die "this machine has no apt-get: install by hand ${BASE[*]} ${HYPERVISOR[*]}"
command -v cargo >/dev/null || die "no cargo on PATH: install Rust first (rustup)"

missing_base=() missing_hypervisor=() missing_tools=() missing_criu=()
if ! packaging/criu.sh --have; then missing_criu=(criu) BASE+=("${CRIU[@]}"); fi
for p in "${BASE[@]}"; do installed "$p" || missing_base+=("$p"); done
for p in "${HYPERVISOR[@]}"; do installed "$p" || missing_hypervisor+=("$p"); done
have_tool cargo-nextest || missing_tools+=(cargo-nextest)

if ((${#missing_base[@]} + ${#missing_hypervisor[@]} + ${#missing_tools[@]} + ${#missing_criu[@]} == 0)); then
  say "nothing to install"; exit 0
fi

# From backports only QEMU, libvirt and QEMU's firmware: `apt-get -t` would bring a newer systemd and curl along.
narrow_pin() {
  printf 'Package: src:qemu src:libvirt src:seabios\nPin: release n=%s\nPin-Priority: 990\n' "$1"
}

codename=$(sed -n "s/^VERSION_CODENAME=//p" /etc/os-release 2>/dev/null || true)
suite='' add_source=0
if ((${#missing_hypervisor[@]})); then
  refuse_old_qemu
  if [ "$codename" = bookworm ]; then
    suite=bookworm-backports
    apt-cache policy | grep -q 'n=bookworm-backports' || add_source=1
  fi
fi

((${#missing_base[@]} == 0)) || say "Debian packages to install: ${missing_base[*]}"
((${#missing_hypervisor[@]} == 0)) || say "Debian packages to install${suite:+ from $suite}: ${missing_hypervisor[*]}"
if ((add_source)); then
  say "package source to add, as $SOURCE_FILE:"
  derive_source "$suite" deb | sed 's/^/deps:   /'
fi
((${#missing_criu[@]} == 0)) || say "CRIU to build from the Debian source package of sid, for /usr/local/sbin"
((${#missing_tools[@]} == 0)) || say "cargo tools to build: ${missing_tools[*]}"
[ "${1:-}" = --dry-run ] && exit 0

if ((${#missing_base[@]} + ${#missing_hypervisor[@]} + ${#missing_criu[@]})) && [ "$(id -u)" != 0 ]; then
  for p in "${BUILD[@]}"; do installed "$p" || die "installing $p, without which nothing builds, needs root"; done
  say "not root: going on without ${missing_base[*]} ${missing_hypervisor[*]} ${missing_criu[*]}; tests that need them are skipped"
  missing_base=() missing_hypervisor=() missing_criu=() add_source=0
fi
consent

if ((${#missing_base[@]} + ${#missing_hypervisor[@]})); then
  export DEBIAN_FRONTEND=noninteractive
  if ((add_source)); then derive_source "$suite" deb >"$SOURCE_FILE"; fi
  apt-get update -qq
fi
if ((${#missing_base[@]})); then apt-get install -y -qq --no-install-recommends "${missing_base[@]}"; fi
if ((${#missing_hypervisor[@]})); then
  pin=$(mktemp)
  trap 'rm -f "$pin"' EXIT
  [ -z "$suite" ] || narrow_pin "$suite" >"$pin"
  chosen=(-o "Dir::Etc::Preferences=$pin" "${missing_hypervisor[@]}")
  refuse_replacement "${chosen[@]}"
  apt-get install -y -qq --no-install-recommends "${chosen[@]}"
fi
for tool in "${missing_tools[@]}"; do install_tool "$tool"; done
if ((${#missing_criu[@]})); then
  derive_source sid deb-src | packaging/criu.sh || say "going on without CRIU; tests that need it are skipped"
fi
say "done"
