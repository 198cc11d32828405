"""Agnes: a governed data engine.

    import agnes

    with agnes.open("data") as db:
        db.sources.add("shop", "files", path="exports/")
        db.sync()
        db.query("SELECT count(*) FROM orders").to_pandas()

Results are Arrow: whatever reads the Arrow PyCapsule interface (pandas, polars, pyarrow,
DuckDB) takes a `QueryResult` as it is.
"""

from __future__ import annotations

import asyncio
import atexit
import os
import weakref

from ._agnes import (
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

__all__ = [
    "AccessError",
    "AgnesError",
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
    "Tables",
    "UnavailableError",
    "UnsupportedError",
    "Users",
    "__version__",
    "aopen",
    "open",
]

_opened: weakref.WeakSet[Database] = weakref.WeakSet()


def open(path: str | os.PathLike[str], *, config: str | os.PathLike[str] | None = None) -> Database:  # noqa: A001
    """Opens the data folder at `path`, makes it when missing.

    This process holds the folder, or is served by the process that holds it already.
    `config` names an `instance.yaml`; without it the one in `$CONFIG_DIR` counts, if that is set.
    """
    database = Database._open(path, config)
    _opened.add(database)
    return database


async def aopen(path: str | os.PathLike[str], *, config: str | os.PathLike[str] | None = None) -> Database:
    """`open` for asyncio."""
    return await asyncio.to_thread(open, path, config=config)


@atexit.register
def _close_all() -> None:
    for database in list(_opened):
        database.close()
