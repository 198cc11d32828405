import pathlib
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from os import PathLike
from typing import Any, Literal, TypeAlias, final, overload

import pandas
import polars
import pyarrow

__all__ = [
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

# Rows of the engine's own records: the fields of the REST API and of `agnes --format json`.
_Row: TypeAlias = dict[str, Any]
_Rows: TypeAlias = list[_Row]
_Params: TypeAlias = Sequence[object] | Mapping[str, object]

@final
class Database:
    """A data folder, held by this process or served by the process that holds it."""

    @staticmethod
    def _open(path: str | PathLike[str], config: str | PathLike[str] | None = None) -> Database: ...
    @property
    def path(self) -> pathlib.Path:
        """The data folder."""
    @property
    def served_by(self) -> int | None:
        """Process id of the holder that serves this database; `None` when this process holds the folder."""
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
        """The same folder as one of its users sees it."""
    def catalog(self, *, as_user: str | None = None) -> _Rows:
        """The tables the caller may read."""
    def sync(
        self,
        sources: Sequence[str] | None = None,
        *,
        tables: Sequence[str] | None = None,
        full: bool = False,
        progress: Callable[[_Row], object] | None = None,
    ) -> _Row:
        """Brings tables up to date and waits for the end of the run."""
    def runs(self, limit: int = 20) -> _Rows:
        """Sync runs, newest first."""
    def audit(self, limit: int = 100, **filter: object) -> _Rows:
        """The audit log, newest first."""
    def manifest(self, *, as_user: str | None = None) -> _Row:
        """What the caller may pull, with hashes."""
    def rebuild(self) -> _Row:
        """Publishes what is in the extracts folder."""
    def backup(self, target: str | PathLike[str]) -> _Row:
        """Copies state and data into a new folder."""
    def gc(self, *, dry_run: bool = False) -> _Row:
        """Deletes what nothing refers to."""
    def doctor(self) -> _Row:
        """What is wrong with this folder, and what to do."""
    def query(
        self,
        sql: str,
        params: _Params | None = None,
        *,
        as_user: str | None = None,
        limit: int | None = None,
        timeout: float | None = None,
        receipt: bool = False,
    ) -> QueryResult:
        """Asks one read-only query over the tables the caller may read."""
    def replay(self, receipt: Mapping[str, Any], *, as_user: str | None = None) -> _Row:
        """Asks the query of a receipt again: is the answer the same, and if not, what changed."""
    def aquery(
        self,
        sql: str,
        params: _Params | None = None,
        *,
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
        progress: Callable[[_Row], object] | None = None,
    ) -> Awaitable[_Row]:
        """`sync` for asyncio."""
    def close(self) -> None:
        """Lets go of the folder, once the calls of other threads are answered. Twice is fine."""
    def __enter__(self) -> Database: ...
    def __exit__(self, *_exception: object) -> None: ...

@final
class Sources:
    """The sources of a data folder."""

    def add(self, name: str, kind: str, *, schedule: str | None = None, **config: object) -> _Row:
        """Adds a source, finds its tables and registers them. Further keywords are the connector's settings."""
    def list(self) -> _Rows: ...
    def remove(self, name: str, *, drop_data: bool = False) -> None: ...
    def check(self, name: str) -> _Rows: ...
    def discover(self, name: str) -> _Rows: ...

@final
class Tables:
    """The registered tables of a data folder."""

    def list(self) -> _Rows: ...
    def get(self, table: str) -> _Row: ...
    def schema(self, table: str) -> _Row: ...
    def sample(self, table: str, rows: int = 10) -> _Row: ...
    def profile(self, table: str, *, refresh: bool = False) -> _Row: ...
    def history(self, table: str, limit: int = 20) -> _Rows: ...
    def unregister(self, table: str) -> _Row: ...

@final
class Users:
    """The people of a data folder."""

    def add(self, email: str, name: str | None = None) -> _Row: ...
    def list(self) -> _Rows: ...
    def get(self, user: str) -> _Row: ...
    def activate(self, user: str) -> _Row: ...
    def deactivate(self, user: str) -> _Row: ...
    def remove(self, user: str) -> _Row: ...
    def access(self, user: str) -> _Row: ...

@final
class Groups:
    """Named sets of people."""

    def create(self, name: str, description: str | None = None) -> _Row: ...
    def list(self) -> _Rows: ...
    def delete(self, group: str) -> _Row: ...
    def members(self, group: str) -> _Rows: ...
    def add_member(self, group: str, user: str) -> _Row: ...
    def remove_member(self, group: str, user: str) -> None: ...

@final
class Grants:
    """What is open to whom."""

    def add(self, group: str, resource_id: str, *, resource_type: str = "table") -> _Row: ...
    def list(self, group: str | None = None) -> _Rows: ...
    def revoke(self, grant: str) -> _Row: ...

@final
class Policies:
    """What groups see of the tables they may read: row filters, masks, hidden columns."""

    def create(self, group: str, table: str, rules: Mapping[str, Any]) -> _Row: ...
    def list(self, *, table: str | None = None, group: str | None = None) -> _Rows: ...
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
    def __iter__(self) -> RowIterator: ...
    def _repr_html_(self) -> str: ...

@final
class RowIterator(Iterator[tuple[Any, ...]]):
    """Rows of a result, one at a time."""

    def __iter__(self) -> RowIterator: ...
    def __next__(self) -> tuple[Any, ...]: ...
