"""A million rows as a pyarrow table: by the package `agnes`, and by the package `duckdb` of the same Parquet, in turn."""

import json
import sys
import time

import agnes
import duckdb

folder, file, rows, runs = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
connection = duckdb.connect()
# As many threads as the engine of a data folder has.
connection.execute("SET threads = 2")
connection.execute("SET preserve_insertion_order = false")
with agnes.open(folder) as db:
    sides = {
        "agnes": lambda: db.query("SELECT * FROM shop_t0").to_arrow(),
        "duckdb": lambda: connection.sql(f"SELECT * FROM read_parquet('{file}')").to_arrow_table(),
    }
    times = {name: [] for name in sides}
    for run in range(runs + 2):
        for name, ask in sides.items():
            begun = time.perf_counter()
            table = ask()
            took = time.perf_counter() - begun
            if table.num_rows != rows or table.num_columns < 11:
                raise SystemExit(f"{name} lost rows")
            # The first runs fill caches on both sides.
            if run >= 2:
                times[name].append(took)
            del table
print(json.dumps(times))
