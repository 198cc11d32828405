#!/usr/bin/env bash
# Makes the archive of the command for this computer, as a server offers it (AGNES_CLI_DIST_DIR):
#
#   scripts/dist.sh OUT LIBRARY [PROGRAM]
#
#   OUT      folder for agnes-<version>-<os>-<arch>.tar.gz and its .sha256
#   LIBRARY  folder with DuckDB's library
#   PROGRAM  the built command; without one it is built, optimised
#
# One folder in it: bin/agnes, lib/ with the library, share/ with manual pages and completions. The
# program finds the library beside itself, wherever it is unpacked. The same input gives the same
# bytes: names are sorted, times are that of the last commit (or SOURCE_DATE_EPOCH). It is packed as
# tightly as AGNES_DIST_LEVEL says (6; 1 is quick).
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
out=$1 libraries=$2 program=${3:-}

case "$(uname -s)" in Linux) os=linux library=libduckdb.so ;; Darwin) os=macos library=libduckdb.dylib ;; *) echo "dist: not for $(uname -s)" >&2; exit 1 ;; esac
case "$(uname -m)" in x86_64 | amd64) arch=x64 ;; aarch64 | arm64) arch=arm64 ;; *) arch=$(uname -m) ;; esac

if [ -z "$program" ]; then
  (cd "$root" && cargo build --release --package agnes-cli)
  program=${CARGO_TARGET_DIR:-$root/target}/release/agnes
fi

mkdir -p "$out"
work=$(mktemp -d "$out/.dist-XXXXXX")
trap 'rm -rf "$work"' EXIT
tree=$work/tree
mkdir -p "$tree/bin" "$tree/lib" "$tree/share/man/man1" "$tree/share/bash-completion/completions" \
  "$tree/share/zsh/site-functions" "$tree/share/fish/vendor_completions.d" "$tree/share/doc/agnes"
install -m 755 "$program" "$tree/bin/agnes"
install -m 644 "$libraries/$library" "$tree/lib/$library"
if [ "$os" = linux ] && command -v strip >/dev/null; then strip --strip-debug "$tree/bin/agnes"; fi

# From here on the packed program runs, with nothing but what is packed.
agnes() { env -u LD_LIBRARY_PATH -u DYLD_LIBRARY_PATH "$tree/bin/agnes" "$@"; }
version=$(agnes --version | cut -d' ' -f2)
agnes man "$tree/share/man/man1"
agnes completions bash >"$tree/share/bash-completion/completions/agnes"
agnes completions zsh >"$tree/share/zsh/site-functions/_agnes"
agnes completions fish >"$tree/share/fish/vendor_completions.d/agnes.fish"
install -m 644 "$root/LICENSE-APACHE" "$root/LICENSE-MIT" "$root/README.md" "$tree/share/doc/agnes/"

name=agnes-$version-$os-$arch
mv "$tree" "$work/$name"
when=${SOURCE_DATE_EPOCH:-$(git -C "$root" log -1 --format=%ct 2>/dev/null || echo 0)}
if tar --version | grep -q GNU; then
  tar --sort=name --format=gnu --owner=0 --group=0 --numeric-owner --mtime="@$when" -C "$work" -cf "$work/archive.tar" "$name"
else
  tar -C "$work" -cf "$work/archive.tar" "$name"
fi
gzip -n "-${AGNES_DIST_LEVEL:-6}" "$work/archive.tar"
hash_of() { if command -v sha256sum >/dev/null; then sha256sum "$1"; else shasum -a 256 "$1"; fi | cut -d' ' -f1; }
echo "$(hash_of "$work/archive.tar.gz")  $name.tar.gz" >"$work/sha256"
# A server that looks now offers the old one or the new one: what the hash is not of is not offered.
mv -f "$work/sha256" "$out/$name.tar.gz.sha256"
mv -f "$work/archive.tar.gz" "$out/$name.tar.gz"
echo "$out/$name.tar.gz"
