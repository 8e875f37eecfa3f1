#!/usr/bin/env bash
# Builds an installable .deb of each program into $CARGO_TARGET_DIR/packages.
#
#   packaging/deb.sh                  profile `dist` (thin LTO; slow), what is shipped
#   PROFILE=debug packaging/deb.sh    the dev build, to try the packaging itself
#
# Each folder packaging/NAME holds that package's `control` (with the shared-library dependencies left to
# dpkg-shlibdeps) and its maintainer scripts; everything else is laid out below.
set -euo pipefail
cd "$(dirname "$0")/.."

profile=${PROFILE:-dist}
target=${CARGO_TARGET_DIR:-$PWD/target}
out=$target/packages
programs=(novacron-agent novacron-coordinator novactl)
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
architecture=$(dpkg --print-architecture)
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || stat -c %Y CHANGELOG.md)}
export SOURCE_DATE_EPOCH

say() { printf 'packages: %s\n' "$*"; }
die() { printf 'packages: %s\n' "$*" >&2; exit 1; }

build() {
  say "building with profile $profile"
  case $profile in
    # The same selection as `make test` and `make demo`, so that nothing is compiled twice.
    debug) cargo build --locked --workspace --bins --tests ;;
    release) cargo build --locked --release --workspace --bins ;;
    *) cargo build --locked --profile "$profile" "${programs[@]/#/--package=}" --bins ;;
  esac
}

put() { install -D -m "$1" "$2" "$stage/$3"; }

# What every package has: its program, the licence and the changelog.
stage_common() {
  local package=$1
  put 755 "$target/$profile/$package" "usr/bin/$package"
  strip --strip-unneeded "$stage/usr/bin/$package"
  put 644 packaging/copyright "usr/share/doc/$package/copyright"
  put 644 README.md "usr/share/doc/$package/README.md"
  put 644 CHANGELOG.md "usr/share/doc/$package/changelog"
  gzip -9n "$stage/usr/share/doc/$package/changelog"
}

# A service: its unit, its configuration, the folders and users that it needs.
stage_service() {
  local package=$1 kind
  put 644 "systemd/$package.service" "usr/lib/systemd/system/$package.service"
  put 644 "packaging/etc/${package#novacron-}.toml" "etc/novacron/${package#novacron-}.toml"
  for kind in sysusers tmpfiles; do
    [ ! -e "systemd/$package.$kind.conf" ] || put 644 "systemd/$package.$kind.conf" "usr/lib/$kind.d/$package.conf"
  done
}

# The small program beside each attempt, and leave for QEMU to open the sockets of a migration where AppArmor is on.
stage_agent() {
  put 755 "$target/$profile/novacron-supervisor" usr/bin/novacron-supervisor
  strip --strip-unneeded "$stage/usr/bin/novacron-supervisor"
  put 644 packaging/novacron-agent/apparmor etc/apparmor.d/abstractions/libvirt-qemu.d/novacron
}

stage_completions() {
  local shell file
  for shell in bash zsh fish; do
    case $shell in
      bash) file=usr/share/bash-completion/completions/novactl ;;
      zsh) file=usr/share/zsh/vendor-completions/_novactl ;;
      fish) file=usr/share/fish/vendor_completions.d/novactl.fish ;;
    esac
    mkdir -p "$stage/$(dirname "$file")"
    "$target/$profile/novactl" completions "$shell" >"$stage/$file"
    [ -s "$stage/$file" ] || die "novactl completions $shell printed nothing"
    chmod 644 "$stage/$file"
  done
}

# The libraries that the program is linked with, as Debian dependencies.
library_depends() {
  local package=$1 work
  work=$(mktemp -d)
  mkdir "$work/debian"
  printf 'Source: novacron\n\nPackage: %s\nArchitecture: any\n' "$package" >"$work/debian/control"
  (cd "$work" && dpkg-shlibdeps -O --warnings=0 -e"$stage/usr/bin/$package") | sed -n 's/^shlibs:Depends=//p'
  rm -r "$work"
}

write_control() {
  local package=$1 depends size script
  mkdir -p "$stage/DEBIAN"
  depends=$(library_depends "$package")
  [ -n "$depends" ] || die "dpkg-shlibdeps found no libraries for $package"
  size=$(du -sk --exclude=DEBIAN "$stage" | cut -f1)
  sed -e "s/@VERSION@/$version/; s/@ARCHITECTURE@/$architecture/; s/@SIZE@/$size/; s/@LIBRARIES@/$depends/" \
    "packaging/$package/control" >"$stage/DEBIAN/control"
  for script in postinst prerm postrm; do
    [ ! -e "packaging/$package/$script" ] || put 755 "packaging/$package/$script" "DEBIAN/$script"
  done
  (cd "$stage" && find etc -type f -printf '/%p\n' 2>/dev/null) >"$stage/DEBIAN/conffiles" || true
  [ -s "$stage/DEBIAN/conffiles" ] || rm "$stage/DEBIAN/conffiles"
  (cd "$stage" && find usr -type f -print0 | sort -z | xargs -0 md5sum) >"$stage/DEBIAN/md5sums"
}

package() {
  local package=$1 file=$out/${1}_${version}_${architecture}.deb compress=(-Zxz)
  stage=$out/stage/$package
  [ "$profile" = dist ] || compress=(-Zgzip -z1)
  stage_common "$package"
  case $package in
    novactl) stage_completions ;;
    *) stage_service "$package" ;;
  esac
  [ "$package" != novacron-agent ] || stage_agent
  write_control "$package"
  dpkg-deb --root-owner-group "${compress[@]}" --build "$stage" "$file" >/dev/null
  say "$file ($(du -h "$file" | cut -f1))"
}

umask 022
build
rm -rf "$out" && mkdir -p "$out"
for program in "${programs[@]}"; do package "$program"; done
rm -r "$out/stage"
