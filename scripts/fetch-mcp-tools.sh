#!/usr/bin/env bash
# Fetches what the tests of tools for assistants use, once: the official client in Python, the
# MCP Inspector's command line, the official tests of conformance.
#
#   scripts/fetch-mcp-tools.sh [FOLDER]        FOLDER: .duckdb/tools
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
folder=${1:-${AGNES_TEST_TOOLS:-$root/.duckdb/tools}}/mcp
mkdir -p "$folder"

if [ ! -f "$folder/.ready" ]; then
  rm -rf "$folder/python"
  "${PYTHON:-python3}" -m venv "$folder/python"
  "$folder/python/bin/pip" install --quiet --disable-pip-version-check mcp==2.3.0
  npm install --silent --no-audit --no-fund --no-package-lock --ignore-scripts --prefix "$folder" \
    @modelcontextprotocol/inspector@0.15.0 @modelcontextprotocol/conformance@0.1.12
  touch "$folder/.ready"
  echo "clients of the Model Context Protocol in $folder" >&2
fi
