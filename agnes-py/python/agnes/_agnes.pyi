import pathlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from os import PathLike
from typing import Any, Literal, Protocol, TypeAlias, TypeVar, final, overload

import pandas
import polars
import pyarrow

from ._admin import Admin
from ._shown import Catalog, Profile, Records, Run, Sample, Schema
from ._table import Table

__all__ = [
    "BatchIterator",
    "Call",
    "Database",
    "Grants",
    "Groups",
    "Policies",
    "QueryResult",
    "RowIterator",
    "Sources",
    "Tables",
    "Users",
    "__version__",
]

__version__: str

_T = TypeVar("_T")

# Rows of the engine's own records: the fields of the REST API and of `agnes --format json`.
_Row: TypeAlias = dict[str, Any]
_Rows: TypeAlias = list[_Row]
_Params: TypeAlias = Sequence[object] | Mapping[str, object]
_Progress: TypeAlias = bool | Callable[[_Row], object] | None

class _Arrow(Protocol):
    """Rows of Arrow: a DataFrame of pandas or polars, a table of pyarrow, a result of a query."""

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object: ...

@final
class Database:
    """A data folder, held by this process or served by the process that holds it; or a server."""

    @staticmethod
    def _open(path: str | PathLike[str], config: str | PathLike[str] | None = None) -> Database: ...
    @staticmethod
    def _connect(
        url: str | None, token: str | None, ca_file: str | PathLike[str] | None, timeout: float | None
    ) -> Database: ...
    @property
    def path(self) -> pathlib.Path | None:
        """The data folder; `None` of a server."""
    @property
    def url(self) -> str | None:
        """Address of the server; `None` of a data folder."""
    @property
    def served_by(self) -> int | None:
        """Process id of the holder that serves this database; `None` when this process holds the folder."""
    def table(self, name: str) -> Table:
        """One table, by name. It is asked for nothing until something of it is wanted."""
    def register(self, name: str, frame: _Arrow) -> None:
        """Keeps a frame for the queries of this handle that name it. It never stands in the place of a table."""
    def unregister(self, name: str) -> bool:
        """Forgets a frame; whether there was one."""
    @property
    def admin(self) -> Admin:
        """What admins and operators do."""
    @property
    def sources(self) -> Sources: ...
    @property
    def tables(self) -> Tables: ...
    @property
    def users(self) -> Users: ...
    @property
    def groups(self) -> Groups: ...
    @property
    def grants(self) -> Grants: ...
    @property
    def policies(self) -> Policies: ...
    def acting_as(self, user: str) -> Database:
        """The same place as one of its users sees it; for admins of a server."""
    def catalog(self, *, as_user: str | None = None) -> Catalog:
        """The tables the caller may read."""
    def sync(
        self,
        sources: Sequence[str] | None = None,
        *,
        tables: Sequence[str] | None = None,
        full: bool = False,
        progress: _Progress = None,
    ) -> Run:
        """Brings tables up to date and waits for the end of the run.

        A run at a server goes on when whoever waits for it goes away. `progress` is where events go, as dicts;
        `True` shows them on standard error, and in a notebook they show themselves unless it is `False`.
        """
    def runs(self, limit: int = 20) -> _Rows:
        """Sync runs, newest first."""
    def cancel(self, run_id: str) -> bool:
        """Stops a sync run; whether there was something to stop."""
    def audit(self, limit: int = 100, **filter: object) -> _Rows:
        """The audit log, newest first."""
    def manifest(self, *, as_user: str | None = None) -> _Row:
        """What the caller may pull, with hashes."""
    def rebuild(self) -> _Row:
        """Publishes what is in the extracts folder."""
    def backup(self, target: str | PathLike[str]) -> _Row:
        """Copies state and data into a new folder; of data folders, since it holds the server's keys."""
    def gc(self, *, dry_run: bool = False) -> _Row:
        """Deletes what nothing refers to."""
    def doctor(self) -> _Row:
        """What is wrong with this folder, and what to do."""
    def query(
        self,
        sql: str,
        params: _Params | None = None,
        *,
        frames: Mapping[str, _Arrow] | None = None,
        as_user: str | None = None,
        limit: int | None = None,
        timeout: float | None = None,
        receipt: bool = False,
    ) -> QueryResult:
        """Asks one read-only query over the tables the caller may read, and over `frames` by their names."""
    def replay(self, receipt: Mapping[str, Any], *, as_user: str | None = None) -> _Row:
        """Asks the query of a receipt again: is the answer the same, and if not, what changed."""
    def aquery(
        self,
        sql: str,
        params: _Params | None = None,
        *,
        frames: Mapping[str, _Arrow] | None = None,
        as_user: str | None = None,
        limit: int | None = None,
        timeout: float | None = None,
        receipt: bool = False,
    ) -> Awaitable[QueryResult]:
        """`query` for asyncio: the event loop goes on while the engine works."""
    def async_sync(
        self,
        sources: Sequence[str] | None = None,
        *,
        tables: Sequence[str] | None = None,
        full: bool = False,
        progress: _Progress = None,
    ) -> Awaitable[Run]:
        """`sync` for asyncio."""
    def acatalog(self, *, as_user: str | None = None) -> Awaitable[Catalog]:
        """`catalog` for asyncio."""
    def close(self) -> None:
        """Lets go of the place, once the calls of other threads are answered. Twice is fine."""
    def __enter__(self) -> Database: ...
    def __exit__(self, *_exception: object) -> None: ...

@final
class Sources:
    """Where data comes from."""

    def add(self, name: str, kind: str, *, schedule: str | None = None, **config: object) -> _Row:
        """Adds a source, finds its tables and registers them. Further keywords are the connector's settings."""
    def list(self) -> _Rows: ...
    def remove(self, name: str, *, drop_data: bool = False) -> None: ...
    def check(self, name: str) -> _Rows: ...
    def discover(self, name: str) -> _Rows: ...

@final
class Tables:
    """The registered tables."""

    def list(self) -> Records: ...
    def get(self, table: str) -> _Row: ...
    def schema(self, table: str) -> Schema: ...
    def sample(self, table: str, rows: int = 10) -> Sample: ...
    def profile(self, table: str, *, refresh: bool = False) -> Profile: ...
    def history(self, table: str, limit: int = 20) -> Records: ...
    def unregister(self, table: str) -> _Row: ...

@final
class Users:
    """The people."""

    def add(self, email: str, name: str | None = None) -> _Row: ...
    def list(self) -> Records: ...
    def get(self, user: str) -> _Row: ...
    def invite(self, user: str) -> _Row: ...
    def activate(self, user: str) -> _Row: ...
    def deactivate(self, user: str) -> _Row: ...
    def remove(self, user: str) -> _Row: ...
    def access(self, user: str) -> _Row: ...

@final
class Groups:
    """Named sets of people."""

    def create(self, name: str, description: str | None = None) -> _Row: ...
    def list(self) -> Records: ...
    def delete(self, group: str) -> _Row: ...
    def members(self, group: str) -> Records: ...
    def add_member(self, group: str, user: str) -> _Row: ...
    def remove_member(self, group: str, user: str) -> None: ...

@final
class Grants:
    """What is open to whom."""

    def add(self, group: str, resource_id: str, *, resource_type: str = "table") -> _Row: ...
    def list(self, group: str | None = None) -> Records: ...
    def revoke(self, grant: str) -> _Row: ...

@final
class Policies:
    """What groups see of the tables they may read: row filters, masks, hidden columns."""

    def create(self, group: str, table: str, rules: Mapping[str, Any]) -> _Row: ...
    def list(self, *, table: str | None = None, group: str | None = None) -> Records: ...
    def get(self, policy: str) -> _Row: ...
    def history(self, policy: str) -> _Rows: ...
    def update(self, policy: str, rules: Mapping[str, Any], *, expected_version: int | None = None) -> _Row: ...
    def remove(self, policy: str) -> _Row: ...
    def check(self, policy: str | None = None) -> _Rows: ...
    def preview(self, group: str, table: str, rules: Mapping[str, Any]) -> _Row:
        """Who would gain or lose what if this policy were made."""

@final
class QueryResult:
    """The answer to a query."""

    @property
    def columns(self) -> list[str]: ...
    @property
    def row_scope(self) -> _Rows:
        """What policies took from the tables of the query: rows that may be missing, columns that are masked."""
    @property
    def receipt(self) -> _Row | None:
        """What the answer was made of, if that was asked for; `None` until the last row was read."""
    @property
    def truncated(self) -> bool | None:
        """Whether rows were left out by a limit; `None` until the last row was read."""
    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object: ...
    def __arrow_c_schema__(self) -> object: ...
    def to_arrow(self) -> pyarrow.Table: ...
    def to_pandas(self) -> pandas.DataFrame: ...
    def to_polars(self) -> polars.DataFrame: ...
    @overload
    def rows(self, *, named: Literal[False] = False) -> list[tuple[Any, ...]]: ...
    @overload
    def rows(self, *, named: Literal[True]) -> list[dict[str, Any]]: ...
    def batches(self) -> BatchIterator:
        """Results of one batch each, as they come: no more than one is in memory."""
    def load(self) -> QueryResult:
        """Reads all rows into memory, where they stay; the result itself."""
    def aload(self) -> Awaitable[QueryResult]:
        """`load` for asyncio."""
    def __iter__(self) -> RowIterator: ...
    def _repr_html_(self) -> str: ...

@final
class RowIterator(Iterator[tuple[Any, ...]]):
    """Rows of a result, one at a time."""

    def __iter__(self) -> RowIterator: ...
    def __next__(self) -> tuple[Any, ...]: ...

@final
class BatchIterator(Iterator[QueryResult], AsyncIterator[QueryResult]):
    """Results of one batch each, for `for` and `async for`."""

    def __iter__(self) -> BatchIterator: ...
    def __next__(self) -> QueryResult: ...
    def __aiter__(self) -> BatchIterator: ...
    def __anext__(self) -> Awaitable[QueryResult]: ...

@final
class Call:
    """A call that another thread may end."""

    def __new__(cls) -> Call: ...
    def run(self, function: Callable[..., _T], *args: object, **kwargs: object) -> _T:
        """Calls a function, whose waits `cancel` ends."""
    def cancel(self) -> None:
        """Ends it."""
