#!/usr/bin/env bash
# Fetches DuckDB's official prebuilt library once, into a folder that git ignores.
#
#   scripts/fetch-duckdb.sh [FOLDER]        FOLDER: .duckdb beside this repository's Cargo.toml
#
# The same file is in DuckDB's release archive and in DuckDB's npm package; whichever
# answers first is taken, and only a file with the pinned SHA-256 is kept.
set -euo pipefail

version=1.5.5
npm_version=1.5.5-r.5
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
folder=${1:-$root/.duckdb}

say() { echo "duckdb: $*" >&2; }

case "$(uname -s)-$(uname -m)" in
  Linux-x86_64)
    file=libduckdb.so archive=libduckdb-linux-amd64.zip package=linux-x64
    sha256=fc23f12e376c47be520f75221288281906e7942e8fd6f6ce4849198ba60d0405 ;;
  Linux-aarch64 | Linux-arm64)
    file=libduckdb.so archive=libduckdb-linux-arm64.zip package=linux-arm64
    sha256=d00d007f3f7ca1f2896a5e4b89c2ce141bf0508506a9d6d56f9598b8e59d074e ;;
  Darwin-arm64 | Darwin-x86_64)
    file=libduckdb.dylib archive=libduckdb-osx-universal.zip
    case "$(uname -m)" in arm64) package=darwin-arm64 ;; *) package=darwin-x64 ;; esac
    sha256=b9027d18ef3e8d960568f77e946a83ca68009cb22d71cf7f94de842afdd094d8 ;;
  *)
    say "no prebuilt library is known for $(uname -s) $(uname -m)"
    say "hint: build DuckDB from source: cargo build -p agnes-cli --features bundled (20 minutes or more)"
    exit 1 ;;
esac

hash_of() {
  if command -v sha256sum >/dev/null; then sha256sum "$1"; else shasum -a 256 "$1"; fi | cut -d' ' -f1
}

if [ -f "$folder/$file" ]; then
  [ "$(hash_of "$folder/$file")" = "$sha256" ] && exit 0
  say "the $file that is there is not the one of $version: fetching it again"
fi

mkdir -p "$folder"
work=$(mktemp -d "$folder/.fetch-XXXXXX")
trap 'rm -rf "$work"' EXIT

unzip_one() { # archive, member, target folder: python3 is a prerequisite anyway, unzip is not
  python3 -c 'import sys, zipfile; zipfile.ZipFile(sys.argv[1]).extract(sys.argv[2], sys.argv[3])' "$@"
}

from_release() {
  command -v curl >/dev/null || return 1
  curl --fail --silent --location --proto '=https' --connect-timeout 8 --max-time 600 \
    --speed-limit 10000 --speed-time 30 --output "$work/release.zip" \
    "https://github.com/duckdb/duckdb/releases/download/v$version/$archive" || return 1
  unzip_one "$work/release.zip" "$file" "$work" || return 1
  found=$work/$file
}

from_npm() {
  command -v npm >/dev/null || return 1
  (cd "$work" && npm pack --silent "@duckdb/node-bindings-$package@$npm_version" >/dev/null) || return 1
  tar -xzf "$work"/duckdb-node-bindings-*.tgz -C "$work" "package/$file" || return 1
  found=$work/package/$file
}

# Kept only when it is the pinned file; it appears under its name in one step.
keep() {
  local got
  got=$(hash_of "$found")
  if [ "$got" != "$sha256" ]; then
    say "refused the file of $1: its SHA-256 is $got, not $sha256"
    rm -f "$found"
    return 1
  fi
  mv -f "$found" "$folder/$file"
  say "$version from $1, SHA-256 checked, in $folder"
}

found=
say "fetching the official library $version"
if from_release && keep "DuckDB's release archive"; then exit 0; fi
say "the release archive did not give it; trying npm"
if from_npm && keep "the npm package @duckdb/node-bindings-$package"; then exit 0; fi

say "could not get $file"
say "hint: put the official $file of DuckDB $version into $folder by hand,"
say "hint: or build DuckDB from source: cargo build -p agnes-cli --features bundled (20 minutes or more)"
exit 1
