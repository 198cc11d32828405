#!/bin/sh
# Cargo's runner (.cargo/config.toml): starts a program where it finds the DuckDB library
# of this clone, wherever the target folder is. Doctests need it: they run from a
# temporary folder, where no relative rpath helps.
lib=${DUCKDB_LIB_DIR:-$(dirname "$0")/../.duckdb}
LD_LIBRARY_PATH=$lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
DYLD_LIBRARY_PATH=$lib${DYLD_LIBRARY_PATH:+:$DYLD_LIBRARY_PATH}
export LD_LIBRARY_PATH DYLD_LIBRARY_PATH
exec "$@"
