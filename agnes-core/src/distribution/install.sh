#!/bin/sh
# Installs the command `agnes` for this user: no root, nothing outside the home folder.
# AGNES_HOME (~/.local/share/agnes) holds the versions, AGNES_BIN_DIR (~/.local/bin) a link.
set -eu

origin=@ORIGIN@
version=@VERSION@

say() { printf '%s\n' "$*" >&2; }
fail() { say "agnes: $*"; exit 1; }

once() { # address, file: goes on where the file ends
  if command -v curl >/dev/null 2>&1; then
    curl -fsSL ${AGNES_CA_FILE:+--cacert "$AGNES_CA_FILE"} --connect-timeout 10 --speed-time 60 --speed-limit 1 -C - -o "$2" "$1"
  elif command -v wget >/dev/null 2>&1; then
    wget -q ${AGNES_CA_FILE:+--ca-certificate="$AGNES_CA_FILE"} -T 60 -t 1 -c -O "$2" "$1"
  else
    fail 'curl or wget is needed'
  fi
}

size_of() { if [ -f "$1" ]; then wc -c < "$1"; else echo 0; fi; }

fetch() { # address, file: a break is gone on from, three times as long as nothing comes
  tries=0 before=0
  until once "$1" "$2"; do
    now=$(size_of "$2")
    if [ "$now" -gt "$before" ]; then tries=0; fi
    tries=$((tries + 1)) before=$now
    [ "$tries" -lt 4 ] || return 1
    say 'agnes: that broke off; trying again'
    sleep 1
  done
}

sha256_of() {
  if command -v sha256sum >/dev/null 2>&1; then sha256sum "$1"; else shasum -a 256 "$1"; fi | cut -d' ' -f1
}

# The new link is there in one step; a system whose mv cannot do that makes it in two.
point() { # where it leads, link
  ln -s "$1" "$2.$$"
  mv -Tf "$2.$$" "$2" 2>/dev/null || { rm -f "$2.$$"; ln -sfn "$1" "$2"; }
}

main() {
  case "$(uname -s)" in Linux) os=linux ;; Darwin) os=macos ;; *) os=$(uname -s) ;; esac
  case "$(uname -m)" in x86_64 | amd64) arch=x64 ;; aarch64 | arm64) arch=arm64 ;; *) arch=$(uname -m) ;; esac
  case "$os-$arch" in
@CHOICES@
    *) fail "this server has no version for $os $arch" ;;
  esac
  home=${AGNES_HOME:-$HOME/.local/share/agnes}
  bin=${AGNES_BIN_DIR:-$HOME/.local/bin}
  if [ -e "$bin/agnes" ] && [ ! -L "$bin/agnes" ]; then
    fail "$bin/agnes is there already, and is not from here: remove it, or name another folder in AGNES_BIN_DIR"
  fi
  mkdir -p "$home/versions" "$bin"
  work=$(mktemp -d "$home/.incoming-XXXXXX")
  trap 'rm -rf "$work"' EXIT
  trap 'exit 1' HUP INT TERM
  say "agnes: fetching version $version for $os $arch from $origin"
  fetch "$origin/cli/artifact/$file" "$work/archive" || fail 'the archive could not be fetched'
  [ "$(sha256_of "$work/archive")" = "$sha256" ] || fail 'the archive is not the one that the server offers: nothing was changed'
  mkdir "$work/tree"
  tar -xzf "$work/archive" -C "$work/tree" --strip-components=1
  [ "$("$work/tree/bin/agnes" --version)" = "agnes $version" ] || fail "version $version does not start on this computer"
  name=$version-$(printf %s "$sha256" | cut -c1-12)
  before=$(readlink "$home/current" || true)
  if [ "$("$home/versions/$name/bin/agnes" --version 2>/dev/null)" != "agnes $version" ]; then
    rm -rf "$home/versions/$name"
    mv "$work/tree" "$home/versions/$name"
  fi
  [ -z "$before" ] || [ "$before" = "versions/$name" ] || point "$before" "$home/previous"
  point "versions/$name" "$home/current"
  rm -f "$home/skip"
  point "$home/current/bin/agnes" "$bin/agnes"
  say "agnes: version $version is in $bin"
  case ":$PATH:" in
    *":$bin:"*) ;;
    *) say 'agnes: it is not in your PATH yet; put this into your shell profile:'
       say "  export PATH=\"$bin:\$PATH\"" ;;
  esac
}

# Called last: of a script that was cut off on its way nothing runs.
main
