#!/usr/bin/env bash
# Runs a command with its temporary files in memory, where there is room for them:
#
#   scripts/in-memory.sh COMMAND [ARGUMENT...]
#
# Tests write thousands of small files and wait for each to be on the disk. A TMPDIR that is set
# counts.
set -euo pipefail

# GiB that must be free: far more than tests have at a time.
room=6
memory=/dev/shm

has_room() {
  [ -w "$memory" ] || return 1
  [ "$(df --output=avail -k "$memory" 2>/dev/null | tail -n 1)" -ge $((room << 20)) ] || return 1
  [ "$(awk '/^MemAvailable:/ { print $2 }' /proc/meminfo)" -ge $((room << 20)) ]
}

if [ -n "${TMPDIR:-}" ] || ! has_room 2>/dev/null; then exec "$@"; fi
# Database servers of tests run as users of their own, who must get there.
TMPDIR=$(mktemp -d "$memory/agnes-XXXXXX")
trap 'rm -rf "$TMPDIR"' EXIT
chmod 755 "$TMPDIR"
# In some containers nothing can be run from there, as tests do.
printf '#!/bin/sh\n' >"$TMPDIR/runs"
chmod +x "$TMPDIR/runs"
if "$TMPDIR/runs" 2>/dev/null; then export TMPDIR; else rm -rf "$TMPDIR"; unset TMPDIR; fi
"$@"
