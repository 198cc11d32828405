#!/usr/bin/env bash
# Fetches DuckDB's own extension files that the tests load, once.
#
#   scripts/fetch-extensions.sh [FOLDER]        FOLDER: .duckdb/extensions
#
# They come from the Python package index. Each file is signed; DuckDB checks that on `LOAD`.
set -euo pipefail

version=1.5.5
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
folder=${1:-${AGNES_TEST_EXTENSIONS:-$root/.duckdb/extensions}}

wanted=()
for name in sqlite_scanner postgres_scanner mysql_scanner tpch tpcds; do
  [ -f "$folder/$name.duckdb_extension" ] || wanted+=("$name")
done
[ ${#wanted[@]} -gt 0 ] || exit 0

mkdir -p "$folder"
work=$(mktemp -d "$folder/.fetch-XXXXXX")
trap 'rm -rf "$work"' EXIT
python=${PYTHON:-python3}
packages=()
for name in "${wanted[@]}"; do packages+=("duckdb-extension-${name//_/-}==$version"); done
"$python" -m pip download --quiet --disable-pip-version-check --no-deps --only-binary :all: --dest "$work" "${packages[@]}"
for name in "${wanted[@]}"; do
  "$python" - "$work"/duckdb_extension_"$name"-*.whl "$name" "$work" <<'PY'
import pathlib, sys, zipfile
wheel, name, target = sys.argv[1:]
with zipfile.ZipFile(wheel) as files:
    [member] = [m for m in files.namelist() if m.endswith(f"/{name}.duckdb_extension")]
    pathlib.Path(target, f"{name}.duckdb_extension").write_bytes(files.read(member))
PY
  mv -f "$work/$name.duckdb_extension" "$folder/"
  echo "duckdb: extension $name $version in $folder" >&2
done
