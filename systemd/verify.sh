#!/usr/bin/env bash
# Checks the units with systemd-analyze verify, on a machine that need not run systemd nor have NovaCron installed:
# a scratch root gets the units of this machine, ours, and an executable stand-in for each program they start.
# Any message about one of ours is a failure; so is an ExecStart that names no program of this workspace.
set -euo pipefail
cd "$(dirname "$0")"

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
unit_dir=$scratch/usr/lib/systemd/system
mkdir -p "$unit_dir" "$scratch/usr/bin" "$scratch/etc" "$scratch/usr/lib/sysusers.d" "$scratch/usr/lib/tmpfiles.d"
for system in /usr/lib/systemd/system /lib/systemd/system; do
  [ -d "$system" ] && cp -a "$system/." "$unit_dir/" && break
done

failed=0
for unit in *.service; do
  cp "$unit" "$unit_dir/"
  program=$(sed -n 's/^ExecStart=\([^ ]*\).*/\1/p' "$unit")
  case $program in
    /usr/bin/novacron-agent | /usr/bin/novacron-coordinator) install -D -m 755 /bin/true "$scratch$program" ;;
    *) echo "verify: $unit starts '$program', which no package of ours installs" >&2; failed=1 ;;
  esac
done

for unit in *.service; do
  messages=$(systemd-analyze verify --root="$scratch" --man=no --recursive-errors=no "$unit" 2>&1) || failed=1
  ours=$(grep -F "$unit" <<<"$messages" || true)
  [ -z "$ours" ] || failed=1
  ((failed == 0)) || printf '%s\n' "$messages" >&2
done

# The users first: tmpfiles hands folders to them.
for users in *.sysusers.conf; do
  systemd-sysusers --root="$scratch" "$PWD/$users" 2>"$scratch/messages" ||
    { cat "$scratch/messages" >&2; echo "verify: $users refused" >&2; failed=1; }
done
for folders in *.tmpfiles.conf; do
  [ "$(id -u)" = 0 ] || { echo "verify: $folders not tried: creating folders for others needs root"; continue; }
  systemd-tmpfiles --root="$scratch" --create "$PWD/$folders" || { echo "verify: $folders refused" >&2; failed=1; }
done

units=(*.service)
((failed == 0)) && echo "verify: ${#units[@]} units are sound"
exit "$failed"
