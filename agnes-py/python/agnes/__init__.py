"""Agnes: a governed data engine.

    import agnes

    with agnes.open("data") as db:                       # a data folder, or
        db.sources.add("shop", "files", path="exports/")
        db.sync()
        db.query("SELECT count(*) FROM orders").to_pandas()

    db = agnes.connect("https://agnes.example.com")      # a server: the same object
    db.table("orders").to_polars()

Results are Arrow: whatever reads the Arrow PyCapsule interface (pandas, polars, pyarrow,
DuckDB) takes a `QueryResult` as it is.
"""

from __future__ import annotations

import asyncio
import atexit
import os
import weakref
from typing import TYPE_CHECKING

from ._admin import Admin
from ._agnes import (
    BatchIterator,
    Database,
    Grants,
    Groups,
    Policies,
    QueryResult,
    RowIterator,
    Sources,
    Tables,
    Users,
    __version__,
)
from ._errors import (
    AccessError,
    AgnesError,
    ConfigError,
    ConflictError,
    DataError,
    InternalError,
    InvalidInputError,
    LimitExceededError,
    NotFoundError,
    QueryRefusedError,
    RateLimitedError,
    UnavailableError,
    UnsupportedError,
)
from ._table import Table

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

__all__ = [
    "AccessError",
    "Admin",
    "AgnesError",
    "BatchIterator",
    "ConfigError",
    "ConflictError",
    "DataError",
    "Database",
    "Grants",
    "Groups",
    "InternalError",
    "InvalidInputError",
    "LimitExceededError",
    "NotFoundError",
    "Policies",
    "QueryRefusedError",
    "QueryResult",
    "RateLimitedError",
    "RowIterator",
    "Sources",
    "Table",
    "Tables",
    "UnavailableError",
    "UnsupportedError",
    "Users",
    "__version__",
    "aconnect",
    "aopen",
    "connect",
    "open",
]

_opened: weakref.WeakSet[Database] = weakref.WeakSet()
_last: weakref.ref[Database] | None = None


def _keep(database: Database) -> Database:
    global _last
    _opened.add(database)
    _last = weakref.ref(database)
    return database


def _last_opened() -> Database | None:
    return None if _last is None else _last()


def open(path: str | os.PathLike[str], *, config: str | os.PathLike[str] | None = None) -> Database:  # noqa: A001
    """Opens the data folder at `path`, makes it when missing.

    This process holds the folder, or is served by the process that holds it already.
    `config` names an `instance.yaml`; without it the one in `$CONFIG_DIR` counts, if that is set.
    """
    return _keep(Database._open(path, config))


def connect(
    url: str | None = None,
    *,
    token: str | None = None,
    ca_file: str | os.PathLike[str] | None = None,
    timeout: float | None = None,
) -> Database:
    """The server at `url`, asked with `token`: the same object as `open` gives.

    Without `url` it is `$AGNES_SERVER`, else the server that `agnes auth login` kept. Without `token` it
    is `$AGNES_TOKEN`, else the one that was kept for this server. `ca_file` (PEM, or `$AGNES_CA_FILE`) names
    certificates to trust beside the system's. `timeout` is how many seconds a query may take, 300 unless it says so.
    """
    return _keep(Database._connect(url, token, ca_file, timeout))


async def aconnect(
    url: str | None = None,
    *,
    token: str | None = None,
    ca_file: str | os.PathLike[str] | None = None,
    timeout: float | None = None,
) -> Database:
    """`connect` for asyncio."""
    return await asyncio.to_thread(connect, url, token=token, ca_file=ca_file, timeout=timeout)


async def aopen(path: str | os.PathLike[str], *, config: str | os.PathLike[str] | None = None) -> Database:
    """`open` for asyncio."""
    return await asyncio.to_thread(open, path, config=config)


def load_ipython_extension(ipython: InteractiveShell) -> None:
    """`%load_ext agnes` brings `%%agnes`."""
    from ._magic import load

    load(ipython)


@atexit.register
def _close_all() -> None:
    for database in list(_opened):
        database.close()
