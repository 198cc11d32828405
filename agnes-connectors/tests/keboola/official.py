"""Exports one table by the vendor's official client.

Usage: official.py URL TOKEN TABLE FOLDER [CHANGED_SINCE [COLUMN,..]]
Prints what it learned of token, buckets and tables, and the exported file.
"""

import json
import sys

from kbcstorage.client import Client

url, token, table, folder, *rest = sys.argv[1:]
since = rest[0] if rest and rest[0] else None
columns = rest[1].split(",") if len(rest) > 1 else None
client = Client(url, token)
told = {
    "project": client.tokens.verify()["owner"]["id"],
    "buckets": [bucket["id"] for bucket in client.buckets.list()],
    "tables": [found["id"] for found in client.tables.list(include=["columns", "buckets"])],
}
path = client.tables.export_to_file(table, folder, changed_since=since, columns=columns)
with open(path, encoding="utf-8") as file:
    told["csv"] = file.read()
print(json.dumps(told))
