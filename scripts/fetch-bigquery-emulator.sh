#!/usr/bin/env bash
# Fetches a server that speaks BigQuery's REST and Storage Read API, and the official client, once. Needs Python 3.13.
#
#   scripts/fetch-bigquery-emulator.sh [FOLDER]        FOLDER: .duckdb/tools
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
folder=${1:-${AGNES_TEST_TOOLS:-$root/.duckdb/tools}}/bigquery
client() { "$folder/python/bin/pip" install --quiet --disable-pip-version-check google-cloud-bigquery==3.47.0; }
if [ -f "$folder/.ready" ]; then
  # The official client came later than the server.
  "$folder/python/bin/python" -c 'import google.cloud.bigquery' 2>/dev/null || client
  exit 0
fi

python=
for candidate in "${PYTHON313:-}" python3.13 "$HOME"/.pyenv/versions/3.13.*/bin/python3.13; do
  if [ -n "$candidate" ] && "$candidate" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 13))' 2>/dev/null; then
    python=$candidate
    break
  fi
done
[ -n "$python" ] || { echo "no Python 3.13: set PYTHON313" >&2; exit 1; }

rm -rf "$folder"
mkdir -p "$(dirname "$folder")"
"$python" -m venv "$folder/python"
"$folder/python/bin/pip" install --quiet --disable-pip-version-check local-bigquery==0.4.0
# It asks for a newer engine than there are extensions for, and runs on this one.
"$folder/python/bin/pip" install --quiet --disable-pip-version-check duckdb==1.5.5 numpy 2>/dev/null
work=$(mktemp -d "$folder/.fetch-XXXXXX")
trap 'rm -rf "$work"' EXIT
"$folder/python/bin/pip" download --quiet --disable-pip-version-check --no-deps --only-binary :all: --dest "$work" \
  duckdb-extension-icu==1.5.5 duckdb-extension-ducklake==1.5.5 duckdb-extension-spatial==1.5.5
# The server looks for them in its home folder.
extensions=$folder/home/.duckdb/extensions/v1.5.5/linux_amd64
mkdir -p "$extensions"
"$folder/python/bin/python" - "$work" "$extensions" <<'PY'
import pathlib, sys, zipfile
work, target = map(pathlib.Path, sys.argv[1:])
for wheel in work.glob("*.whl"):
    with zipfile.ZipFile(wheel) as files:
        for member in files.namelist():
            if member.endswith(".duckdb_extension"):
                (target / pathlib.Path(member).name).write_bytes(files.read(member))
PY
client
touch "$folder/.ready"
echo "BigQuery emulator in $folder" >&2
