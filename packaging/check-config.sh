#!/usr/bin/env bash
# Checks a shipped configuration against the program that reads it: the file is taken with every documented key set,
# and the keys documented in each section are exactly those that the program knows.
#
#   packaging/check-config.sh agent|coordinator PROGRAM_FOLDER CONFIG_FOLDER
#
# What the program knows is read from its own refusal of an unknown key ("expected one of `a`, `b`"). Exit code 78
# (EX_CONFIG) is a refused configuration; anything else means that it was taken.
set -euo pipefail
service=${1:?agent or coordinator} program=${2:?folder of the programs}/novacron-$1 shipped=${3:?folder of the file}/$1.toml

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
failed=0
fault() { printf 'check-config: %s\n' "$*" >&2; failed=1; }

# Runs the program with configuration $1, where it finds neither ledger nor identity; prints what it says.
answer() {
  local code=0
  env -i PATH="$PATH" "NOVACRON_${service^^}__DATA_DIR=$scratch/data" \
    timeout 20 "$program" run --config "$1" >"$scratch/said" 2>&1 || code=$?
  cat "$scratch/said"
  return "$code"
}

# The file with every "#key = value" line made a key.
sed -E 's/^#([a-z_]+ = )/\1/' "$shipped" >"$scratch/all.toml"
code=0; said=$(answer "$scratch/all.toml") || code=$?
case $code in
  78) fault "$shipped with every key set is refused: $said" ;;
  0 | 124) fault "$program ran on without a ledger or an identity" ;;
esac

mapfile -t sections < <(sed -n 's/^\[\(.*\)\]$/\1/p' "$shipped")
((${#sections[@]})) || fault "$shipped has no sections"
known_after() { sed -nE 's/.*expected (one of )?//p' <<<"$1" | grep -oE "\`[a-z_]+\`" | tr -d "\`" | sort -u; }

echo '[no_such_section]' >"$scratch/unknown.toml"
said=$(answer "$scratch/unknown.toml") || true
[ "$(printf '%s\n' "${sections[@]}" | sort)" = "$(known_after "$said")" ] ||
  fault "sections of $shipped are ${sections[*]}; $program says: $said"

for section in "${sections[@]}"; do
  documented=$(awk -v wanted="[$section]" '/^\[/ {on = ($0 == wanted)} on' "$shipped" | sed -nE 's/^#?([a-z_]+) = .*/\1/p' | sort)
  printf '[%s]\nno_such_key = 1\n' "$section" >"$scratch/unknown.toml"
  code=0; said=$(answer "$scratch/unknown.toml") || code=$?
  [ "$code" = 78 ] || { fault "[$section] no_such_key was not refused (exit $code): $said"; continue; }
  known=$(known_after "$said")
  [ "$documented" = "$known" ] ||
    fault "[$section] of $shipped and $program differ: $(diff <(echo "$documented") <(echo "$known") | tr '\n' ' ')"
done

((failed == 0)) && echo "check-config: $shipped documents what $program knows, in ${#sections[@]} sections"
exit "$failed"
